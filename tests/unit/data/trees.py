"""Tiny data sets on disk, in the layouts that people have."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Entry = dict[str, Any]

CUHK_ENTRIES: list[Entry] = [
    {
        "split": split,
        "id": person_id,
        "file_path": name,
        "captions": captions,
        "processed_tokens": [caption.lower().split() for caption in captions],
    }
    for split, person_id, name, captions in [
        ("train", 2, "Market/b1.jpg", ["A man in red.", "He wears a red shirt."]),
        ("val", 11004, "CUHK01/v1.png", ["A woman with a bag.", "She carries a bag."]),
        ("train", 1, "cam_a/a1.jpg", ["A boy.", "A boy runs.", "A running boy."]),
        ("train", 2, "Market/b2.jpg", ["A man again.", "The same man."]),
        ("test", 12004, "test_query/t1.jpg", ["An old man.", "He is old."]),
        ("test", 13003, "test_query/t2.jpg", ["A girl in blue.", "She wears blue."]),
    ]
]


def write_image(path: Path, seed: int = 0) -> None:
    """Write a small image of noise that no encoder makes tiny."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_images(folder: Path, names: Iterable[str]) -> None:
    for seed, name in enumerate(names):
        write_image(folder / name, seed)


def write_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_cuhk(folder: Path, entries: Sequence[Entry] = CUHK_ENTRIES) -> Path:
    """Write the layout of the published protocol: reid_raw.json and imgs/."""
    write_images(folder / "imgs", [entry["file_path"] for entry in entries])
    write_json(folder / "reid_raw.json", entries)
    return folder


def without(entry: Entry, *keys: str) -> Entry:
    return {key: value for key, value in entry.items() if key not in keys}


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of everything below ``folder``."""
    found = [folder, *sorted(folder.rglob("*"))]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Check that the block leaves ``folder`` as it is; it is read-only meanwhile."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    before = tree(folder)
    for each in folders:
        each.chmod(0o555)
    try:
        yield
    finally:
        for each in folders:
            each.chmod(0o755)
    assert tree(folder) == before
