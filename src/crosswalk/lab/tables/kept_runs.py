"""Entries of a table's results, and what they say of its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

from crosswalk.lab.tables.manifest import Manifest, Row, metric_key, row_overrides

Run = Mapping[str, Any]
"""One entry of a table's results: a trained row and seed."""
Queries = Mapping[str, NDArray[Any]]
"""Per-query measures as fractions by ``"<row>|<seed>|<measure>"``."""


def runs_of(manifest: Manifest, row: Row, results: Iterable[Run]) -> dict[int, Run]:
    """Return a row's entries by seed, in the order of seeds, without those of other overrides."""
    name = row.run or row.name
    entries = {
        run["seed"]: run
        for run in results
        if run["row"] == name
        and list(run["overrides"]) == row_overrides(manifest, row, run["seed"])
    }
    return dict(sorted(entries.items()))


def measured(run: Run, row: Row, metric: str, *, split: str = "test") -> float | None:
    """Return a row's number of a run in percent, None if that was not measured."""
    value = run["results"].get(row.checkpoint, {}).get(metric_key(row, metric, split))
    return None if value is None else 100 * float(value)


def code_of(run: Run) -> str:
    """Return the version of the code that made a run: its digest, or the commit of old runs.

    Example:
        >>> code_of({"commit": "3b5fe8e0081f", "code": None}), code_of({"code": "0123456789ab"})
        ('3b5fe8e', '0123456789ab')
    """
    return str(run.get("code") or (run.get("commit") or "unknown")[:7])
