"""The ``command`` of a W&B sweep file: the words before, and how the parameters are written."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crosswalk.lab.sweeps.parameters import Value

WRITTEN = {
    "${args_no_hyphens}": "",
    "${args}": "--",
    "${args_append_hydra}": "+",
    "${args_override_hydra}": "++",
}
"""How W&B's agent writes ``key=value`` for each of its macros."""

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
    if texts[0] == "${env}":
        texts = texts[1:]
    for start in (["${interpreter}", "-m", "crosswalk", "train"], ["crosswalk", "train"]):
        if texts[: len(start)] == start:
            rest = texts[len(start) :]
            break
    else:
        raise ValueError(
            f"command starts {' '.join(texts[:4])}; the local search starts crosswalk train only. "
            f"{ADVICE}"
        )
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
