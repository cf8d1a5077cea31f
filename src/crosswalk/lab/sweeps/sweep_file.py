"""A W&B sweep file, read for the local search. What it cannot honour is refused by its key."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crosswalk.config.search import group_folders, group_values
from crosswalk.config.stored import read_yaml
from crosswalk.config.words import did_you_mean
from crosswalk.files import path_meant
from crosswalk.lab.sweeps.parameters import (
    Choice,
    Constant,
    Parameter,
    Range,
    Value,
    read_parameter,
)

METHODS = ("grid", "random", "bayes")
GOALS = ("minimize", "maximize")
MEASURES = ("rank1", "rank5", "rank10", "map", "minp")
NEEDED = {
    "method": "method: random",
    "metric": "metric: {name: val/rank1, goal: maximize}",
    "parameters": "parameters: {optim.lr: {values: [0.001, 0.0001]}}",
}
"""What a sweep file must hold, with an example."""
UNDERSTOOD = (
    *NEEDED,
    *(
        "command",
        "program",
        "early_terminate",
        "name",
        "description",
        "project",
        "entity",
        "run_cap",
    ),
)
LARGEST_GRID = 10_000
WRITTEN = {
    "${args_no_hyphens}": "",
    "${args}": "--",
    "${args_append_hydra}": "+",
    "${args_override_hydra}": "++",
}
"""How W&B's agent writes ``key=value`` for each of its macros."""

START = ("${env}", "${interpreter}", "-m", "crosswalk", "train")
DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")
"""What W&B's agent starts where a file has no ``command``."""
PROGRAM = re.compile(r"(.*/)?crosswalk(/__main__\.py)?")
"""How ``program`` may name crosswalk."""
STARTED = re.compile(
    r"((\$\{env\}|(.*/)?env)\n)?"
    r"((\$\{interpreter\}|(.*/)?python(3(\.\d+)?)?)\n(-[uBEIOs]+\n)*"
    r"(-m\ncrosswalk|.*/crosswalk(/__main__\.py)?)|(.*/)?crosswalk)\n"
    r"train\n"
)
"""The words of a command, each with a line end, that start crosswalk train; our Python is taken."""

ADVICE = (
    "Write command: [${env}, ${interpreter}, -m, crosswalk, train, method=<method>, "
    "${args_no_hyphens}], one word per line."
)
VARIABLE = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")


@dataclass(frozen=True)
class TrialCommand:
    """What stands in ``command`` behind ``crosswalk train``.

    Attributes:
        before: Overrides in front of the parameters.
        prefix: What each parameter begins with.
        after: Overrides behind them, which are stronger.
    """

    before: tuple[str, ...]
    prefix: str
    after: tuple[str, ...]

    @property
    def fixed(self) -> tuple[str, ...]:
        """Overrides of all trials."""
        return (*self.before, *self.after)

    def overrides(self, values: Mapping[str, Value]) -> list[str]:
        """Return the overrides of a trial, written as W&B's agent writes them.

        Example:
            >>> command = TrialCommand(("method=rde",), "", ("seed=2",))
            >>> command.overrides({"optim.lr": 1e-05, "compile": False})
            ['method=rde', 'optim.lr=1e-05', 'compile=False', 'seed=2']
        """
        written = [f"{self.prefix}{name}={value}" for name, value in values.items()]
        return [*self.before, *written, *self.after]


@dataclass(frozen=True)
class EarlyTermination:
    """When trials that do badly are stopped.

    Attributes:
        min_iter: Evaluated epochs after which a trial is judged for the first time.
        eta: It is judged again after eta times as many, and one of eta trials goes on.
        max_iter: From here on nothing is judged any more; None where there is no such end.
    """

    min_iter: int
    eta: int
    max_iter: int | None


@dataclass(frozen=True)
class SweepFile:
    """What a W&B sweep file says.

    Attributes:
        path: The file.
        contents: All of it, plain, for W&B itself.
        method: grid, random or bayes.
        metric: Name of what is compared, such as val/rank1; more is better.
        target: Value with which the sweep is over; None to go on.
        parameters: By dotted key.
        command: What a trial starts.
        early: When bad trials are stopped; None: never.
        run_cap: Trials at most; None where the file does not say.
    """

    path: Path
    contents: Mapping[str, Any]
    method: str
    metric: str
    target: float | None
    parameters: Mapping[str, Parameter]
    command: TrialCommand
    early: EarlyTermination | None
    run_cap: int | None

    @property
    def stem(self) -> str:
        """Name of the file without its ending."""
        return self.path.stem

    def grid(self) -> dict[str, tuple[Value, ...]]:
        """Return the values of each parameter of a grid that has more than one."""
        return {
            name: parameter.values
            for name, parameter in self.parameters.items()
            if isinstance(parameter, Choice)
        }

    @property
    def grid_size(self) -> int | None:
        """Number of trials of the whole grid; None where it is none."""
        if self.method != "grid":
            return None
        size = 1
        for values in self.grid().values():
            size *= len(values)
        return size


def find_sweep_file(name: str) -> Path:
    """Return the path of a sweep file, given itself or as its name in ``configs/sweep``.

    Raises:
        FileNotFoundError: If there is none.

    Example:
        >>> find_sweep_file("rde").name
        'rde.yaml'
    """
    given = Path(name)
    if given.is_file():
        return given
    for folder in group_folders("sweep"):
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = group_values("sweep")
    raise FileNotFoundError(
        f"{name} is neither a file nor a sweep of configs/sweep."
        f"{path_meant(Path(name)) or did_you_mean(name, known)} "
        f"There are: {', '.join(known)}."
    )


def read_sweep_file(path: Path) -> SweepFile:
    """Return what a W&B sweep file says.

    Raises:
        ValueError: If it is not valid, or says what the local search cannot do; the message names
            the key.

    Example:
        >>> sweep = read_sweep_file(find_sweep_file("rde"))
        >>> sweep.metric, sweep.command.fixed[0]
        ('val/rank1', 'method=rde')
    """
    contents = read_yaml(path)
    if not isinstance(contents, dict):
        raise ValueError(f"{path} is not a mapping of keys to values, as a W&B sweep file is.")
    try:
        return _read(path, contents)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read(path: Path, contents: Mapping[str, Any]) -> SweepFile:
    for key in contents:
        if key not in UNDERSTOOD:
            raise ValueError(
                f"{key} is not understood by the local search.{did_you_mean(str(key), UNDERSTOOD)} "
                f"It honours {', '.join(UNDERSTOOD)}."
            )
    for key in NEEDED:
        if key not in contents:
            raise ValueError(f"{key} is missing. Add a line such as `{NEEDED[key]}`.")
    words, program = contents.get("command", [*DEFAULT_COMMAND]), contents.get("program")
    if isinstance(words, list) and "${program}" in words:
        if not PROGRAM.fullmatch(str(program or "crosswalk")):
            raise ValueError(
                f"program={program} is not crosswalk's; the local search starts crosswalk train "
                f"only. Write program: crosswalk. {ADVICE}"
            )
        place = words.index("${program}") + 1
        rest = words[place + (words[place : place + 1] == ["train"]) :]
        contents = {**contents, "command": [*START, *rest]}  # what an agent of W&B can start, too
    method = contents["method"]
    if method not in METHODS:
        raise ValueError(f"method={method} is not one of {', '.join(METHODS)}.")
    metric, target = _read_metric(contents["metric"])
    given = contents["parameters"]
    if not isinstance(given, dict) or not given:
        raise ValueError("parameters names no parameter.")
    parameters = {str(name): read_parameter(str(name), entry) for name, entry in given.items()}
    if all(isinstance(parameter, Constant) for parameter in parameters.values()):
        lists = [name for name, entry in given.items() if isinstance(entry.get("value"), list)]
        meant = f" Did you mean values: below {', '.join(lists)}?" if lists else ""
        raise ValueError(
            f"parameters: none has more than one value, so there is nothing to search.{meant}"
        )
    if method == "grid":
        parameters = {name: _listed(name, each) for name, each in parameters.items()}
    run_cap = contents.get("run_cap")
    if run_cap is not None and not _is_count(run_cap):
        raise ValueError(f"run_cap={run_cap!r} is not a number of trials.")
    sweep = SweepFile(
        path=path,
        contents=contents,
        method=method,
        metric=metric,
        target=target,
        parameters=parameters,
        command=read_command(contents.get("command")),
        early=_read_early(contents.get("early_terminate")),
        run_cap=run_cap,
    )
    if sweep.grid_size is not None and sweep.grid_size > LARGEST_GRID:
        raise ValueError(
            f"method=grid: the grid has {sweep.grid_size} points. Choose method: random, or fewer "
            "values."
        )
    return sweep


def _read_metric(given: object) -> tuple[str, float | None]:
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise ValueError("metric.name is missing.")
    for key in given:
        if key in ("impute", "impute_while_running"):
            raise ValueError(
                f"metric.{key}: Optuna leaves failed trials out of its model. Leave the key out."
            )
        if key not in ("name", "goal", "target"):
            raise ValueError(f"metric.{key} is not understood; there are name, goal and target.")
    name, goal = given["name"], given.get("goal", "minimize")
    split, _, measure = name.partition("/")
    if split not in ("val", "test") or measure.rsplit("/", 1)[-1] not in MEASURES:
        example = f"val/{measure if measure in MEASURES else 'rank1'}"
        raise ValueError(
            f"metric.name={name}: trials are compared by what is measured after an epoch, val/ or "
            f"test/ and one of {', '.join(MEASURES)}. Write {example}."
        )
    if goal not in GOALS:
        raise ValueError(f"metric.goal={goal} is not one of {', '.join(GOALS)}.")
    if goal == "minimize":
        raise ValueError(
            f"metric.goal: more of {name} is better, and W&B minimizes where no goal is named. "
            "Write goal: maximize."
        )
    target = given.get("target")
    if target is not None and (isinstance(target, bool) or not isinstance(target, (int, float))):
        raise ValueError(f"metric.target={target!r} is not a number.")
    return name, target


def _listed(name: str, parameter: Parameter) -> Parameter:
    """Return a parameter of a grid: whole numbers between two ends one by one."""
    if not isinstance(parameter, Range):
        return parameter
    if not parameter.whole or parameter.log or parameter.multiple is not None:
        raise ValueError(
            f"parameters.{name}: a grid takes single values. Write values: [...], or choose "
            "method: random or bayes."
        )
    if parameter.high - parameter.low >= LARGEST_GRID:
        raise ValueError(f"parameters.{name} has more than {LARGEST_GRID} values for a grid.")
    return Choice(tuple(range(int(parameter.low), int(parameter.high) + 1)))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _read_early(given: object) -> EarlyTermination | None:
    if given is None:
        return None
    place = "early_terminate"
    if not isinstance(given, dict) or given.get("type") != "hyperband":
        raise ValueError(f"{place}.type must be hyperband, the only kind that W&B has.")
    for key in given:
        if key not in ("type", "min_iter", "max_iter", "s", "eta"):
            raise ValueError(
                f"{place}.{key} is not understood by the local search. Leave it out; it always "
                "lets one of eta trials go on, as W&B's strict: true."
            )
    eta = given.get("eta", 3)
    if not _is_count(eta) or eta < 2:
        raise ValueError(f"{place}.eta={eta!r}: Optuna takes whole numbers from 2 on.")
    if "min_iter" in given:
        if "max_iter" in given or "s" in given:
            raise ValueError(f"{place}: write min_iter, or max_iter and s, not both.")
        if not _is_count(given["min_iter"]):
            raise ValueError(f"{place}.min_iter={given['min_iter']!r} is not a number of epochs.")
        return EarlyTermination(given["min_iter"], eta, None)
    for key in ("max_iter", "s"):
        if not _is_count(given.get(key)):
            raise ValueError(f"{place}.{key}={given.get(key)!r} is not a whole number from 1 on.")
    last, first = given["max_iter"], given["max_iter"] // eta ** given["s"]
    if first < 1 or first * eta ** given["s"] != last:
        near = max(1, first) * eta ** given["s"]
        raise ValueError(
            f"{place}.max_iter={last} is no multiple of eta^s={eta ** given['s']}, so it cannot be "
            f"divided s times. Write max_iter: {near}, or min_iter: {max(1, first)} alone."
        )
    return EarlyTermination(first, eta, last)


def read_command(words: object) -> TrialCommand:
    """Return what a command says; it must start ``crosswalk train``.

    Args:
        words: The list under ``command``.

    Raises:
        ValueError: If it starts something else or hands parameters over in another way.

    Example:
        >>> words = ["${env}", "${interpreter}", "-m", "crosswalk", "train", "${args_no_hyphens}"]
        >>> read_command([*words, "protocol=val"])
        TrialCommand(before=(), prefix='', after=('protocol=val',))
    """
    if not isinstance(words, list) or not words:
        raise ValueError(f"command={words!r} is no list of words. {ADVICE}")
    texts = [VARIABLE.sub(_variable, str(word)) for word in words]
    begin = STARTED.match("".join(f"{word}\n" for word in texts))
    if begin is None:
        raise ValueError(
            f"command starts {' '.join(map(str, words[:4]))}; the local search starts "
            f"crosswalk train only. {ADVICE}"
        )
    rest = texts[begin[0].count("\n") :]
    macros = [word for word in rest if word.startswith("${")]
    for macro in macros:
        if macro not in WRITTEN:
            raise ValueError(
                f"command: {macro} is not understood here; there are {', '.join(WRITTEN)}."
            )
    if len(macros) != 1:
        raise ValueError(f"command must hold ${{args_no_hyphens}} once. {ADVICE}")
    place = rest.index(macros[0])
    return TrialCommand(tuple(rest[:place]), WRITTEN[macros[0]], tuple(rest[place + 1 :]))


def _variable(found: re.Match[str]) -> str:
    """Return the value of an environment variable, or its name, as W&B's agent does."""
    return os.environ.get(found.group(1), found.group(1))


def with_overrides(contents: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a sweep file's contents with further fixed overrides at the end of its command.

    Example:
        >>> with_overrides({"command": ["crosswalk", "train", "${args}"]}, ["seed=2"])["command"]
        ['crosswalk', 'train', '${args}', 'seed=2']
    """
    return {**contents, "command": [*contents["command"], *overrides]}
