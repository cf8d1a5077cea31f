"""Whether every trial of a sweep will find its configuration right, before the first one starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from crosswalk.config.check import check, check_early, compose_training
from crosswalk.config.compose import targets_in
from crosswalk.config.overrides import parse_overrides
from crosswalk.config.plain import to_plain
from crosswalk.config.stored import check_overrides, check_stored, trusting
from crosswalk.lab.sweeps.parameters import Value
from crosswalk.lab.sweeps.sweep_file import SweepFile

OURS = ("name", "output_dir", "resume", "logger.wandb.group", "logger.wandb.job_type")
"""Keys that the search sets itself."""

MEASURED = {"val": "val", "official": "test"}
"""Split that ``protocol`` measures after each epoch, where it measures any."""


def check_sweep(
    sweep: SweepFile, overrides: Sequence[str] = (), *, early: bool = False
) -> dict[str, Any]:
    """Return the plain configuration of a first trial, after checking what other trials vary.

    Every value of a choice and both ends of a range are composed and compared with the constructor
    that takes them, one parameter at a time, with the first value of all others.

    Args:
        sweep: The file.
        overrides: Further overrides of all trials.
        early: Whether only what `check_early` refuses is looked for: nothing slow is imported.

    Raises:
        ValueError: If a name or a value does not exist or does not fit, naming the parameter.
    """
    _check_names(sweep, overrides)
    first = {name: parameter.examples[0] for name, parameter in sweep.parameters.items()}
    told = partial(_check_values, sweep, overrides, early=early)
    config = told(first, "the first value of every parameter")
    _check_metric(sweep, config)
    for name, parameter in sweep.parameters.items():
        for value in parameter.examples[1:]:
            told({**first, name: value}, f"parameters.{name}={value}")
    return config


def key_of(override: str) -> str:
    """Return the key of an override.

    Example:
        >>> key_of("++optim.lr=0.1"), key_of("~loss")
        ('optim.lr', 'loss')
    """
    return override.partition("=")[0].lstrip("-+~")


def _check_names(sweep: SweepFile, overrides: Sequence[str]) -> None:
    for key in (*sweep.parameters, *map(key_of, (*sweep.command.fixed, *overrides))):
        if key in OURS:
            raise ValueError(f"{key} is set by the sweep for each trial. Leave it out.")
    for override in (*sweep.command.fixed, *overrides):
        if key_of(override) in sweep.parameters:
            raise ValueError(
                f"{override}: {key_of(override)} is a parameter of the sweep and cannot be fixed "
                f"too. Take it out of {sweep.path}, or leave the override out."
            )


def _check_values(
    sweep: SweepFile,
    overrides: Sequence[str],
    values: Mapping[str, Value],
    place: str,
    *,
    early: bool,
) -> dict[str, Any]:
    try:
        return _checked(sweep, overrides, values, early=early)
    except ValueError as error:
        if overrides and _is_right(sweep, values, early=early):
            if str(error).startswith(tuple(overrides)):
                raise  # it names the one that is wrong
            place = f"with {' '.join(overrides)}"
        raise ValueError(f"{sweep.path}, {place}: {error}") from error


def _is_right(sweep: SweepFile, values: Mapping[str, Value], *, early: bool) -> bool:
    """Return whether the file is right without overrides of the command."""
    with suppress(ValueError):
        _checked(sweep, (), values, early=early)
        return True
    return False


def _checked(
    sweep: SweepFile, overrides: Sequence[str], values: Mapping[str, Value], *, early: bool
) -> dict[str, Any]:
    check_overrides(parse_overrides(sweep.command.overrides(values)), sweep.path)
    config = compose_training([*sweep.command.overrides(values), *overrides])
    with trusting(targets_in(parse_overrides(overrides))):
        # a method, or what else the file names, may have come with it in configs/
        check_stored(to_plain(config), sweep.path)
        if early:
            check_early(config)
            return to_plain(config)
        return check(config, stored=sweep.path).config


def _check_metric(sweep: SweepFile, config: Mapping[str, Any]) -> None:
    protocol, split = config["protocol"], sweep.metric.split("/")[0]
    measured = MEASURED.get(protocol)
    if measured is None:
        raise ValueError(
            f"{sweep.path}: metric.name={sweep.metric} is never measured during a training with "
            f"protocol={protocol}. Add protocol=val to command."
        )
    if split not in (measured, "val"):
        raise ValueError(
            f"{sweep.path}: metric.name={sweep.metric}, but protocol={protocol} measures only "
            f"{measured} after each epoch. Write val/{sweep.metric.partition('/')[2]}: choosing on "
            "test makes the test result too good. (protocol=official measures test too.)"
        )
