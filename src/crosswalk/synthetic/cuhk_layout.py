"""The layout of CUHK-PEDES: where its files lie and what its index says."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = "CUHK-PEDES"
INDEX_NAME = "reid_raw.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of the index.

    Attributes:
        split: "train", "val" or "test".
        person_id: From 1; the ids of train come first, then those of val, then those of test.
        file_path: Relative to ``imgs``.
        captions: Its captions.
        tokens: Words of each caption.
    """

    split: str
    person_id: int
    file_path: str
    captions: tuple[str, ...]
    tokens: tuple[tuple[str, ...], ...]


def image_path(source: str, person_id: int, number: int, camera: int) -> str:
    """Return where an image lies under ``imgs``, named in the manner of its source folder.

    Args:
        source: Source folder.
        person_id: From 1.
        number: Which image of the person, from 0.
        camera: Camera within the source, from 0.

    Returns:
        A relative path with forward slashes; no two images have the same.

    Example:
        >>> image_path("CUHK01", 12, 0, 1)
        'CUHK01/0012001.jpg'
        >>> image_path("Market", 12, 0, 1)
        'Market/0012_c2s1_000012_00.jpg'
    """
    if source.startswith("cam_"):
        name = f"{person_id:03d}_{number * 45}"
    elif source == "CUHK01":
        name = f"{person_id:04d}{number + 1:03d}"
    elif source == "CUHK03":
        name = f"{person_id:04d}_{camera + 1}_{number + 1:02d}"
    elif source == "Market":
        name = f"{person_id:04d}_c{camera + 1}s1_{person_id:06d}_{number:02d}"
    else:
        name = f"p{person_id}_s{person_id * 8 + number}"
    return f"{source}/{name}.jpg"


def write_index(folder: Path, entries: Iterable[Entry]) -> None:
    """Write ``reid_raw.json`` with the fields of the original.

    Args:
        folder: The folder that also holds ``imgs``.
        entries: All entries in the order of the file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     words = ("a", "man")
        ...     write_index(Path(name), [Entry("train", 1, "a/1.jpg", ("A man.",), (words,))])
        ...     json.loads((Path(name) / "reid_raw.json").read_text())[0]["processed_tokens"]
        [['a', 'man']]
    """
    rows = [
        json.dumps(
            {
                "split": entry.split,
                "captions": entry.captions,
                "file_path": entry.file_path,
                "processed_tokens": entry.tokens,
                "id": entry.person_id,
            }
        )
        for entry in entries
    ]
    (folder / INDEX_NAME).write_text("[" + ",\n".join(rows) + "]\n", encoding="utf-8")


def split_counts(entries: Sequence[Entry]) -> dict[str, dict[str, int]]:
    """Return identities, images and captions of every split.

    Example:
        >>> split_counts([Entry("train", 1, "a/1.jpg", ("A man.", "He."), ())])["train"]
        {'person_ids': 1, 'images': 1, 'captions': 2}
    """
    counts = {}
    for split in ("train", "val", "test"):
        own = [entry for entry in entries if entry.split == split]
        counts[split] = {
            "person_ids": len({entry.person_id for entry in own}),
            "images": len(own),
            "captions": sum(len(entry.captions) for entry in own),
        }
    return counts
