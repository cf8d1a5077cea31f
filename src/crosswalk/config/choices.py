"""Overrides that choose a file of a group, `method=rde`."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosswalk.config.data_kinds import check_kind
from crosswalk.config.encoder_kinds import encoders_for
from crosswalk.config.keys import CALLED_FILES, NEEDED
from crosswalk.config.search import default_method, group_values, read_group_file
from crosswalk.config.words import did_you_mean

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


def is_choice(override: Override, groups: Sequence[str]) -> bool:
    """Return whether the override names a file of a group; ``method={...}`` is none."""
    return override.key_or_group in groups and (
        override.is_delete() or isinstance(override.value(), str | float | int | None)
    )


def check_choice(
    choice: Override, chosen: Mapping[str, Any], goes_with: Callable[[str, Mapping[str, Any]], bool]
) -> None:
    """Refuse a file of a group that does not exist, and say which there are.

    Args:
        choice: Names the file.
        chosen: The files that all choices name, by group.
        goes_with: `crosswalk.config.compose.goes_with`, of encoders that are to be offered.
    """
    group, value = choice.key_or_group, choice.value()
    values = group_values(group)
    if str(value) in values or (value is None and group not in NEEDED):
        return
    there = "There are"
    if group in ("encoder", "loss") and (method := _method_of(chosen)) in group_values("method"):
        fitting = losses_for(method)
        if group == "encoder":
            fitting = [name for name in encoders_for(method) if goes_with(name, chosen)]
        if not fitting:
            raise ValueError(
                f"{choice.input_line}: method={method} has no {group} to choose. Leave it out; "
                "`crosswalk config show` lists the keys."
            )
        values, there = fitting, f"With method={method} go"
    advice = f"{there}: {', '.join(values)}."
    if value is None:
        raise ValueError(f"{choice.input_line}: a run needs {group}=. {advice}")
    if group == "encoder" and "timm" in values and _is_of_timm(str(value)):
        advice += f" A model of timm: encoder=timm encoder.backbone.name={value}."
    written = re.sub(r"\W", "_", str(value)).lower()
    fitting = _of_kind(_method_of(chosen), values) if group == "data" else values
    words = (str(value), written, CALLED_FILES.get(written, written))
    guesses = (did_you_mean(each, names) for names in (fitting, values) for each in words)
    near = next(filter(None, guesses), "")
    raise ValueError(f"{choice.input_line} does not exist.{near} {advice}")


def _of_kind(method: str, values: Sequence[str]) -> list[str]:
    """Return the data that a method can train on, by their files."""
    fitting = []
    for value in values:
        with suppress(ValueError):
            check_kind(method, value)
            fitting.append(value)
    return fitting


def losses_for(method: str) -> list[str]:
    """Return the losses that may go with a method: built, or waiting to be called, as its own is.

    Example:
        >>> losses_for("mmcl"), losses_for("irra")  # the latter's are no files
        (['memory_cross_entropy', 'multilabel', 'multilabel_logistic'], [])
    """
    entries = read_group_file("method", method).get("defaults", ())
    chosen = {
        key: value for each in entries if isinstance(each, dict) for key, value in each.items()
    }
    own = next(
        (chosen[key] for key in chosen if re.fullmatch(r"(override )?/loss(@.*)?", key)), None
    )
    files = {value: read_group_file("loss", value) for value in group_values("loss")}
    waits = {value: file.get("_partial_", False) for value, file in files.items()}
    return [value for value in waits if own in waits and waits[value] == waits[own]]


def _method_of(chosen: Mapping[str, Any]) -> str:
    """Return the method that files of groups choose: it, or the run that was published of it."""
    published = str(chosen.get("experiment") or "").partition("/")[0]
    return str(chosen.get("method") or published or default_method())


def _is_of_timm(name: str) -> bool:
    """Return whether timm has a model, by its sources: to import it takes seconds."""
    found = importlib.util.find_spec("timm")
    folders = (
        [] if found is None else [Path(each) for each in found.submodule_search_locations or ()]
    )
    wanted = f"\ndef {name.partition('.')[0]}(".encode()
    return any(
        wanted in file.read_bytes() for folder in folders for file in folder.glob("models/*.py")
    )


def choice_line(choice: Override) -> str | None:
    """Return the choice for Hydra, which knows ``~group`` but not ``group=null``."""
    if choice.is_delete() or choice.value() is not None:
        return choice.input_line
    return None if choice.key_or_group == "experiment" else f"~{choice.key_or_group}"


def published_run(chosen: Mapping[str, Any]) -> str | None:
    """Return the experiment that belongs to the chosen method and data, unless one was named."""
    if "experiment" in chosen:
        return None
    method, runs = chosen.get("method") or default_method(), group_values("experiment")
    if chosen.get("data") is not None:
        wanted = [f"{method}/{chosen['data']}"]
    else:
        wanted = [run for run in runs if run.startswith(f"{method}/synthetic_")]
    return next((run for run in wanted if run in runs), None)
