"""The pictures that are indexed, and what a table says of them, by columns of one kind each."""

from __future__ import annotations

import hashlib
import keyword
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TypeAlias

from crosswalk.data.readers.annotations import raise_problems
from crosswalk.data.readers.camera_names import DISTRACTOR, JUNK, parse_name
from crosswalk.gallery.description import KEPT
from crosswalk.gallery.store import Kind
from crosswalk.gallery.where import ALIASES, EPOCH, microseconds
from crosswalk.image_files import check_plain_file, open_image
from crosswalk.use.inputs import IMAGE_COLUMNS, Listed

OF_KIND: dict[str, Kind] = {"own_id": "text", "time": "time"}
"""Columns that are of one kind whatever their values look like."""

LEFT_OUT = (*IMAGE_COLUMNS, "caption")
"""Columns of tables that say nothing to search for here."""

NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")
LARGEST_WHOLE = 2**53

_TAKEN_AT = (0x9003, 0x0132)  # EXIF: when it was taken, when the file was changed
_EXIF_IFD = 0x8769


Value: TypeAlias = float | int | str
"""Of a column, by its kind."""


class Picture(NamedTuple):
    """A picture to index.

    Attributes:
        path: The file, absolute.
        values: What the table says of it, by column; None for an empty cell.
        line: Of the table; 0 without one.
    """

    path: str
    values: dict[str, Value | None]
    line: int = 0


def pictures_of(
    listed: Sequence[Listed], place: Path, columns: Mapping[str, Kind]
) -> tuple[list[Picture], dict[str, Kind]]:
    """Return every picture once, and the columns of the gallery with them in it.

    Files of a folder whose names all say person and camera, as in Market-1501
    (`crosswalk.data.readers.camera_names`), have the columns ``person_id`` and ``camera``.
    A column of a table is of numbers, or of times, if all its cells are; else it is of texts. One
    that the gallery has already keeps its kind.

    Args:
        listed: Rows of a table, or the files of a folder.
        place: The table, for messages.
        columns: Those of the gallery so far.

    Raises:
        ValueError: If cells do not fit, a picture is listed with two values, or columns have
            names that cannot be told apart.
    """
    problems: list[str] = []
    if listed and not listed[0].line:
        listed = _named(listed)
    names = _names(listed[0].row, problems) if listed else {}
    used = {each for each in names if any(row.row.get(each) for row in listed)}
    kinds = {
        name: columns.get(name) or _kind(name, cells, listed)
        for cells, name in names.items()
        if cells in used or name in columns
    }
    pictures: dict[str, Picture] = {}
    for each in listed:
        values: dict[str, Value | None] = {}
        for cells, name in names.items():
            if name not in kinds:  # empty as yet
                continue
            cell = each.row.get(cells, "")
            try:
                values[name] = _value(cell, kinds[name]) if cell else None
            except (ValueError, OverflowError):
                holds = {"number": "numbers", "time": "times such as 2026-11-01 18:30"}[kinds[name]]
                problems.append(
                    f"line {each.line}: `{cells}` is {cell!r}, and it holds {holds} (a column of "
                    "another kind needs another name, or a new gallery)"
                )
        path = os.path.abspath(each.image)
        before = pictures.setdefault(path, Picture(path, values, each.line))
        if before.values != values:
            problems.append(
                f"line {each.line}: {each.image} is listed with other values in line {before.line}"
            )
    raise_problems(place, problems, "Correct the file; nothing was indexed.")
    return list(pictures.values()), {**KEPT, **columns, **kinds}


def id_of(path: str) -> int:
    """Return the id of a picture in every gallery: 64 bits of its path.

    Example:
        >>> id_of("/photos/1.jpg") == id_of("/photos/1.jpg") != id_of("/photos/2.jpg")
        True
    """
    return int.from_bytes(hashlib.sha256(os.fsencode(path)).digest()[:8], "little") or 1


class Content(NamedTuple):
    """What a file holds.

    Attributes:
        sha256: Of its bytes, hexadecimal.
        time: When its EXIF data say that it was taken, as `microseconds`; None if they do not.
    """

    sha256: str
    time: int | None


def content_of(path: str) -> Content:
    """Return what a file holds.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it is no file that can be read, or its name is not UTF-8.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{path!r} has a name that is not UTF-8: rename it") from None
    check_plain_file(Path(path))
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Content(digest, _taken_at(Path(path)))


def _taken_at(path: Path) -> int | None:
    # whatever is wrong with the picture is said when it is embedded
    with suppress(Exception), open_image(path) as image:
        exif = image.getexif()
        for told in (exif.get_ifd(_EXIF_IFD).get(_TAKEN_AT[0]), exif.get(_TAKEN_AT[1])):
            with suppress(ValueError, TypeError):
                taken = datetime.strptime(str(told).strip("\0 "), "%Y:%m:%d %H:%M:%S")
                return microseconds(taken.isoformat()) if taken > EPOCH else None
    return None


def _named(listed: Sequence[Listed]) -> Sequence[Listed]:
    """Return files with what their names say of them, if all names do."""
    try:
        said = [parse_name(each.image.name) for each in listed]
    except ValueError:
        return listed
    nobody = (JUNK, DISTRACTOR)  # who is on them is not known: not one person
    return [
        each._replace(
            row={
                "person_id": "" if name.person_id in nobody else str(name.person_id),
                "camera": str(name.camera_id),
            }
        )
        for each, name in zip(listed, said, strict=True)
    ]


def _names(row: Iterable[str], problems: list[str]) -> dict[str, str]:
    """Return the name in the gallery of every column of a table."""
    names: dict[str, str] = {}
    for column in row:
        if column in LEFT_OUT:
            continue
        known = ALIASES.get(column.lower(), column.lower())
        own = known in (*ALIASES.values(), *KEPT)
        name = re.sub(r"\W+", "_", known if own else column).strip("_")
        name = f"_{name}" if not name or name[0].isdigit() else name
        name = f"{name}_" if keyword.iskeyword(name) else name  # which no filter could name
        if name in (*KEPT, *names.values()):
            problems.append(
                f"line 1: the column `{column}` is called {name} here, as another is; rename it, "
                "or leave it out"
            )
        names[column] = name
    return names


def _kind(name: str, column: str, listed: Sequence[Listed]) -> Kind:
    if name in OF_KIND:
        return OF_KIND[name]
    cells = [cell for each in listed if (cell := each.row.get(column, ""))]
    for kind in ("number", "time"):
        try:
            for cell in cells:
                _value(cell, kind)
        except (ValueError, OverflowError):
            continue
        return kind
    return "text"


def _value(cell: str, kind: Kind) -> Value:
    if kind == "text":
        return cell
    if kind == "time":
        return microseconds(cell)
    number = float(cell)
    if not NUMBER.fullmatch(cell) or abs(number) >= LARGEST_WHOLE:
        raise ValueError(cell)  # 007 and 1_21 are names, and longer numbers would become others
    return number
