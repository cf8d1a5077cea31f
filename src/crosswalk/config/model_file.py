"""What a model that was given away says of itself: ``config.json``, or the header of its weights.

Reads no tensor and imports no torch, so that a mistake is answered at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crosswalk import __version__
from crosswalk.config.moved import modernised
from crosswalk.config.stored import check_plain, read_yaml
from crosswalk.files import read_text, safetensors_header

EXPORTED = "config.json"
"""What `crosswalk export` writes beside the weights."""

WEIGHTS = "model.safetensors"
"""The weights that it writes."""

CARD = "README.md"
"""The model card that it writes."""

THRESHOLDS = "thresholds.json"
"""What is known of their scores (`crosswalk.use.thresholds`), where anything is."""

HEADER = "description"
"""Where `crosswalk import-weights` puts into the header of its file what ``config.json`` says."""

FORMAT = 1
"""Of the description; raised when older crosswalks cannot read it."""

COLOURS = "data.normalization"
"""Key of what is evaluated as ``dataset``: by the colours of each set's own training images.

Of imports of methods that do so, whose files hold the colours of no set.
"""

LARGEST = 20_000_000
"""Bytes of a description, words included."""


def place_of_description(path: Path) -> Path | None:
    """Return the file that describes the model in a folder or a file of weights; None without one.

    Args:
        path: A folder of `crosswalk export`, the weights in it, or a file of `import-weights`.
    """
    if path.is_dir():
        there = (path / EXPORTED).is_file() and (path / WEIGHTS).is_file()
        return path / EXPORTED if there else None
    if path.suffix == ".safetensors" and path.is_file():
        if HEADER in safetensors_header(path):
            return path
        if path.name == WEIGHTS and (path.parent / EXPORTED).is_file():
            return path.parent / EXPORTED
    return None


def written_description(
    content: Mapping[str, Any], *, choices: Mapping[str, Any], evaluation: Mapping[str, Any]
) -> str:
    """Return the text that `read_description` reads.

    Args:
        content: All that embeddings depend on: ``method``, ``encoder``, ``data``,
            ``preprocessing``, ``vocabulary``.
        choices: The files of groups that made it.
        evaluation: Keys that an evaluation of the model repeats, with their values.
    """
    head = {
        "format": FORMAT,
        "crosswalk": __version__,
        "choices": dict(choices),
        "evaluation": dict(evaluation),
    }
    return json.dumps({**head, **content}, indent=1) + "\n"


def model_in(path: Path) -> tuple[dict[str, Any], Path] | None:
    """Return encoder, sizes and choices of the model that weights are of; None where nobody says.

    Args:
        path: What ``checkpoint=`` names: a run folder, a file in it, or what
            `place_of_description` knows.

    Returns:
        ``encoder``, ``data`` with ``image_size`` and perhaps ``context_length``, ``choices``; and
        the file that says so.

    Raises:
        ValueError: If that file is damaged.
    """
    place = place_of_description(path)
    if place is not None:
        told = read_description(place)
        steps = told.get("preprocessing") or {}
        data = {**(told.get("data") or {}), "image_size": steps.get("image_size")}
        return {"encoder": told.get("encoder"), "data": data, "choices": told.get("choices")}, place
    file = (path if path.is_dir() else path.parent) / "config.yaml"
    if not path.exists() or not file.is_file():
        return None
    stored = modernised(read_yaml(file))
    return (stored, file) if isinstance(stored, dict) else None


def read_description(place: Path) -> dict[str, Any]:
    """Return what a file says of a model: method, encoder, ``data``, preprocessing, vocabulary.

    Args:
        place: From `place_of_description`.

    Raises:
        ValueError: If it is damaged, not plain, or of a later crosswalk.
    """
    in_header = place.suffix == ".safetensors"
    again = "Import the checkpoint again." if in_header else "Export the run again."
    try:
        text = safetensors_header(place)[HEADER] if in_header else read_text(place, limit=LARGEST)
        content = json.loads(text)
        if not isinstance(content, dict) or not isinstance(content.get("method"), dict):
            raise ValueError("it has no method")
        for part in ("choices", "data", "evaluation"):
            if not isinstance(content.get(part) or {}, dict):
                raise ValueError(f"its {part} is {type(content[part]).__name__}, no entries")
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{place} is damaged ({error}). {again}") from error
    check_plain(content, place)
    if content.get("format") != FORMAT:
        raise ValueError(
            f"{place} was written by crosswalk {content.get('crosswalk')}, in a format "
            f"({content.get('format')}) that this one does not know. Update crosswalk."
        )
    return content
