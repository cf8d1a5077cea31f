"""Results that are kept: entries of runs, read back, and what they say of a table's rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from crosswalk.files import read_arrays
from crosswalk.lab.tables.manifest import Manifest, Row, metric_key, row_overrides

Run = Mapping[str, Any]
"""One entry of a table's results: a trained row and seed."""
Queries = Mapping[str, NDArray[Any]]
"""Per-query measures as fractions by ``"<row>|<seed>|<measure>"``."""


class KeptResults(NamedTuple):
    """What is kept of a table.

    Attributes:
        data: The data set of the runs; None in files that do not say so: the table's own.
        overrides: Of all rows, behind those that the table has.
        runs: One entry per trained row and seed.
        queries: Per-query measures as fractions by ``"<row>|<seed>|<measure>"``; None if they were
            not kept.
    """

    data: str | None
    overrides: tuple[str, ...]
    runs: tuple[Run, ...]
    queries: Queries | None


def read_results(path: Path) -> KeptResults:
    """Return what is kept in ``path`` and in the ``.queries.npz`` beside it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no results.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "table2.json"
        >>> _ = path.write_text('{"title": "T", "manifest": "rde/table2", "data": "d", "runs": []}')
        >>> read_results(path)
        KeptResults(data='d', overrides=(), runs=(), queries=None)
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: nothing of this table was kept. Run `crosswalk ablate` on its "
            "manifest; --save keeps the results beside it."
        )
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content, list):  # tables run before results said what data they are from
        content = {"data": None, "runs": content}
    runs = content.get("runs") if isinstance(content, dict) else None
    if not isinstance(runs, list):
        raise ValueError(f"{path} holds no list of runs; it was not written by `crosswalk ablate`.")
    kept = path.with_suffix(".queries.npz")
    queries = read_arrays(kept) if kept.is_file() else None
    overrides = tuple(content.get("overrides", ()))
    return KeptResults(content["data"], overrides, tuple(runs), queries)


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


def commit_of(run: Run) -> str:
    """Return the commit that a run was made at, in short.

    Example:
        >>> commit_of({"commit": "3b5fe8e0081f", "dirty": True}), commit_of({"commit": None})
        ('3b5fe8e with changes', 'unknown')
    """
    return (run.get("commit") or "unknown")[:7] + (" with changes" if run.get("dirty") else "")
