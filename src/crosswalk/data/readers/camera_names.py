"""File names that say person and camera: the grammar of Market-1501, and of sets named like it.

``<person id>_c<camera>`` and then anything that does not start with a digit, e.g.
``0002_c1s1_000451_03.jpg`` (Market-1501), ``0005_c2_f0046985.jpg`` (DukeMTMC-reID) or
``0000_c14_0030.jpg`` (MSMT17 converted to this style). Cameras have one digit or more and count
from 1. Person -1 is *junk*, a detection that is neither right nor wrong; on Market-1501 person 0
is a *distractor*, background that stays in the gallery as a wrong answer.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from crosswalk.data.readers.annotations import raise_problems
from crosswalk.data.readers.records import Record
from crosswalk.data.readers.tables import MAX_ID, TOO_LARGE
from crosswalk.words import counted

JUNK = -1
DISTRACTOR = 0

SUFFIX = ".jpg"

# Endings of files that are images; those without SUFFIX are left out, but not without a word.
IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

GRAMMAR = "<person id>_c<camera>..., e.g. 0002_c1s1_000451_03.jpg (person -1 is junk)"

_STEM = re.compile(r"(-1|\d+)_c(\d+)(?:\D.*)?", re.ASCII | re.DOTALL)


class CameraName(NamedTuple):
    """What a file name says: the person, and the camera as numbered there."""

    person_id: int
    camera_id: int


class Listing(NamedTuple):
    """The images of one folder.

    Attributes:
        records: Images with a person, sorted by name.
        junk: Number of junk images, which are not among the records.
        others: Names of images that do not end in ``.jpg``; they are left out.
    """

    records: tuple[Record, ...]
    junk: int
    others: tuple[str, ...]


def parse_name(name: str) -> CameraName:
    """Return person and camera of an image, from its base name only.

    The folders above are not looked at, since they may be called ``1_c2`` too.

    Args:
        name: File name, with or without folders before it.

    Raises:
        ValueError: If the base name does not follow the grammar.

    Example:
        >>> parse_name("1_c2/0000_c14_0030.jpg")
        CameraName(person_id=0, camera_id=14)
        >>> parse_name("-1_c3s2_012345_01.jpg").person_id == JUNK
        True
    """
    found = _STEM.fullmatch(Path(name).stem)
    if found is None:
        raise ValueError(
            f"The file name {Path(name).name!r} does not follow {GRAMMAR}. Rename the file, or "
            "move it out of the data set."
        )
    return CameraName(int(found[1]), int(found[2]))


def list_images(folder: Path) -> Listing:
    """Return the ``.jpg`` images of a folder, sorted by name, without junk. Opens none.

    ``.JPG`` is one too. Other files (``Thumbs.db``), hidden files and sub-folders are not looked
    at. Sorted means by the characters of the whole name, so ``0000_c14_0030.jpg`` is before
    ``0000_c1_0030.jpg``.

    Raises:
        FileNotFoundError: If there is no such image.
        ValueError: If names do not follow the grammar; lists the first ones.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for each in ("0007_c1s1_1.jpg", "0002_c6s1_1.jpg", "-1_c1s1_1.jpg", "Thumbs.db"):
        ...         (Path(name) / each).touch()
        ...     records, junk, others = list_images(Path(name))
        >>> [record.image_path.name for record in records], junk, others
        (['0002_c6s1_1.jpg', '0007_c1s1_1.jpg'], 1, ())
    """
    names, others = _image_names(folder)
    if not names:
        held = f"; it holds {counted(len(others), 'image')} of other endings" if others else ""
        raise FileNotFoundError(
            f"{folder} holds no {SUFFIX} image{held}. Unpack the images of the data set into it."
        )
    records, problems, junk = [], [], 0
    for name in names:
        try:
            person_id, camera_id = parse_name(name)
        except ValueError:
            problems.append(f"{repr(name)[1:-1]}: the name does not follow the grammar")
            continue
        if max(person_id, camera_id) > MAX_ID:
            problems.append(f"{name}: {TOO_LARGE}")
        elif person_id == JUNK:
            junk += 1
        else:
            records.append(Record(folder / name, person_id, camera_id, origin=folder.name))
    raise_problems(
        folder,
        problems,
        f"Names are {GRAMMAR}. Rename these files, or move them out of the data set.",
    )
    return Listing(tuple(records), junk, tuple(others))


def _image_names(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names ending in SUFFIX and those of other images, sorted, without hidden ones."""
    names, others = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            # not is_file: a link to nowhere is an image that is missing, not one that never was
            if entry.name.startswith(".") or entry.is_dir():
                continue
            if entry.name.lower().endswith(SUFFIX):
                names.append(entry.name)
            elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                others.append(entry.name)
    return sorted(names), sorted(others)
