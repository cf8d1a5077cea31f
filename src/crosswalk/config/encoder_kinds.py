"""Which encoders a method takes, by the sources of both or by importing them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crosswalk.config.constructors import made_by, may_be, signature_of
from crosswalk.config.keys import ENCODERS
from crosswalk.config.model_file import model_in
from crosswalk.config.search import group_values, read_group_file
from crosswalk.config.sources import read_fits
from crosswalk.words import with_article

Fits = Callable[[Mapping[str, Any], str, str], tuple[bool | None, str]]
"""Whether what a node makes can be an argument of a constructor, and what that wants."""


def fits_by_import(node: Mapping[str, Any], target: str, argument: str) -> tuple[bool, str]:
    """Return what `Fits` does, from the classes themselves."""
    takes = signature_of(target, "method")
    expected = takes.annotations.get(argument, Any) if takes is not None else Any
    return may_be(made_by(node), expected), str(getattr(expected, "__name__", expected))


def fits_by_source(node: Mapping[str, Any], target: str, argument: str) -> tuple[bool | None, str]:
    """Return what `Fits` does, without an import; None where only that tells."""
    return read_fits(str(node["_target_"]), target, argument)


def check_encoders(
    config: Mapping[str, Any],
    goes_with: Callable[[str, Mapping[str, Any]], bool],
    fits: Fits = fits_by_import,
) -> None:
    """Refuse encoders of another kind than the method's.

    Args:
        config: As composed.
        goes_with: `crosswalk.config.compose.goes_with`, of those that are to be offered.
        fits: By import, or by source.
    """
    target = str(config["method"].get("_target_"))
    for name in ENCODERS:
        node = config.get(name)
        if node is None or "_target_" not in node:
            continue
        is_right, expected = fits(node, target, name)
        if is_right is not False:
            continue
        files = [(value, read_group_file(name, value)) for value in group_values(name)]
        right = [
            f"{name}={value}"
            for value, file in files
            if "_target_" in file
            and fits(file, target, name)[0]
            and goes_with(value, config["choices"])
        ]
        choices, made = config["choices"], node["_target_"].rpartition(".")[2]
        kinds = f"is {with_article(made)}, and the method takes {with_article(expected)}"
        checkpoint = str(config.get("checkpoint") or "")
        brought = model_in(Path(checkpoint).expanduser()) if checkpoint else None
        theirs = brought[0].get("encoder") if brought else None
        if isinstance(theirs, Mapping) and theirs.get("_target_") == node["_target_"]:
            raise ValueError(
                f"method={choices.get('method')} cannot start from checkpoint={checkpoint}, of "
                f"{name}={choices.get(name)}: its encoder {kinds}. Name a checkpoint of one of "
                f"{', '.join(right)}, or leave checkpoint out."
            )
        raise ValueError(
            f"{name}={choices.get(name)} does not go with method={choices.get('method')}: "
            f"it {kinds}. Choose one of {', '.join(right)}."
        )


def encoders_for(method: str) -> list[str]:
    """Return the encoders that may go with a method, as far as sources tell; nothing is imported.

    Example:
        >>> encoders_for("clip_reid")[0]
        'clip_layers_rn50'
    """
    target = str(read_group_file("method", method).get("method", {}).get("_target_"))
    return [
        value
        for value in group_values("encoder")
        if "_target_" not in (file := read_group_file("encoder", value))
        or fits_by_source(file, target, "encoder")[0] is not False
    ]
