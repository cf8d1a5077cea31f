"""How long runs will take, from runs that were."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from crosswalk.lab.plan import Plan, PlannedRun
from crosswalk.lab.run_results import total_seconds
from crosswalk.run.run_folder import RunFolder

UNKNOWN = "no run of this method and data has ended yet"
OTHERS = 5
"""Runs of the same method and data that are looked at where a row itself never ran."""


@dataclass
class Estimates:
    """Seconds that runs take, by where that is known from.

    Args:
        plan: The table.
    """

    plan: Plan
    _committed: list[Mapping[str, Any]] = field(default_factory=list)
    _known: dict[str, tuple[float | None, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._committed = committed_runs(self.plan.manifest.committed_path)

    def seconds(self, run: PlannedRun) -> tuple[float | None, str]:
        """Return how long a run takes and where that is known from; None where it is not.

        The best source counts: finished runs of the row with any seed and code, the committed
        results of the table, other runs of the same method and data by their epochs.
        """
        name = run.rows[0].name
        if name not in self._known:
            self._known[name] = self._find(run)
        return self._known[name]

    def forget(self) -> None:
        """Look again: a run has ended."""
        self._known = {}

    def _find(self, run: PlannedRun) -> tuple[float | None, str]:
        pool = self.plan.pool
        same = [each for each in self.plan.runs if each.rows[0].name == run.rows[0].name]
        found = [folder for each in same for folder in pool.of_any_code(each.config)]
        if found:
            return mean(map(seconds_of, found)), "finished runs of the same rows"
        wanted = _without_seed(run.overrides)
        committed = [
            float(entry["seconds"]) if "seconds" in entry else total_seconds(entry["sessions"])
            for entry in self._committed
            if _without_seed(entry["overrides"]) == wanted
        ]
        if committed:
            return mean(committed), "the committed results of the table"
        others = [
            seconds_of(folder) / epochs_of(folder.config()) * epochs_of(run.config)
            for folder in pool.of_method_and_data(run.config)[:OTHERS]
        ]
        if others:
            return mean(others), "other runs of the same method and data"
        return None, UNKNOWN


def committed_runs(path: Path) -> list[Mapping[str, Any]]:
    """Return the runs in the committed results of a table, none where there is no such file.

    Example:
        >>> committed_runs(Path("experiments/nowhere.json"))
        []
    """
    if not path.exists():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    runs: list[Mapping[str, Any]] = content if isinstance(content, list) else content["runs"]
    return runs


def seconds_of(folder: RunFolder) -> float:
    """Return how long a run in a folder has run in all its sessions."""
    return total_seconds(folder.record()["sessions"], [line["time"] for line in folder.metrics()])


def epochs_of(config: Mapping[str, Any]) -> int:
    """Return how many epochs a run trains, at least 1: an evaluation takes time as well.

    Example:
        >>> epochs_of({"trainer": {"max_epochs": 0}}), epochs_of({"trainer": {"max_epochs": 60}})
        (1, 60)
    """
    return max(1, config["trainer"].get("max_epochs") or 1)


def in_words(seconds: float) -> str:
    """Return a duration as people say it.

    Example:
        >>> [in_words(seconds) for seconds in (40, 160, 7260, 180000)]
        ['40 s', '3 min', '2 h 1 min', '2 d 2 h']
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def total_in_words(runs: Iterable[PlannedRun], estimates: Estimates, at_a_time: int) -> str:
    """Return how long some runs take together, and where that is known from, as a sentence.

    Args:
        runs: Runs to make.
        estimates: Of each.
        at_a_time: Runs side by side.
    """
    known = [estimates.seconds(run) for run in runs]
    if not known:
        return "Nothing is left to run."
    seconds = [value for value, _ in known if value is not None]
    if not seconds:
        return f"How long that takes is not known yet: {UNKNOWN}."
    sources = " and ".join(dict.fromkeys(source for value, source in known if value is not None))
    if len(seconds) < len(known):
        seconds += [mean(seconds)] * (len(known) - len(seconds))
    longest = max(sum(seconds) / at_a_time, max(seconds))
    return f"That takes about {in_words(longest)}, {at_a_time} at a time (from {sources})."


def _without_seed(overrides: Iterable[str]) -> list[str]:
    return [each for each in overrides if not each.startswith("seed=")]
