"""Which patches and words a model has selected, of a few queries and what was found for them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crosswalk.files import read_arrays, write_arrays


class SelectedCaption(NamedTuple):
    """A query and the words selected of it.

    Attributes:
        sample_index: Of the query.
        choice: Why it is shown: "drawn", "best", "median" or "worst".
        pieces: The text of every token id between start and end, spaces included.
        selected: Those that are selected, best first.
        average_precision: In [0, 1].
        found: Sample indices of the images found first.
        is_match: Which of them show the person.
    """

    sample_index: int
    choice: str
    pieces: tuple[str, ...]
    selected: tuple[int, ...]
    average_precision: float
    found: tuple[int, ...]
    is_match: tuple[bool, ...]


class SelectedImage(NamedTuple):
    """An image and the patches selected of it.

    Attributes:
        picture: The whole image, resized as the model sees it, then made small.
        selected: Patches, numbered by rows, best first.
    """

    picture: Image.Image
    selected: tuple[int, ...]


class TokenSelectionRecord(NamedTuple):
    """The selected tokens of some queries and of what was found for them.

    Attributes:
        grid: Rows and columns of patches.
        captions: The queries.
        images: What was found, by sample index.
    """

    grid: tuple[int, int]
    captions: tuple[SelectedCaption, ...]
    images: dict[int, SelectedImage]


def token_selection_file(folder: Path, tag: str) -> Path:
    """Return the file of the checkpoint called ``tag``.

    Example:
        >>> token_selection_file(Path("runs/rde-toy"), "best").as_posix()
        'runs/rde-toy/diagnostics/token_selection-best.npz'
    """
    return folder / "diagnostics" / f"token_selection-{tag}.npz"


def write_token_selection(path: Path, record: TokenSelectionRecord) -> None:
    """Write a record whole or not at all; pictures as JPEG."""
    captions, images = record.captions, record.images
    arrays: dict[str, NDArray[Any]] = {
        "grid": np.array(record.grid),
        "caption_sample_index": np.array([each.sample_index for each in captions]),
        "caption_choice": np.array([each.choice for each in captions]),
        "caption_average_precision": np.array([each.average_precision for each in captions]),
        "caption_pieces": _rectangle([each.pieces for each in captions], ""),
        "caption_selected": _rectangle([each.selected for each in captions], -1),
        "caption_found": _rectangle([each.found for each in captions], -1),
        "caption_is_match": _rectangle([each.is_match for each in captions], False),
        "image_sample_index": np.array(list(images), dtype=np.int64),
        "image_selected": _rectangle([each.selected for each in images.values()], -1),
    }
    for index, image in images.items():
        arrays[f"picture_{index}"] = _jpeg(image.picture)
    write_arrays(path, arrays)


def read_token_selection(path: Path) -> TokenSelectionRecord:
    """Return what `write_token_selection` wrote.

    Raises:
        FileNotFoundError: If there is no such file.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "token_selection-best.npz"
        >>> caption = SelectedCaption(7, "best", ("a ", "coat "), (1,), 0.5, (3,), (True,))
        >>> image = SelectedImage(Image.new("RGB", (4, 8)), (1, 0))
        >>> write_token_selection(path, TokenSelectionRecord((2, 1), (caption,), {3: image}))
        >>> record = read_token_selection(path)
        >>> record.captions[0] == caption, record.images[3].selected
        (True, (1, 0))
    """
    arrays = read_arrays(path)
    captions = []
    for row, index in enumerate(arrays["caption_sample_index"].tolist()):
        found = present(arrays["caption_found"][row])
        captions.append(
            SelectedCaption(
                sample_index=index,
                choice=str(arrays["caption_choice"][row]),
                pieces=tuple(each for each in arrays["caption_pieces"][row].tolist() if each),
                selected=present(arrays["caption_selected"][row]),
                average_precision=float(arrays["caption_average_precision"][row]),
                found=found,
                is_match=tuple(arrays["caption_is_match"][row].tolist()[: len(found)]),
            )
        )
    images = {}
    for row, index in enumerate(arrays["image_sample_index"].tolist()):
        with Image.open(io.BytesIO(arrays[f"picture_{index}"].tobytes())) as file:
            picture = file.convert("RGB")
        images[index] = SelectedImage(picture, tuple(arrays["image_selected"][row].tolist()))
    rows, columns = arrays["grid"].tolist()
    return TokenSelectionRecord((rows, columns), tuple(captions), images)


def present(row: NDArray[np.int64]) -> tuple[int, ...]:
    """Return the entries of a row that are not -1, which fills up.

    Example:
        >>> present(np.array([3, 0, -1]))
        (3, 0)
    """
    return tuple(each for each in row.tolist() if each >= 0)


def _rectangle(rows: Sequence[Sequence[Any]], fill: object) -> NDArray[Any]:
    """Return the rows as one array, shorter ones filled up."""
    longest = max(map(len, rows), default=0)
    return np.array([[*row, *[fill] * (longest - len(row))] for row in rows])


def _jpeg(picture: Image.Image) -> NDArray[np.uint8]:
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=85)
    return np.frombuffer(content.getvalue(), dtype=np.uint8)
