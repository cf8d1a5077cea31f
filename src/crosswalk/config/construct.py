"""From a node of a configuration to the object that it describes.

A node is a mapping with ``_target_``, the dotted path of a class or function; its other keys are
arguments, nodes again or plain values. With ``_partial_: true`` it describes a function that waits
for its remaining arguments.
"""

from __future__ import annotations

import functools
import importlib
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any


def locate(target: str, key: str) -> Callable[..., Any]:
    """Return the class or function behind a dotted path; ``key`` is for the message.

    Example:
        >>> locate("fractions.Fraction", "share").__name__
        'Fraction'
    """
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if f"{module}.".startswith(f"{error.name}."):
                continue
            raise
        for name in parts[cut:]:
            found = getattr(found, name, None)
        if callable(found):
            return typing.cast(Callable[..., Any], found)
        break
    raise ValueError(f"{key}._target_={target} names nothing that can be imported and called.")


def construct(value: Any, kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return ``value`` with every node inside replaced by the object it describes.

    Args:
        value: A node, a list, a mapping, or a plain value.
        kwargs: Further arguments of the outermost node.

    Example:
        >>> half = {"_target_": "fractions.Fraction", "numerator": 1, "denominator": 2}
        >>> construct({"shares": [half, 3]}, {})
        {'shares': [Fraction(1, 2), 3]}
    """
    if isinstance(value, list):
        return [construct(item, {}) for item in value]
    if not isinstance(value, dict):
        return value
    if "_target_" not in value:
        return {name: construct(item, {}) for name, item in value.items()}
    target = locate(value["_target_"], "")
    arguments = {name: construct(item, {}) for name, item in arguments_of(value).items()}
    if value.get("_partial_", False):
        return functools.partial(target, **arguments, **kwargs)
    return target(**arguments, **kwargs)


def arguments_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a node hands to its constructor: all but ``_target_`` and ``_partial_``.

    Example:
        >>> arguments_of({"_target_": "fractions.Fraction", "numerator": 1})
        {'numerator': 1}
    """
    return {name: value for name, value in node.items() if not re.fullmatch(r"_\w+_", name)}
