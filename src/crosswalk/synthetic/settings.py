"""What synthetic people are made with, looked at before anything is drawn or imported for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from crosswalk.synthetic.set_folder import check_settings
from crosswalk.synthetic.tables import table

GENERATOR_VERSION = 1
"""Raised whenever the same seed makes other images or captions than before."""
IMAGE_GENERATOR_VERSION = 2
"""Raised whenever the same seed makes other images or names than before, without captions."""
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "pairs": {"size": "toy", "domain": "city", "seed": 0},
    "images": {"layout": "market1501", "size": "toy", "seed": 0},
}


def settings_of(kind: Literal["pairs", "images"], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return every setting of a synthetic set, in the order of its folder's name.

    Args:
        kind: What the set holds.
        given: ``data.synthetic``; what it leaves out has its default.

    Raises:
        ValueError: An unknown key, or a value that is not on offer.

    Example:
        >>> settings_of("images", {"size": "tiny"})
        {'layout': 'market1501', 'size': 'tiny', 'seed': 0}
        >>> settings_of("pairs", {"size": "huge"})
        Traceback (most recent call last):
            ...
        ValueError: data.synthetic.size is 'huge'. Set it to one of tiny, toy, small, full.
    """
    defaults = DEFAULTS[kind]
    if unknown := given.keys() - defaults.keys():
        *most, last = defaults
        raise ValueError(
            f"data.synthetic has no {sorted(unknown)}; its keys are {', '.join(most)} and {last}."
        )
    settings = {**defaults, **given}
    sizes = table("sizes")[kind]
    try:
        if kind == "images":
            check_settings({"layout": (settings["layout"], list(sizes))}, 0)
            sizes = sizes[settings["layout"]]
        else:
            check_settings({"domain": (settings["domain"], list(table("looks")["pairs"]))}, 0)
        check_settings({"size": (settings["size"], list(sizes))}, settings["seed"])
    except ValueError as error:
        raise ValueError(f"data.synthetic.{error}") from error
    return settings
