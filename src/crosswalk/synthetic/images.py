"""Synthetic image sets for re-identification on disk, rendered on all cores."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from crosswalk.synthetic.image_layouts import IMAGE_LAYOUTS
from crosswalk.synthetic.looks import Look, look_named
from crosswalk.synthetic.people import person_of
from crosswalk.synthetic.set_folder import check_settings, write_record, written_folder
from crosswalk.synthetic.settings import IMAGE_GENERATOR_VERSION
from crosswalk.synthetic.sightings import Sighting, by_person, plan_of
from crosswalk.synthetic.tracklets import frame_of
from crosswalk.synthetic.workers import carried_out

_IMAGES_PER_TASK = 100

Placed = tuple[Sighting, str]
"""An image, and where it lies below the folder of the set."""


def synthesize_images(
    folder: Path | str,
    *,
    layout: str = "market1501",
    size: str = "toy",
    seed: int = 0,
    num_workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Write a synthetic image set in the layout of a real one, and return its root.

    The three layouts are three places with people, clothes, cameras and light of their own, so a
    model trained on one does worse on another. The set is a function of layout, size and seed: the
    number of workers changes no byte. It is written beside the folder, as
    ``.<name>.partial-<random>``, and moved there when it is complete. A complete set of the same
    settings is left as it is.

    Args:
        folder: Root of the data set: ``Market-1501-v15.09.15``, ``DukeMTMC-reID`` or ``MSMT17_V1``
            will be in it.
        layout: "market1501" (6 cameras, junk and distractors), "dukemtmc" (8 cameras) or "msmt17"
            (15 cameras, indoors and outdoors).
        size: "toy" (160 train identities, msmt17 300), "small" (four times the images) or "full"
            (counts of the real set).
        seed: Seed of people and pictures; >= 0. Sets of different seeds or layouts share nobody.
        num_workers: Processes that render; None for one on each core.
        progress: Whether to show a progress bar, or plain lines where there is no terminal.

    Returns:
        The folder.

    Raises:
        ValueError: If an argument is out of its range.
        FileExistsError: If the folder holds anything else.

    Example:
        >>> synthesize_images("anywhere", layout="market")
        Traceback (most recent call last):
            ...
        ValueError: layout is 'market'. Set it to one of market1501, dukemtmc, msmt17.
    """
    check_settings({"layout": (layout, IMAGE_LAYOUTS)}, seed)
    files = IMAGE_LAYOUTS[layout]
    check_settings({"size": (size, files.sizes)}, seed)
    folder = Path(folder).resolve()
    settings: dict[str, str | int] = {
        "dataset": "synthetic-images",
        "layout": layout,
        "seed": seed,
        "size": size,
        "generator_version": IMAGE_GENERATOR_VERSION,
    }
    with written_folder(folder, files.folder, settings) as unfinished:
        if unfinished is not None:
            inner = unfinished / files.folder
            num_cameras = sum(look_named(files.look).cameras.values())
            plan = plan_of(
                files.sizes[size], num_cameras=num_cameras, look_name=files.look, seed=seed
            )
            paths = files.image_paths(plan, look_name=files.look, seed=seed)
            for parent in {(inner / path).parent for path in paths}:
                parent.mkdir(parents=True, exist_ok=True)
            tasks = _tasks(list(zip(plan, paths, strict=True)))
            carried_out(
                partial(_render, inner, look_named(files.look), seed),
                tasks,
                [len(task) for task in tasks],
                num_workers=num_workers,
                progress=progress,
            )
            if files.write_lists is not None:
                files.write_lists(inner, plan, paths)
            junk = sum(sighting.role == "junk" for sighting in plan)
            write_record(inner, settings | {"junk": junk}, split_counts(plan))
    return folder


def split_counts(plan: Sequence[Sighting]) -> dict[str, dict[str, int]]:
    """Return identities and images of every split.

    Those of val are counted in train; distractors are one identity, junk is left out.

    Example:
        >>> people = [Sighting("train", 4, 4, 0, 0), Sighting("train", 4, 4, 1, 0)]
        >>> split_counts(people)["train"]
        {'person_ids': 1, 'images': 2}
    """
    counts = {}
    for split, roles in (
        ("train", ("train", "val")),
        ("query", ("query",)),
        ("gallery", ("gallery", "distractor")),
    ):
        own = [sighting.label for sighting in plan if sighting.role in roles]
        counts[split] = {"person_ids": len(set(own)), "images": len(own)}
    return counts


def _tasks(images: Sequence[Placed]) -> list[Sequence[Placed]]:
    """Return tasks of about the same number of images, none with a part of a person's images."""
    tasks, start = [], 0
    for _, end in by_person([sighting for sighting, _ in images]):
        if end - start >= _IMAGES_PER_TASK or end == len(images):
            tasks.append(images[start:end])
            start = end
    return tasks


def _render(folder: Path, look: Look, seed: int, images: Sequence[Placed]) -> None:
    """Write some images."""
    character, person = -1, None
    for sighting, path in images:
        if person is None or sighting.character != character:
            character = sighting.character
            person = person_of(look, seed=seed, person_id=character)
        data = frame_of(
            look,
            person,
            seed=seed,
            character=character,
            camera=sighting.camera,
            number=sighting.number,
            role=sighting.role,
        )
        (folder / path).write_bytes(data)
