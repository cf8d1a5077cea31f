"""One override, `key=value`: what it says, and how it changes a configuration."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crosswalk.config.constructors import Signature, fits
from crosswalk.config.keys import NEEDED, TOP
from crosswalk.config.plain import first_line, nested, unresolved
from crosswalk.config.search import group_values
from crosswalk.config.sources import read_signature
from crosswalk.config.trainer_arguments import trainer_keys
from crosswalk.config.words import did_you_mean

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

OPEN = ("stage.choices.", "stage.overrides.")
"""Parts that may get any key: `crosswalk.config.check` composes the stage of them."""


def parse_overrides(overrides: Iterable[str]) -> list[Override]:
    """Return overrides in Hydra's form.

    Raises:
        ValueError: One is not of the form ``key=value``, or has several values.

    Example:
        >>> [(each.key_or_group, each.value()) for each in parse_overrides(["--seed=3"])]
        [('seed', 3)]
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    parsed = []
    for line in overrides:
        line = line.removeprefix("--")
        try:
            override = parser.parse_override(line)
        except HydraException:
            try:  # paths may hold characters that the grammar wants quoted
                override = parser.parse_override(_quoted(line))
            except HydraException as error:
                raise ValueError(
                    f"{line!r} is not of the form key=value. Lists are written key=[1,2]; a value "
                    "with quotes or brackets of its own stands in quotes."
                ) from error
        if override.is_sweep_override():
            raise ValueError(
                f"{line!r} has several values. A list is written key=[1,2], a value with a comma "
                "'key=\"a,b\"'. `crosswalk sweep <file>` starts a run for each of several values."
            )
        parsed.append(override)
    return parsed


def _quoted(line: str) -> str:
    key, _, value = line.partition("=")
    if value.startswith(("[", "{", "'", '"')):
        return line
    if value.startswith("~"):
        try:
            value = str(Path(value).expanduser())
        except RuntimeError as error:
            raise ValueError(
                f"{line}: there is no user {value.split('/')[0][1:]} on this machine. Write the "
                "folder out."
            ) from error
    return key + "='" + value.replace("'", "\\'") + "'"


def apply(override: Override, config: DictConfig, groups: Sequence[str]) -> None:
    """Change the configuration by one override, or say which key was meant.

    A part that comes with its ``_target_`` takes the place of the one before; of another part the
    keys that are given change.
    """
    key, line = override.key_or_group, override.input_line or ""
    _check_settable(override, config)
    is_known = has_key(config, key)
    adds = override.is_add() or override.is_force_add() or key.startswith(OPEN)
    if key.startswith("trainer.") and not is_known:
        _check_trainer_key(key, line)
        adds = not override.is_delete()
    if not is_known and not adds:
        known = [name for name, _ in nested(unresolved(config))]
        near = did_you_mean(key, [*known, *groups, *(f"trainer.{name}" for name in trainer_keys())])
        advice = near or _how_to_add(key, config)
        raise ValueError(f"{key} is not a key of this configuration.{advice}")
    if override.is_delete():
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
        if not isinstance(node, DictConfig):
            raise ValueError(f"{line}: {key} is part of a list. Set the whole: {parent}=[…].")
        OmegaConf.set_struct(config, False)
        del node[name]
        OmegaConf.set_struct(config, True)
    else:
        value = _as_typed(override, config)
        is_whole = isinstance(value, Mapping) and "_target_" in value
        try:
            OmegaConf.update(config, key, value, merge=not is_whole, force_add=adds)
        except (OmegaConfBaseException, AssertionError, TypeError, ValueError) as error:
            if key in groups:
                raise ValueError(
                    f"{line}: {key}= takes the name of one file. There are: "
                    f"{', '.join(group_values(key))}. Its keys are set one by one, {key}.<key>=."
                ) from error
            if isinstance(OmegaConf.select(config, key), DictConfig):
                raise ValueError(
                    f"{line}: {key} is a part. Its keys are set one by one, {key}.<key>=; "
                    "`crosswalk config show` lists them."
                ) from error
            raise ValueError(
                f"{line}: what is above {key} is a single value. `crosswalk config show` says "
                f"which ({first_line(error)})."
            ) from error


def _how_to_add(key: str, config: DictConfig) -> str:
    """Return how a key that is not there is added, or what is taken in its place instead."""
    listed, names = "`crosswalk config show` lists all", key.split(".")
    for depth in range(len(names) - 1, 0, -1):
        part, name = ".".join(names[:depth]), names[depth]
        target, takes = _constructor(part, config)
        if target is None:
            continue
        if takes is not None and name not in takes.parameters:
            kinds = {each.kind for each in takes.parameters.values()}
            if inspect.Parameter.VAR_KEYWORD not in kinds:
                return f" {target} takes {', '.join(takes.parameters)}."
        is_sure = takes is not None and depth == len(names) - 1
        condition = "" if is_sure else f", if {target} takes it"
        return f" {listed}; +{key}=<value> adds a new one{condition}."
    return f" {listed}."


def has_key(config: DictConfig, key: str) -> bool:
    """Return whether a configuration has a dotted key, as a list's place as well."""
    first, dot, rest = key.partition(".")
    parts = dict(config.items_ex(resolve=False))
    if first not in parts or not dot:
        return first in parts
    node = parts[first]
    plain = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    return isinstance(plain, (dict, list)) and rest in dict(nested(plain))


def _check_settable(override: Override, config: DictConfig) -> None:
    """Refuse what an override cannot change: notes of choices, and keys that a run needs."""
    key = override.key_or_group
    if key == "choices" or key.startswith("choices."):
        group = key.partition(".")[2]
        wanted = f"{group}=<file>" if group else "method=<file>"
        raise ValueError(
            f"{key} only says which files were chosen. Choose another one with {wanted}."
        )
    needed = key in (*TOP, *NEEDED) and key not in ("source", "diagnostics")
    if override.is_delete() and needed and key in config:
        raise ValueError(f"~{key}: a run needs {key}. Set it: {key}=<value>.")


def _as_typed(override: Override, config: DictConfig) -> Any:  # noqa: ANN401
    """Return the value of an override, as text where its place takes text: ``name=1e3``."""
    value = override.value()
    words = (override.input_line or "").partition("=")[2]
    expected = _expected(override.key_or_group, config)
    if isinstance(value, list):
        simple = re.fullmatch(r"\[([^\[\]{}'\"]*)\]", words)
        texts: Any = [word.strip() for word in simple.group(1).split(",")] if simple else value
    else:
        texts = value if value is None else words
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return texts if not fits(plain, expected) and fits(texts, expected) else value


def _expected(key: str, config: DictConfig) -> Any:  # noqa: ANN401
    """Return what the place of a key takes, as far as no import is needed; Any elsewhere."""
    parent, _, name = key.rpartition(".")
    if not parent:
        return TOP.get(name, Any)
    _, takes = _constructor(parent, config)
    return Any if takes is None else takes.annotations.get(name, Any)


def _constructor(part: str, config: DictConfig) -> tuple[str | None, Signature | None]:
    """Return what builds a part, None for one that is not built, and what it takes, if known."""
    node = OmegaConf.select(config, part, throw_on_resolution_failure=False)
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    if not isinstance(target, str):
        return None, None
    return target, read_signature(target)


def _check_trainer_key(key: str, line: str) -> None:
    name = key.split(".")[1]
    if key.count(".") == 1 and name not in trainer_keys():
        near = did_you_mean(key, [f"trainer.{name}" for name in trainer_keys()])
        raise ValueError(f"{line}: Lightning's Trainer has no argument {name}.{near}")
