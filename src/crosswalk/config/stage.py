"""The configuration of the stage before a run: a training whose weights the run starts from.

``stage.choices`` (files of groups) and ``stage.overrides`` (values) compose it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from crosswalk.config.compose import compose
from crosswalk.config.keys import flatten
from crosswalk.config.plain import to_plain
from crosswalk.config.stored import SETTABLE

OF_THE_RUN = ("accelerator", "devices", "precision")
"""Trainer settings that a stage takes over from its run."""


def stage_overrides(config: Mapping[str, Any]) -> list[str]:
    """Return the overrides that compose the stage of a run, without those of its hardware.

    Example:
        >>> stage = {
        ...     "choices": {"experiment": "supervised/market1501"},
        ...     "overrides": {"data": {"root": None}},
        ... }
        >>> stage_overrides({"stage": stage})
        ['experiment=supervised/market1501', 'data.root=null']
    """
    stage = config["stage"]
    for group, value in stage["choices"].items():
        if not re.fullmatch(r"[\w/@]+=[\w/.-]+", f"{group}={value}"):
            raise ValueError(f"stage.choices: {group}={value} chooses no file of a group.")
    choices = [f"{group}={value}" for group, value in stage["choices"].items()]
    values = flatten(stage["overrides"])
    for key in values:
        if not SETTABLE.fullmatch(key):
            raise ValueError(f"stage.overrides: {key} is no key: names joined by dots.")
    return choices + [f"{key}={as_word(value)}" for key, value in values.items()]


def stage_command(config: Mapping[str, Any]) -> list[str]:
    """Return all overrides of the stage of a run, those that it takes over from it included."""
    trainer = config["trainer"]
    hardware = [f"trainer.{key}={trainer[key]}" for key in OF_THE_RUN if key in trainer]
    return [*stage_overrides(config), "logger=csv", *hardware]


def stage_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain configuration of the stage of a run."""
    return to_plain(compose(stage_command(config)))


def as_word(value: Any) -> str:  # noqa: ANN401
    """Return a value as the command line takes it: as JSON, text in quotes."""
    return json.dumps(value, ensure_ascii=False)
