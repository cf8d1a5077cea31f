"""The part of a model card that says how its exported graphs are called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crosswalk.config.model_file import CARD, WEIGHTS
from crosswalk.files import read_text
from crosswalk.use.export_check import FORMATS, Format

if TYPE_CHECKING:
    from crosswalk.use.graphs import Graph

TITLES: dict[Format, str] = {"onnx": "Run it by onnxruntime", "torch": "Run it by torch.export"}
"""Of the section of each format."""

OF_WEIGHTS = "Use it"
"""Title of the section that says how crosswalk loads the folder."""

MEASURED = "\n## What was measured\n\n"
ROUNDED = "Of the model before `model.safetensors` was rounded to float16.\n\n"
"""Begins that section where it is so."""

STATE = re.compile(r"\n\nFingerprint of the model: `(\w+)`\.\n")

BEFORE = "\n## Intended use\n"
"""What the sections stand before."""


def merged(
    card: str, target: Path, form: Format, text: str = "", *, fingerprint: str, half: bool = False
) -> str:
    """Return a card that says how all files of a folder are called, and of which model they are.

    Args:
        card: Of the model.
        target: The folder, before this export.
        form: The format that is written.
        text: How its graphs are called.
        fingerprint: Of the model, before rounding.
        half: Whether weights are rounded to float16.

    Raises:
        ValueError: If files in the folder are another model's, or those of another format of
            another state of its weights.
    """
    names = {path.name for path in target.iterdir()} if target.is_dir() else set()
    kept = {
        other: sorted(name for name in names if name.endswith(suffix))
        for other, suffix in FORMATS.items()
        if other != form
    }
    old = read_text(target / CARD) if CARD in names else ""
    others = [name for found in kept.values() for name in found]
    same = sorted(name for name in names if name.endswith(FORMATS[form]))
    if old and (others or same) and _heading(old) != _heading(card):
        raise ValueError(
            f"--out {target} holds {[*others, *same][0]} of another model, "
            f"{_heading(old)}. Name a new folder."
        )
    state = STATE.search(old)
    if others and state is not None and state[1] != fingerprint:
        raise ValueError(
            f"--out {target} holds {others[0]} of other weights of {_heading(old)}: they have the "
            f"fingerprint {state[1]}, and the model now has {fingerprint}. Name a new folder, or "
            "delete that one and export every format again."
        )
    card = STATE.sub("\n", card)
    title = f"# {_heading(card)}\n"
    card = card.replace(title, f"{title}\nFingerprint of the model: `{fingerprint}`.\n", 1)
    if half if form == "safetensors" else WEIGHTS in names and ROUNDED in old:
        card = card.replace(MEASURED, MEASURED + ROUNDED * (ROUNDED not in card))
    for other, title in TITLES.items():
        own = text if other == form else _section(old, title) if kept[other] else None
        card = _without(card, title)
        if own:
            place = card.find(BEFORE)
            place = len(card) if place < 0 else place
            card = f"{card[:place]}\n## {title}\n\n{own}\n{card[place:]}"
    return card if form == "safetensors" or WEIGHTS in names else _without(card, OF_WEIGHTS)


def _heading(card: str) -> str:
    found = re.search(r"^# (.+)$", card, re.MULTILINE)
    return "" if found is None else found[1]


def _section(card: str, title: str) -> str | None:
    found = re.search(rf"\n## {re.escape(title)}\n\n(.*?)\n(?=\n## |\Z)", card, re.DOTALL)
    return None if found is None else found[1]


def _without(card: str, title: str) -> str:
    return re.sub(rf"\n## {re.escape(title)}\n.*?(?=\n## |\Z)", "", card, flags=re.DOTALL)


def calling(form: str, graphs: Sequence[Graph], said: Sequence[str], *, half: bool) -> str:
    """Return how graphs are called, and what was measured of them.

    Args:
        form: ``onnx`` or ``torch``.
        graphs: What was exported.
        said: Sentences about tokens and differences.
        half: Whether weights are stored as float16.
    """
    images, *texts = graphs
    steps = images.model.preprocessing
    height, width = steps.image_size
    if images.takes == "pixels":
        takes = (
            f"`pixels`, uint8 [N, {height}, {width}, 3]: RGB from 0 to 255. They are normalised "
            "inside, and not to be normalised before."
        )
    else:
        values = (
            f"RGB / 255, less {list(steps.mean)}, by {list(steps.std)}"
            if steps.pixel_format == "rgb01"
            else f"BGR from 0 to 255, less {list(steps.mean)}, by {list(steps.std)}"
        )
        takes = f"`normalized`, float32 [N, 3, {height}, {width}]: {values}."
    suffix = "onnx" if form == "onnx" else "pt2"
    lines = [
        f"- `image.{suffix}` takes {takes} Images are turned upright and put on white, "
        f"as below, and resized to {height}x{width} by Pillow's {steps.interpolation} filter: that "
        "is not in the file. Those of 16 bits have to be scaled to 8 before."
    ]
    if texts:
        length = texts[0].example.shape[1]
        lines.append(f"- `text.{suffix}` takes `tokens`, int64 [N, {length}].")
    kept = "; weights are stored as float16, computed is in float32" if half else ""
    lines.append(
        f"- Each gives `embeddings`, float32 [N, D] of unit length, for any N{kept}. The product "
        "of two is their score."
    )
    by = _by_onnxruntime(images) if form == "onnx" else _by_torch(images)
    listed = "\n".join(lines)
    measured = "\n\n".join(said)
    return f"{listed}\n\n```python\n{by}\n```\n\n{measured}"


def _opened(images: Graph) -> list[str]:
    steps = images.model.preprocessing
    height, width = steps.image_size
    resampling = steps.interpolation.upper()
    lines = [
        'image = ImageOps.exif_transpose(Image.open("1.jpg")).convert("RGBA")',
        'white = Image.new("RGBA", image.size, "white")',
        'image = Image.alpha_composite(white, image).convert("RGB")',
        f"image = image.resize(({width}, {height}), Image.Resampling.{resampling})",
        "pixels = np.asarray(image)[None]",
    ]
    if images.takes == "pixels":
        return lines
    channels = "pixels[..., ::-1]" if steps.pixel_format == "bgr255" else "pixels / 255"
    return [
        *lines,
        f"normalized = ({channels} - {list(steps.mean)}) / {list(steps.std)}",
        "normalized = normalized.transpose(0, 3, 1, 2).astype(np.float32)",
    ]


def _by_onnxruntime(images: Graph) -> str:
    return "\n".join(
        [
            "import numpy as np",
            "import onnxruntime",
            "from PIL import Image, ImageOps",
            "",
            'session = onnxruntime.InferenceSession("image.onnx")',
            *_opened(images),
            f'(images,) = session.run(["embeddings"], {{"{images.takes}": {images.takes}}})',
        ]
    )


def _by_torch(images: Graph) -> str:
    given = f"torch.tensor({images.takes})"
    return "\n".join(
        [
            "import numpy as np",
            "import torch",
            "from PIL import Image, ImageOps",
            "",
            'program = torch.export.load("image.pt2").module()  # on the CPU',
            *_opened(images),
            f"images = program({given})",
        ]
    )
