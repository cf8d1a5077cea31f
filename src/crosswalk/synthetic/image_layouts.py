"""The layouts of image sets: where their files lie, what they are called and their lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from crosswalk.synthetic.randomness import keyed_generator, pick
from crosswalk.synthetic.sightings import Crowd, SetSize, Sighting
from crosswalk.synthetic.tables import table

_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}


class ImagePaths(Protocol):
    """A function that says where each image lies below the layout's folder."""

    def __call__(self, sightings: Sequence[Sighting], *, look_name: str, seed: int) -> list[str]:
        """Return relative paths with forward slashes, no two of them the same.

        Args:
            sightings: All images, those of one person's visit to a camera side by side.
            look_name: Keys the random streams, with the seed.
            seed: Seed of the set.
        """


@dataclass(frozen=True, slots=True)
class ImageLayout:
    """The files of an image set.

    Attributes:
        folder: The folder that holds everything.
        look: Name of the look that its people and cameras come from.
        sizes: The sizes on offer; "full" is that of the real set.
        image_paths: Says where each image lies.
        write_lists: Writes the set's list files into the folder; called with all images and paths;
            None where the file names say everything.
    """

    folder: str
    look: str
    sizes: Mapping[str, SetSize]
    image_paths: ImagePaths
    write_lists: Callable[[Path, Sequence[Sighting], Sequence[str]], None] | None = None


def market_paths(sightings: Sequence[Sighting], *, look_name: str, seed: int) -> list[str]:
    """Return where each image lies: ``<label>_c<camera>s<sequence>_<frame>_<box>.jpg``.

    Queries are boxes drawn by hand and have number 00, detections count from 01.

    Arguments and result as `ImageLayout.image_paths` says.

    Example:
        >>> market_paths([Sighting("query", 3, 2, 0, 0)], look_name="summer", seed=0)
        ['query/0002_c1s4_068276_00.jpg']
    """
    rng = keyed_generator(seed, look_name, "names")
    paths: list[str] = []  # frames of one visit are a second, 25 frames, apart
    taken: set[str] = set()
    visit, sequence, start = (0, 0, 0), 0, 0
    for sighting in sightings:
        here = (sighting.label, sighting.character, sighting.camera)
        if here != visit or sighting.label < 1:
            visit, sequence = here, int(rng.integers(1, 7))
            start = 1 + 25 * int(rng.integers(0, 4_000))
            steps = 0
        frame = start + 25 * steps
        steps += 1
        label = f"{sighting.label:04d}" if sighting.label >= 0 else "-1"
        box = 0 if sighting.role == "query" else 1
        stem = f"{label}_c{sighting.camera + 1}s{sequence}_{frame:06d}"
        while f"{stem}_{box:02d}" in taken:
            box += 1
        taken.add(f"{stem}_{box:02d}")
        paths.append(f"{_FOLDERS.get(sighting.role, _FOLDERS['gallery'])}/{stem}_{box:02d}.jpg")
    return paths


def duke_paths(sightings: Sequence[Sighting], *, look_name: str, seed: int) -> list[str]:
    """Return where each image lies: ``<label>_c<camera>_f<frame>.jpg``, labels with gaps.

    Arguments and result as `ImageLayout.image_paths` says.

    Example:
        >>> duke_paths([Sighting("query", 3, 2, 0, 0)], look_name="winter", seed=0)
        ['query/0005_c1_f0271086.jpg']
    """
    rng = keyed_generator(seed, look_name, "names")
    last = max(sighting.label for sighting in sightings)
    labels = 1 + rng.choice(3 * last, last, replace=False)
    labels.sort()
    paths, visit, frame = [], (0, -1), 0
    for sighting in sightings:
        here = (sighting.label, sighting.camera)
        frame += 120  # two seconds
        if here != visit:
            visit, frame = here, 44_158 + int(rng.integers(0, 240_000))
        label = labels[sighting.label - 1]
        name = f"{label:04d}_c{sighting.camera + 1}_f{frame:07d}.jpg"
        paths.append(f"{_FOLDERS[sighting.role]}/{name}")
    return paths


def msmt17_paths(sightings: Sequence[Sighting], *, look_name: str, seed: int) -> list[str]:
    """Return where each image lies: ``<part>/<id>/<id>_<number>_<camera>_<time>_...jpg``.

    Ids count from 0 in train and again from 0 in test.

    Arguments and result as `ImageLayout.image_paths` says.

    Example:
        >>> msmt17_paths([Sighting("query", 3, 2, 0, 0)], look_name="terminal", seed=0)
        ['test/0000/0000_000_01_0302morning_6390_0.jpg']
    """
    rng = keyed_generator(seed, look_name, "names")
    ids = _ids(sightings)
    paths, visit, time, frame = [], (0, -1), "", 0
    numbers: dict[int, int] = {}
    for sighting in sightings:
        here = (sighting.label, sighting.camera)
        frame += int(rng.integers(1, 4))
        if here != visit:
            day = pick(rng, ["0113", "0302", "0303", "0321"])
            time = day + pick(rng, ["morning", "noon", "afternoon"])
            visit, frame = here, int(rng.integers(0, 9_000))
        number = numbers[sighting.label] = numbers.get(sighting.label, -1) + 1
        part, identity = ids[sighting.label]
        name = f"{identity:04d}_{number:03d}_{sighting.camera + 1:02d}_{time}_{frame:04d}_0.jpg"
        paths.append(f"{part}/{identity:04d}/{name}")
    return paths


def write_msmt17_lists(folder: Path, sightings: Sequence[Sighting], paths: Sequence[str]) -> None:
    r"""Write ``list_<split>.txt`` with a line ``<path below train or test> <id>`` for each image.

    Args:
        folder: The folder of the set.
        sightings: All images.
        paths: Their paths below the folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     paths = ["train/0004/0004_000_01_0303noon_0151_0.jpg"]
        ...     write_msmt17_lists(Path(name), [Sighting("train", 3, 2, 0, 0)], paths)
        ...     (Path(name) / "list_train.txt").read_text()
        '0004/0004_000_01_0303noon_0151_0.jpg 4\n'
    """
    for role in ("train", "val", "query", "gallery"):
        own = sorted(
            path.partition("/")[2]
            for sighting, path in zip(sightings, paths, strict=True)
            if sighting.role == role
        )
        lines = [f"{path} {int(path.partition('/')[0])}\n" for path in own]
        (folder / f"list_{role}.txt").write_text("".join(lines), encoding="utf-8")


def _ids(sightings: Sequence[Sighting]) -> dict[int, tuple[str, int]]:
    """Return part and id in it of each label, ids in the order of the labels."""
    ids: dict[int, tuple[str, int]] = {}
    for part, roles in (("train", ("train", "val")), ("test", ("query", "gallery"))):
        labels = sorted({s.label for s in sightings if s.role in roles})
        ids |= {label: (part, number) for number, label in enumerate(labels)}
    return ids


def _sizes(layout: str) -> dict[str, SetSize]:
    def count_or_crowd(given: Any) -> Any:  # noqa: ANN401
        return Crowd(*given) if isinstance(given, list) else given

    return {
        size: SetSize(**{name: count_or_crowd(each) for name, each in given.items()})
        for size, given in table("sizes")["images"][layout].items()
    }


IMAGE_LAYOUTS = {
    "market1501": ImageLayout(
        "Market-1501-v15.09.15", "summer", _sizes("market1501"), market_paths
    ),
    "dukemtmc": ImageLayout("DukeMTMC-reID", "winter", _sizes("dukemtmc"), duke_paths),
    "msmt17": ImageLayout(
        "MSMT17_V1", "terminal", _sizes("msmt17"), msmt17_paths, write_msmt17_lists
    ),
}
"""Layouts by the name of their data configuration."""
