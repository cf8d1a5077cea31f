"""Synthetic image-caption pairs on disk, rendered on all cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from crosswalk.synthetic.captions import describe, tokenized
from crosswalk.synthetic.cuhk_layout import (
    FOLDER,
    Entry,
    image_path,
    split_counts,
    write_index,
)
from crosswalk.synthetic.image_layouts import IMAGE_LAYOUTS
from crosswalk.synthetic.images import synthesize_images
from crosswalk.synthetic.looks import LOOKS, Look, look_named
from crosswalk.synthetic.people import person_of
from crosswalk.synthetic.randomness import keyed_generator
from crosswalk.synthetic.set_folder import (
    check_settings,
    recorded_counts,
    write_record,
    written_folder,
)
from crosswalk.synthetic.settings import GENERATOR_VERSION
from crosswalk.synthetic.shots import shots_of, take_picture
from crosswalk.synthetic.tables import table
from crosswalk.synthetic.workers import carried_out

_CAPTIONS_EACH = 2
_PERSONS_PER_TASK = 25


@dataclass(frozen=True, slots=True)
class SplitSize:
    """How much there is in a split; `extra_captions` are beyond two for each image."""

    persons: int
    images: int
    extra_captions: tuple[int, ...] = ()


SIZES = {
    size: {
        split: SplitSize(persons, images, tuple(extra))
        for split, (persons, images, *extra) in splits.items()
    }
    for size, splits in table("sizes")["pairs"].items()
}
"""Counts of the sizes on offer."""


class _Sitter(NamedTuple):
    """A person, and how many images and captions beyond two each there are to be."""

    split: str
    person_id: int
    images: int
    extra_captions: int


def synthesize_pairs(
    folder: Path | str,
    *,
    size: str = "toy",
    seed: int = 0,
    domain: str = "city",
    num_workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Write a synthetic data set in the layout of CUHK-PEDES, and return its root.

    The set is a function of size, seed and domain: the number of workers changes no byte. It is
    written beside the folder, as ``.<name>.partial-<random>``, and moved there when it is complete.
    A complete set of the same settings is left as it is.

    Args:
        folder: Root of the data set: ``CUHK-PEDES/imgs`` and ``CUHK-PEDES/reid_raw.json`` will be
            in it.
        size: "toy" (300 train identities), "small" (2,000) or "full" (counts of CUHK-PEDES).
        seed: Seed of people, pictures and captions; >= 0. Sets of different seeds share nobody.
        domain: Name of the look, see `looks.LOOKS`; sets of different looks share nobody.
        num_workers: Processes that render; None for one on each core.
        progress: Whether to show a progress bar, or plain lines where there is no terminal.

    Returns:
        The folder.

    Raises:
        ValueError: If an argument is out of its range.
        FileExistsError: If the folder holds anything else.

    Example:
        >>> synthesize_pairs("anywhere", size="huge")
        Traceback (most recent call last):
            ...
        ValueError: size is 'huge'. Set it to one of tiny, toy, small, full.
    """
    check_settings({"size": (size, SIZES), "domain": (domain, LOOKS)}, seed)
    folder = Path(folder).resolve()
    settings: dict[str, str | int] = {
        "dataset": "synthetic-pairs",
        "seed": seed,
        "size": size,
        "domain": domain,
        "generator_version": GENERATOR_VERSION,
    }
    with written_folder(folder, FOLDER, settings) as unfinished:
        if unfinished is not None:
            inner = unfinished / FOLDER
            for source in look_named(domain).cameras:
                (inner / "imgs" / source).mkdir(parents=True)
            sitters = _sitters(size)
            tasks = [
                sitters[start : start + _PERSONS_PER_TASK]
                for start in range(0, len(sitters), _PERSONS_PER_TASK)
            ]
            groups = carried_out(
                partial(_render, inner / "imgs", look_named(domain), seed),
                tasks,
                [sum(sitter.images for sitter in task) for task in tasks],
                num_workers=num_workers,
                progress=progress,
            )
            entries = [entry for group in groups for entry in group]
            write_index(inner, entries)
            write_record(inner, settings, split_counts(entries))
    return folder


def run_synthesize(
    folder: Path | str, kind: str, size: str, seed: int, layout: str | None = None
) -> int:
    """Write a synthetic data set for the command line, say where it is, and return 0.

    Args:
        folder: Root of the data set.
        kind: "pairs": images with captions, or "images": images of people under several cameras.
        size: See `synthesize_pairs` and `synthesize_images`.
        seed: See there.
        layout: "cuhk_pedes" of pairs; "market1501", "dukemtmc" or "msmt17" of images; None for
            the first one of the kind.

    Returns:
        The exit status.

    Raises:
        ValueError: If kind or layout is none that can be written.

    Example:
        >>> run_synthesize("anywhere", "videos", "toy", 0)
        Traceback (most recent call last):
            ...
        ValueError: kind is 'videos'. Set it to 'pairs' (images with captions) or 'images'.
    """
    if kind == "images":
        layout = layout or "market1501"
        root = synthesize_images(folder, layout=layout, size=size, seed=seed)
        inner = root / IMAGE_LAYOUTS[layout].folder
    elif kind != "pairs":
        raise ValueError(f"kind is {kind!r}. Set it to 'pairs' (images with captions) or 'images'.")
    elif layout not in (None, "cuhk_pedes"):
        raise ValueError(f"layout is {layout!r}. Pairs are written as 'cuhk_pedes'.")
    else:
        root = synthesize_pairs(folder, size=size, seed=seed)
        inner = root / FOLDER
    for split, count in recorded_counts(inner).items():
        captions = f", {count['captions']:,} captions" if "captions" in count else ""
        identities = f"{count['person_ids']:,} identities"
        print(f"{split:>7}: {identities}, {count['images']:,} images{captions}")
    print(f"Synthetic {kind} are in {root}.")
    return 0


def images_each(persons: int, images: int) -> list[int]:
    """Return how many images each person has: about the same, and `images` in all.

    Neighbours take one from each other by turns, and a few end with a single image as a few do
    in CUHK-PEDES.

    Example:
        >>> images_each(6, 19)
        [3, 3, 2, 4, 3, 4]
    """
    counts = [
        (number + 1) * images // persons - number * images // persons for number in range(persons)
    ]
    for pair in range(persons // 2):
        moved = 2 if pair % 1000 == 7 else pair % 2
        moved = min(moved, counts[2 * pair] - 1)
        counts[2 * pair] -= moved
        counts[2 * pair + 1] += moved
    return counts


def _sitters(size: str) -> list[_Sitter]:
    """Return all persons of a set, numbered from 1."""
    sitters: list[_Sitter] = []
    for split, amount in SIZES[size].items():
        extra = [0] * amount.persons
        for number, count in enumerate(amount.extra_captions):
            extra[number * 37 + 5] = count
        counts = zip(images_each(amount.persons, amount.images), extra, strict=True)
        sitters += [
            _Sitter(split, person_id, *each)
            for person_id, each in enumerate(counts, start=len(sitters) + 1)
        ]
    return sitters


def _render(imgs: Path, look: Look, seed: int, sitters: Sequence[_Sitter]) -> list[Entry]:
    """Write the images of some persons and return their entries."""
    entries = []
    for split, person_id, count, extra in sitters:
        person = person_of(look, seed=seed, person_id=person_id)
        shots = shots_of(look, person, seed=seed, person_id=person_id, count=count)
        for number, shot in enumerate(shots):
            path = image_path(shot.source, person_id, number, shot.camera)
            (imgs / path).write_bytes(take_picture(look, person, shot, seed=seed))
            words = keyed_generator(seed, look.name, "captions", shot.key)
            wanted = _CAPTIONS_EACH + (extra if number == 0 else 0)
            captions = tuple(describe(person, shot, words).text for _ in range(wanted))
            tokens = tuple(tuple(tokenized(caption)) for caption in captions)
            entries.append(Entry(split, person_id, path, captions, tokens))
    return entries
