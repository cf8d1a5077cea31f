"""Whether a configuration is built like one, before anything asks what its values mean."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig

from crosswalk.config.constructors import check_value
from crosswalk.config.keys import NEEDED, PARTS
from crosswalk.config.plain import nested, unresolved
from crosswalk.config.search import group_values
from crosswalk.config.words import shown

STAGE = {
    "choices": Mapping[str, str],
    "overrides": Mapping[str, Any],
    "load": Mapping[str, str],
}
"""What the stage of a run has, all of it."""


def check_shape(config: DictConfig | Mapping[str, Any]) -> None:
    """Refuse a configuration that lacks a part, or has something else where a part belongs.

    Raises:
        ValueError: A part that is missing or a single value, one that is to be built without
            ``_target_``, a ``_target_`` or ``_partial_`` of another type, or a key beside those
            that are read; the message names the key.

    Example:
        >>> check_shape({"method": 3, "data": {}, "optim": {}, "trainer": {}})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: method=3 is a single value, and a run has a part there. Choose one of ...
    """
    plain = unresolved(config)
    for group in NEEDED:
        if plain.get(group) is None:
            raise ValueError(f"a run needs {group}=. {_choices(group)}")
    for part in (*PARTS, "stage"):
        if not isinstance(plain.get(part) or {}, Mapping):
            begin = f"{part}={shown(plain[part])} is a single value, and a run has a part there."
            raise ValueError(f"{begin} {_choices(part)}")
    if not isinstance(plain.get("diagnostics") or [], list):
        given = shown(plain["diagnostics"])
        raise ValueError(f"diagnostics={given} is no list. {_choices('diagnostics')}")
    for key, value in nested(plain):
        _check_entry(key, value)
    for key, node in _built(plain):
        if node is not None and (not isinstance(node, Mapping) or "_target_" not in node):
            raise ValueError(
                f"{key}={shown(node)} does not say what is to be built: it has no _target_. "
                f"{_choices(key.partition('.')[0])}"
            )
    for part, known in {"logger": ("wandb",), "stage": STAGE}.items():
        for name in plain.get(part) or ():
            if name not in known:
                raise ValueError(f"{part}.{name}: nothing in a run reads it. {_choices(part)}")
    if plain.get("stage"):
        for name, expected in STAGE.items():
            check_value(plain["stage"].get(name), expected, f"stage.{name}", "a run")


def _check_entry(key: str, value: object) -> None:
    name = key.rpartition(".")[2]
    if name == "_target_" and not isinstance(value, str):
        raise ValueError(f"{key}={shown(value)} is no dotted path of a class or a function.")
    if name == "_partial_":
        check_value(value, bool, key, "a run")
    elif name != "_target_" and re.fullmatch(r"_\w+_", name):
        raise ValueError(f"{key}: nothing reads {name}; a node has _target_ and _partial_ alone.")


def _built(plain: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what objects are made of, by key."""
    for name in PARTS:
        if name not in ("trainer", "logger"):
            yield name, plain.get(name)
    yield "logger.wandb", (plain.get("logger") or {}).get("wandb")
    for place, node in enumerate(plain.get("diagnostics") or ()):
        yield f"diagnostics.{place}", node


def _choices(part: str) -> str:
    """Return what may be typed instead."""
    values = group_values(part) if part in PARTS else []
    if not values:
        return f"The file of the method says what its {part} may be."
    return f"Choose one of {', '.join(f'{part}={value}' for value in values)}."
