"""The images that a command is given: those of a folder, or those that a table lists."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import NamedTuple

from crosswalk.data.readers.annotations import raise_problems
from crosswalk.data.readers.camera_names import IMAGE_SUFFIXES
from crosswalk.data.readers.records import within
from crosswalk.data.readers.tables import Row, csv_rows, read_table_text, text_complaint
from crosswalk.files import path_meant

IMAGE_COLUMNS = ("path", "image")
EXAMPLE = "A CSV has a column `path` (or `image`), and `caption` if there are sentences."


class Inputs(NamedTuple):
    """What is embedded.

    Attributes:
        images: Every file once.
        captions: Every sentence of a table, in its order.
        of_image: The place among ``images`` of the image of each sentence.
        lines: The line of the table of each sentence.
    """

    images: list[Path]
    captions: list[str]
    of_image: list[int]
    lines: list[int]


class Listed(NamedTuple):
    """An image and what a table says of it; of a folder nothing.

    Attributes:
        line: Of the table; 0 without one.
        image: The file.
        row: Its cells by column.
    """

    line: int
    image: Path
    row: Row


def inputs_of(place: Path, *, allow_outside: bool = False) -> Inputs:
    """Return the images of a folder, and of those below it, or what a table lists.

    Args:
        place: A folder, or a CSV whose paths start from its own folder.
        allow_outside: Whether the paths of a CSV may lead out of its folder.

    Raises:
        FileNotFoundError: If there is neither.
        ValueError: If there are no images, or rows of the table are wrong; files that are missing
            are found when they are read.

    Example:
        >>> inputs_of(Path("nowhere"))
        Traceback (most recent call last):
            ...
        FileNotFoundError: nowhere does not exist: name a folder of images or a .csv. A CSV has a \
        column `path` (or `image`), and `caption` if there are sentences.
    """
    listed = listed_images(place, allow_outside=allow_outside)
    places: dict[Path, int] = {}
    captions, of_image, lines = list[str](), list[int](), list[int]()
    for line, image, row in listed:
        of = places.setdefault(image, len(places))
        if row.get("caption"):
            captions.append(row["caption"])
            of_image.append(of)
            lines.append(line)
    return Inputs(list(places), captions, of_image, lines)


def listed_images(
    place: Path, *, allow_outside: bool = False, nothing: str = "nothing was embedded"
) -> list[Listed]:
    """Return the images of a folder, and of those below it, or the rows of a table.

    Args:
        place: As for `inputs_of`.
        allow_outside: As for `inputs_of`.
        nothing: What has not happened yet, for messages.

    Raises:
        FileNotFoundError: As `inputs_of`.
        ValueError: As `inputs_of`.
    """
    if not place.exists():
        raise FileNotFoundError(
            f"{place} does not exist: name a folder of images or a .csv.{path_meant(place)} "
            f"{EXAMPLE}"
        )
    if place.is_dir():
        images = sorted(path for path in place.rglob("*") if _is_image(path, place))
        if not images:
            raise ValueError(
                f"{place} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}), nor do the "
                "folders in it."
            )
        return [Listed(0, image, {}) for image in images]
    if place.suffix.lower() != ".csv":
        raise ValueError(f"{place} is neither a folder of images nor a .csv. {EXAMPLE}")
    return _rows_of_table(place, allow_outside, nothing)


def _is_image(path: Path, above: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(above).parts)
    return not hidden and path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()


def _rows_of_table(path: Path, allow_outside: bool, nothing: str) -> list[Listed]:
    text, problems, inside = read_table_text(path), list[str](), within(path.parent)
    header = next(csv.reader(io.StringIO(text, newline="")), [])
    names = [name.strip() for name in header]
    column = next((name for name in IMAGE_COLUMNS if name in names), "path")
    listed = []
    rows: list[tuple[int, Row]] = list(
        csv_rows(path, text, problems, required=(column,), example=EXAMPLE)
    )
    for line, row in rows:
        if not row.get(column):
            problems.append(f"line {line}: `{column}` is empty")
            continue
        if complaint := text_complaint(row[column], is_name=True):
            problems.append(f"line {line}: `{column}` {complaint}")
            continue
        image = path.parent / row[column]
        if not (allow_outside or inside(image)):
            problems.append(
                f"line {line}: {row[column]} lies outside the folder of the file; add "
                "--allow-outside if it should be read"
            )
            continue
        listed.append(Listed(line, image, row))
    raise_problems(path, problems, f"Correct the file; {nothing}.")
    if not listed:
        raise ValueError(f"{path} lists no images. {EXAMPLE}")
    return listed
