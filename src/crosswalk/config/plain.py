"""A configuration as plain values, as text, and beside another one."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


def to_plain(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Return the resolved configuration as plain dicts, lists and scalars.

    Raises:
        ValueError: A value is still ``???`` or an interpolation cannot be resolved.

    Example:
        >>> to_plain(OmegaConf.create({"seed": 1, "data": {"seed": "${seed}"}}))
        {'seed': 1, 'data': {'seed': 1}}
    """
    if not isinstance(config, DictConfig):
        return dict(config)
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ValueError(_unresolved(error)) from error
    return typing.cast(dict[str, Any], plain)


def unresolved(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration as plain containers, with what it takes from elsewhere as written.

    Example:
        >>> unresolved(OmegaConf.create({"seed": 1, "data": {"seed": "${seed}"}}))
        {'seed': 1, 'data': {'seed': '${seed}'}}
    """
    if not isinstance(config, DictConfig):
        return dict(config)
    return typing.cast(dict[str, Any], OmegaConf.to_container(config, resolve=False))


def _unresolved(error: OmegaConfBaseException) -> str:
    """Return what to say of a value that is taken from elsewhere, and cannot be."""
    key, said = getattr(error, "full_key", "") or "", first_line(error)
    if (lacks := re.search(r"Interpolation key '([\w.]+)' not found", said)) is not None:
        return (
            f"{key} is taken from {lacks[1]}, which this configuration does not have. Set it with "
            f"{key}=<value>."
        )
    missing = re.search(r"resolving interpolation: Missing mandatory value: ([\w.]+)", said)
    if missing is not None:
        return (
            f"{key} is taken from {missing[1]}, which has no value yet. Set it with "
            f"{missing[1]}=<value>."
        )
    return f"{key}: {said}. Set it with {key}=<value>."


def missing_keys(config: DictConfig) -> list[str]:
    """Return the keys that have no value yet, ``???`` in a file.

    Example:
        >>> missing_keys(OmegaConf.create({"seed": 1, "data": {"root": "???"}}))
        ['data.root']
    """
    return sorted(OmegaConf.missing_keys(config))


def to_yaml(config: DictConfig | Mapping[str, Any]) -> str:
    """Return the configuration as YAML, interpolations resolved.

    Raises:
        ValueError: One cannot be resolved.

    Example:
        >>> print(to_yaml({"seed": 1, "trainer": {"devices": 2}}))
        seed: 1
        trainer:
          devices: 2
        <BLANKLINE>
    """
    if isinstance(config, DictConfig):
        try:
            return OmegaConf.to_yaml(config, resolve=True)
        except OmegaConfBaseException as error:
            raise ValueError(_unresolved(error)) from error
    return OmegaConf.to_yaml(OmegaConf.create(dict(config)))


def differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (dotted key, left value, right value) wherever two configurations differ.

    Example:
        >>> differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}, "d": None})
        [('a.c', '2', '(absent)'), ('d', '(absent)', 'null')]
    """
    one, two = (
        {
            key: "null" if value is None else str(value)
            for key, value in nested(config)
            if not (isinstance(value, (Mapping, list)) and value)
        }
        for config in (left, right)
    )
    rows = []
    for key in [*one, *(key for key in two if key not in one)]:
        if one.get(key, "(absent)") != two.get(key, "(absent)"):
            rows.append((key, one.get(key, "(absent)"), two.get(key, "(absent)")))
    return rows


def nested(node: Any, prefix: str = "") -> list[tuple[str, Any]]:  # noqa: ANN401
    """Return every dotted key below ``node`` with its value, inner nodes included."""
    rows: list[tuple[str, Any]] = []
    for name, value in node.items() if isinstance(node, Mapping) else enumerate(node):
        rows.append((f"{prefix}{name}", value))
        if isinstance(value, (Mapping, list)):
            rows += nested(value, f"{prefix}{name}.")
    return rows


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, without its full stop.

    Example:
        >>> first_line(ValueError("it is wrong."))
        'it is wrong'
    """
    return str(error).splitlines()[0].rstrip(".")
