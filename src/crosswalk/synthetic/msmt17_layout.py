"""The layout of MSMT17 (V1): where its files lie, what they are called and its lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crosswalk.synthetic.image_layout import ImageLayout
from crosswalk.synthetic.randomness import keyed_generator, pick
from crosswalk.synthetic.sightings import Crowd, SetSize, Sighting

_LISTS = ("train", "val", "query", "gallery")
_DAYTIMES = ("morning", "noon", "afternoon")


def image_paths(sightings: Sequence[Sighting], *, look_name: str, seed: int) -> list[str]:
    """Return where each image lies: ``<part>/<id>/<id>_<number>_<camera>_<time>_...jpg``.

    Ids count from 0 in train and again from 0 in test.

    Args:
        sightings: All images, those of one person side by side.
        look_name: Keys the random streams, with the seed.
        seed: Seed of the set.

    Returns:
        Relative paths with forward slashes; no two images have the same name.

    Example:
        >>> image_paths([Sighting("query", 3, 2, 0, 0)], look_name="terminal", seed=0)
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
            visit, time, frame = here, day + pick(rng, _DAYTIMES), int(rng.integers(0, 9_000))
        number = numbers[sighting.label] = numbers.get(sighting.label, -1) + 1
        part, identity = ids[sighting.label]
        name = f"{identity:04d}_{number:03d}_{sighting.camera + 1:02d}_{time}_{frame:04d}_0.jpg"
        paths.append(f"{part}/{identity:04d}/{name}")
    return paths


def write_lists(folder: Path, sightings: Sequence[Sighting], paths: Sequence[str]) -> None:
    r"""Write ``list_<split>.txt`` with a line ``<path below train or test> <id>`` for each image.

    Args:
        folder: The folder of the set.
        sightings: All images.
        paths: Their paths below the folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     paths = ["train/0004/0004_000_01_0303noon_0151_0.jpg"]
        ...     write_lists(Path(name), [Sighting("train", 3, 2, 0, 0)], paths)
        ...     (Path(name) / "list_train.txt").read_text()
        '0004/0004_000_01_0303noon_0151_0.jpg 4\n'
    """
    for role in _LISTS:
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


SIZES = {
    "tiny": SetSize(Crowd(12, 30, 60), Crowd(4, 8, 28), val_images=6),
    "toy": SetSize(Crowd(300, 1_100, 3_000), Crowd(60, 180, 600), val_images=200),
    "small": SetSize(Crowd(700, 2_660, 12_000), Crowd(240, 720, 2_400), val_images=800),
    # MSMT17
    "full": SetSize(Crowd(1_041, 3_970, 32_621), Crowd(3_060, 11_659, 93_820), val_images=2_373),
}

MSMT17 = ImageLayout(
    dataset="msmt17",
    folder="MSMT17_V1",
    look="terminal",
    sizes=SIZES,
    image_paths=image_paths,
    write_lists=write_lists,
)
