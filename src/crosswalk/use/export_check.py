"""What `crosswalk export` refuses before it imports torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from crosswalk.config.model_file import CARD, EXPORTED, THRESHOLDS, WEIGHTS

Format = Literal["onnx", "torch", "safetensors"]

FORMATS: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}
"""How the names of the files of a format end."""

GRAPHS = {
    *("image.onnx", "text.onnx", "image.int8.onnx", "text.int8.onnx", "image.pt2", "text.pt2"),
    *("vocab.json", "merges.txt"),
}
"""What an export as ONNX or by torch writes beside the card."""

NEEDED = ("onnx", "onnxscript", "onnxruntime")
"""Packages of the extra ``export``."""


class Settings(NamedTuple):
    """How a model is exported.

    Attributes:
        form: The format.
        half: Whether weights are stored as float16.
        int8: Whether files with int8 weights are made beside.
        inside: Whether the normalisation of images is inside the graph.
    """

    form: Format
    half: bool = False
    int8: bool = False
    inside: bool = False


def check_settings(settings: Settings) -> None:
    """Refuse what a format cannot do, and ONNX where its packages are missing.

    Raises:
        ValueError: If there is a reason.

    Example:
        >>> check_settings(Settings("torch", int8=True))
        Traceback (most recent call last):
        ValueError: --int8 is made by onnxruntime. Take --format onnx with it.
    """
    form, half, int8, inside = settings
    if form == "safetensors" and (int8 or inside):
        option = "--int8" if int8 else "--with-preprocessing"
        raise ValueError(
            f"{option} is of graphs, and --format safetensors writes weights, which crosswalk "
            "runs. Add --format onnx."
        )
    if form == "torch" and int8:
        raise ValueError("--int8 is made by onnxruntime. Take --format onnx with it.")
    if form == "torch" and half:
        raise ValueError(
            "--half and --format torch: such a program computes in the precision of its weights, "
            "and float16 is not what the model was tested in. Take --format onnx, which stores "
            "float16 and computes in float32, or leave --half out."
        )
    if half and int8:
        raise ValueError("--half and --int8 are two sizes of weights. Leave one of them out.")
    missing = [name for name in NEEDED if find_spec(name) is None]
    if form == "onnx" and missing:
        raise ValueError(
            f"--format onnx needs {', '.join(missing)}: "
            'pip install "<folder or URL of crosswalk>[export]".'
        )


def check_target(target: Path) -> None:
    """Refuse a folder that holds something else than an earlier export.

    Raises:
        ValueError: If it does.
    """
    there = {path.name for path in target.iterdir()} if target.is_dir() else set()
    strange = sorted(there - {WEIGHTS, EXPORTED, CARD, THRESHOLDS, *GRAPHS})
    if strange or target.is_file():
        what = f"holds {strange[0]}" if strange else "is a file"
        raise ValueError(f"--out {target} {what}. Name a new folder, or one of an earlier export.")
