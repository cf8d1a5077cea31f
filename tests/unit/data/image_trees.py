"""Tiny image re-identification sets on disk, in the layouts that people have. Files are empty."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from crosswalk.data.readers.records import Record

MARKET = {
    "bounding_box_train": [
        "0007_c3s2_012345_01.jpg",
        "0002_c1s1_000451_03.jpg",
        "0007_c10s2_012345_01.jpg",
        "0002_c5s1_000451_01.jpg",
        "0010_c6s4_002452_10.jpg",
        "Thumbs.db",
    ],
    "query": ["0003_c4s6_015641_00.jpg", "0001_c2s1_000301_00.jpg"],
    "bounding_box_test": [
        "0001_c1s1_001051_03.jpg",
        "-1_c1s1_000401_03.jpg",
        "0000_c1s1_000151_01.jpg",
        "0003_c6s4_002452_10.jpg",
        "-1_c5s3_000001_00.jpg",
        "0000_c6s1_000151_01.jpg",
        "0000_c2s1_000151_01.jpg",
    ],
}

DUKE = {
    "bounding_box_train": ["0023_c6_f0021337.jpg", "0001_c2_f0046182.jpg", "0001_c1_f0044158.jpg"],
    "query": ["0005_c2_f0046985.jpg"],
    "bounding_box_test": ["0005_c5_f0051781.jpg", "0002_c1_f0044158.jpg"],
}

MSMT17_MARKET = {
    "bounding_box_train": ["0000_c1_0030.jpg", "0000_c14_0030.jpg", "0001_c9_0002.jpg"],
    "query": ["0000_c15_0001.jpg"],
    "bounding_box_test": ["0001_c2_0001.jpg", "0000_c1_0002.jpg"],
}

# Lines of list_<name>.txt; the images lie in the folder of the first part.
MSMT17_LISTS = {
    "train": [
        "0001/0001_000_14_0303morning_0008_0.jpg 1",
        "0000/0000_001_01_0303morning_0015_0.jpg 0",
        "0000/0000_000_01_0303morning_0008_0.jpg 0",
    ],
    "val": ["0000/0000_004_05_0303noon_0020_1.jpg 0"],
    "query": ["0000/0000_000_02_0113morning_1461_0.jpg 0"],
    "gallery": [
        "0001/0001_003_11_0302evening_0005_2.jpg 1",
        "0000/0000_010_15_0113noon_0030_0.jpg 0",
    ],
}


def write_files(root: Path, folders: Mapping[str, Iterable[str]]) -> Path:
    """Write empty files: names by folder."""
    for folder, names in folders.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (root / folder / name).touch()
    return root


def write_lists(
    root: Path,
    lists: Mapping[str, Iterable[str]] = MSMT17_LISTS,
    folders: tuple[str, str] = ("train", "test"),
) -> Path:
    """Write MSMT17 as published: lists, and the images that they name."""
    for name, lines in lists.items():
        folder = folders[0] if name in ("train", "val") else folders[1]
        write_files(root, {folder: [line.split()[0] for line in lines]})
        (root / f"list_{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def names(records: Iterable[Record]) -> list[str]:
    """Return the base names of the images of records."""
    return [record.image_path.name for record in records]
