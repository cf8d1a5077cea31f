"""What the finished runs of a table gave: one entry per row and seed, and every query's values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosswalk.lab.pool import command_of, seconds_of
from crosswalk.lab.tables.kept import Run
from crosswalk.lab.tables.manifest import Row, metric_key, row_overrides
from crosswalk.lab.tables.plan import Plan, TableRun
from crosswalk.run.run_folder import RunFolder

INDEX = "sample_index"
Measures = Mapping[str, NDArray[Any]]
"""Per-query values by measure, all in the order of ``sample_index``, which is among them."""


@dataclass
class Collector:
    """Reads the finished runs of a table, each only once.

    Args:
        plan: The table.
    """

    plan: Plan
    _results: dict[tuple[str, str], Run] = field(default_factory=dict)
    _measures: dict[tuple[str, str], Measures] = field(default_factory=dict)

    def results(self) -> list[Run]:
        """Return an entry for every row with a run of its own and every finished seed."""
        return [
            self._result(folder, row, run.seed)
            for run, folder in self._finished()
            for row in run.rows
        ]

    def queries(self) -> dict[str, NDArray[Any]]:
        """Return every row's values per query as ``row|seed|measure``, float32.

        A row that is measured on the run of another one has values of its own. All arrays follow
        ``sample_index``, which is among them; NaN where a query was skipped, or where the data of
        a row do not have it.
        """
        found: dict[tuple[str, int], Measures] = {}
        for run, folder in self._finished():
            names = {row.name for row in run.rows}
            for row in self.plan.manifest.rows:
                if row.skipped is None and (row.run or row.name) in names:
                    found[row.name, run.seed] = self._measured(folder, row)
        return aligned(found)

    def headline(self, run: TableRun) -> str:
        """Return the first number of a finished run in percent, for a line of progress.

        Rows that were asked for and are views of it have theirs behind it.
        """
        folder, metric = self.plan.finished(run), self.plan.manifest.metrics[0]
        if folder is None:
            return ""
        results, found = folder.results(), []
        for row in (run.rows[0], *run.views):
            value = results.get(row.checkpoint, {}).get(metric_key(row, metric))
            name = f"{row.name}: " if row in run.views else f"test {metric} "
            found += [] if value is None else [f"{name}{100 * value:.2f}"]
        return "; ".join(found)

    def _finished(self) -> list[tuple[TableRun, RunFolder]]:
        folders = [(run, self.plan.finished(run)) for run in self.plan.runs]
        return [(run, folder) for run, folder in folders if folder is not None]

    def _result(self, folder: RunFolder, row: Row, seed: int) -> Run:
        key = (row.name, folder.name)
        if key not in self._results:
            overrides = row_overrides(self.plan.manifest, row, seed)
            self._results[key] = entry_of(folder, row.name, seed, overrides)
        return self._results[key]

    def _measured(self, folder: RunFolder, row: Row) -> Measures:
        key = (row.name, folder.name)
        if key not in self._measures:
            self._measures[key] = measures_of(folder, row)
        return self._measures[key]


def entry_of(folder: RunFolder, row: str, seed: int, overrides: Sequence[str]) -> Run:
    """Return what a finished run gave for a row, with all that it takes to repeat it.

    Without names of machines and places of files; ``config`` and ``code`` are digests of the
    resolved configuration and of the code that the numbers depend on, ``results`` are metrics as
    fractions by checkpoint, ``last_epoch`` has the last value of every ``train/`` metric.

    Args:
        folder: The run.
        row: Name of the row that it is read for.
        seed: Its seed.
        overrides: Of the run.
    """
    record = folder.record()
    return {
        "row": row,
        "seed": seed,
        "overrides": list(overrides),
        "command": command_of(overrides),
        "config": folder.name.split("-")[-2],
        "code": record["code"],
        "commit": record["commit"],
        "dirty": record.get("dirty"),
        "versions": record["versions"],
        "hardware": without(record["hardware"], "host"),
        "data": without(record.get("data"), "root", "notices"),
        "sessions": record["sessions"],
        "seconds": round(seconds_of(folder)),
        "results": folder.results(),
        "last_epoch": {
            name: value
            for line in folder.metrics()
            for name, value in line.items()
            if name.startswith("train/")
        },
    }


def without(content: Any, *keys: str) -> Any:  # noqa: ANN401
    """Return nested mappings without some keys, wherever they are.

    Example:
        >>> without({"source": {"root": "/datasets", "dataset": "toy"}}, "root")
        {'source': {'dataset': 'toy'}}
    """
    if not isinstance(content, Mapping):
        return content
    return {name: without(each, *keys) for name, each in content.items() if name not in keys}


def measures_of(folder: RunFolder, row: Row) -> Measures:
    """Return a row's values per test query, sorted by sample index.

    Args:
        folder: The finished run.
        row: The row: its checkpoint, and its view or else the first direction.

    Raises:
        ValueError: If the run has no such view.
    """
    from crosswalk.metrics.paired import measures_per_query

    stored = folder.queries("test", row.checkpoint)
    directions = [name for name in stored if not name.startswith("view/")]
    name = directions[0] if row.view is None else f"view/{row.view}"
    if name not in stored:
        views = [each.removeprefix("view/") for each in stored if each not in directions]
        raise ValueError(
            f"row '{row.name}': {folder.queries_file('test', row.checkpoint)} has no view "
            f"{row.view}; it has {', '.join(views) or 'none'}."
        )
    order = np.argsort(stored[name].sample_index, kind="stable")
    values = {key: array[order] for key, array in measures_per_query(stored[name]).items()}
    return {INDEX: stored[name].sample_index[order], **values}


def aligned(found: Mapping[tuple[str, int], Measures]) -> dict[str, NDArray[Any]]:
    """Return the values of all rows in one order of queries, float32, NaN where a row lacks one.

    Args:
        found: By row and seed the values per query.

    Example:
        >>> index, values = np.array([0, 2]), np.array([1.0, 0.5])
        >>> first = {"sample_index": index, "map": values}
        >>> second = {"sample_index": index + 1, "map": values}
        >>> for name, array in aligned({("A", 1): first, ("B", 7): second}).items():
        ...     print(name, array)
        sample_index [0 1 2 3]
        A|1|map [1.  nan 0.5 nan]
        B|7|map [nan 1.  nan 0.5]
    """
    if not found:
        return {}
    index = np.unique(np.concatenate([measures[INDEX] for measures in found.values()]))
    arrays: dict[str, NDArray[Any]] = {INDEX: index.astype(np.int64)}
    for (row, seed), measures in found.items():
        places = np.searchsorted(index, measures[INDEX])
        for name, values in measures.items():
            if name != INDEX:
                whole = np.full(len(index), np.nan, dtype=np.float32)
                whole[places] = values
                arrays[f"{row}|{seed}|{name}"] = whole
    return arrays
