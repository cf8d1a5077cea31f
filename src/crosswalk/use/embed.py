"""`crosswalk embed`: the embeddings of a folder's images, or of a table's, in one file."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from crosswalk.data.readers.annotations import raise_problems
from crosswalk.data.readers.camera_names import IMAGE_SUFFIXES
from crosswalk.data.readers.records import within
from crosswalk.data.readers.tables import Row, csv_rows, read_table_text, text_complaint
from crosswalk.files import check_writable, refuse_inside, write_arrays
from crosswalk.words import counted

if TYPE_CHECKING:
    from crosswalk.use.model import Model

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
    if not place.exists():
        raise FileNotFoundError(
            f"{place} does not exist: name a folder of images or a .csv. {EXAMPLE}"
        )
    if place.is_dir():
        images = sorted(path for path in place.rglob("*") if _is_image(path, place))
        if not images:
            raise ValueError(
                f"{place} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}), nor do the "
                "folders in it."
            )
        return Inputs(images, [], [], [])
    if place.suffix.lower() != ".csv":
        raise ValueError(f"{place} is neither a folder of images nor a .csv. {EXAMPLE}")
    return _of_table(place, allow_outside)


def _is_image(path: Path, above: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(above).parts)
    return not hidden and path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()


def _of_table(path: Path, allow_outside: bool) -> Inputs:
    text, problems, inside = read_table_text(path), list[str](), within(path.parent)
    header = next(csv.reader(io.StringIO(text, newline="")), [])
    names = [name.strip() for name in header]
    column = next((name for name in IMAGE_COLUMNS if name in names), "path")
    places: dict[Path, int] = {}
    captions, of_image, lines = list[str](), list[int](), list[int]()
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
        place = places.setdefault(image, len(places))
        if row.get("caption"):
            captions.append(row["caption"])
            of_image.append(place)
            lines.append(line)
    raise_problems(path, problems, "Correct the file; nothing was embedded.")
    if not places:
        raise ValueError(f"{path} lists no images. {EXAMPLE}")
    return Inputs(list(places), captions, of_image, lines)


def check_target(target: Path, place: Path) -> None:
    """Refuse to write anything but an .npz, or beside the images that are read.

    Raises:
        ValueError: If ``target`` is refused.
        FileNotFoundError: If its folder does not exist.
    """
    if target.suffix != ".npz":
        raise ValueError(f"--out {target} should end in .npz, NumPy's format for arrays by name.")
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"--out {target}: there is no folder {target.parent}. Make it.")
    check_writable(target, "--out")
    if place.is_dir():
        refuse_inside(target, place, (), "--out", given=place)


def embed_files(model: Model, inputs: Inputs, target: Path, *, batch_size: int, skip: bool) -> int:
    """Embed, write ``target``, say so, and return the number of images that could not be read.

    The file has ``path`` and ``embedding``, a row per image; where there are sentences
    ``caption``, ``caption_embedding`` and ``caption_path``; the name and the fingerprint of the
    model; and ``broken``, the files that are left out.

    Args:
        model: Embeds.
        inputs: From `inputs_of`.
        target: The .npz.
        batch_size: Images computed at a time.
        skip: Whether images that cannot be read are left out.

    Raises:
        ValueError: If none can be read, or one cannot and ``skip`` is false.
    """
    import numpy as np

    from crosswalk.use.model import SentenceError

    captions: Any = None
    if inputs.captions:  # first: of a sentence without words it is heard before hours of images
        try:
            captions = model.embed_texts(inputs.captions, progress=True).numpy()
        except SentenceError as error:
            line = inputs.lines[error.place]
            raise ValueError(f"line {line}: {error.caption!r} has no words. Write some.") from error
    broken: dict[int, str] = {}
    rows = model.embed_images(
        inputs.images,
        batch_size=batch_size,
        on_error="skip" if skip else "raise",
        broken=broken,
        progress=True,
    )
    paths = [str(path) for path in inputs.images]
    if len(broken) == len(paths):
        raise ValueError(f"no image of {len(paths):,} can be read: {broken[0]}.")
    arrays: Mapping[str, Any] = {
        "path": np.array([path for place, path in enumerate(paths) if place not in broken]),
        "embedding": rows.numpy(),
        "broken": np.array([paths[place] for place in broken], dtype=np.str_),
        "model": np.array(model.name),
        "fingerprint": np.array(model.fingerprint),
    }
    if inputs.captions:
        arrays = {
            **arrays,
            "caption": np.array(inputs.captions),
            "caption_embedding": captions,
            "caption_path": np.array([paths[place] for place in inputs.of_image]),
        }
    write_arrays(target, arrays)
    sentences = f" and {counted(len(inputs.captions), 'sentence')}" if inputs.captions else ""
    images = counted(len(rows), "image")
    print(f"In {target}: {images}{sentences}, {rows.shape[1]} numbers each.")
    for problem in broken.values():
        print(f"left out: {problem}")
    return len(broken)
