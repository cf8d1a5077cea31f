"""Which patches and words make the token selection embedding, drawn onto images and captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from crosswalk.diagnostics.token_selection_record import (
    SelectedCaption,
    SelectedImage,
    TokenSelectionRecord,
    read_token_selection,
    token_selection_file,
)
from crosswalk.pages import Section, picture_tag, render
from crosswalk.run.run_folder import RunFolder

TAGS = ("best", "last", "start")
"""The checkpoint that is shown is the first of these that was tested."""
DIMMED = 0.25
PICTURE = (96, 192)
"""Width and height that no picture exceeds; small ones are enlarged by a whole number."""


def section(run_folder: RunFolder, history: Sequence[Mapping[str, Any]]) -> Section | None:
    """Return the section of a run whose encoder selects tokens, None for others.

    Example:
        >>> from pathlib import Path
        >>> section(RunFolder(Path("runs/toy")), []) is None
        True
    """
    for tag in TAGS:
        path = token_selection_file(run_folder.path, tag)
        if path.exists():
            record = read_token_selection(path)
            body = render(
                "token_selection.html.j2",
                tag=tag,
                examples=[_example(record, caption) for caption in record.captions],
            )
            return Section("token-selection", "Selected tokens", body)
    return None


def dimmed(image: SelectedImage, grid: tuple[int, int]) -> Image.Image:
    """Return the picture with the patches that were not selected darkened.

    Args:
        image: The picture and its selected patches, numbered by rows.
        grid: Rows and columns of patches.

    Example:
        >>> white = Image.new("RGB", (2, 2), (200, 200, 200))
        >>> picture = dimmed(SelectedImage(white, (3,)), (2, 2))
        >>> picture.getpixel((0, 0)), picture.getpixel((1, 1))
        ((50, 50, 50), (200, 200, 200))
    """
    rows, columns = grid
    bright = np.full(rows * columns, DIMMED)
    bright[list(image.selected)] = 1
    pixels = np.asarray(image.picture, dtype=np.float64)
    height, width = pixels.shape[:2]
    row = np.arange(height) * rows // height
    column = np.arange(width) * columns // width
    shade = bright.reshape(grid)[row[:, None], column[None, :]]
    return Image.fromarray((pixels * shade[:, :, None]).round().astype(np.uint8))


def marked(caption: SelectedCaption) -> Markup:
    """Return the caption with its selected pieces marked; neighbours share a mark.

    Example:
        >>> pieces = ("a ", "red ", "coat", "ing ")
        >>> print(marked(SelectedCaption(0, "best", pieces, (3, 2), 0.5, (), ())))
        a red <mark>coating</mark>
    """
    text, open_mark = Markup(""), False
    for place, piece in enumerate(caption.pieces):
        inside = place in caption.selected
        if inside != open_mark:
            text += Markup("<mark>" if inside else "</mark>")
            open_mark = inside
        text += piece
    if open_mark:
        text += Markup("</mark>")
    return Markup(str(text).replace(" </mark>", "</mark> ").strip())


def _enlarged(image: SelectedImage) -> SelectedImage:
    width, height = image.picture.size
    factor = max(1, min(PICTURE[0] // width, PICTURE[1] // height))
    size = (factor * width, factor * height)
    return image._replace(picture=image.picture.resize(size, Image.Resampling.NEAREST))


def _example(record: TokenSelectionRecord, caption: SelectedCaption) -> dict[str, Any]:
    pictures = []
    for index, is_match in zip(caption.found, caption.is_match, strict=True):
        image = _enlarged(record.images[index])
        frame = "right" if is_match else "wrong"
        pictures.append(
            (
                picture_tag(
                    image.picture, alt=f"image {index}, {frame}", frame=frame, largest=PICTURE
                ),
                picture_tag(
                    dimmed(image, record.grid),
                    alt=f"selected patches of image {index}",
                    frame=frame,
                    largest=PICTURE,
                ),
            )
        )
    return {
        "title": f"{caption.choice}: query {caption.sample_index}",
        "precision": f"AP {100 * caption.average_precision:.1f} %",
        "text": marked(caption),
        "selected": len(caption.selected),
        "pieces": len(caption.pieces),
        "pictures": pictures,
    }
