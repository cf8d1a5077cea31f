"""Results of a table: read from files, printed in the terminal, as JSON, Markdown and a page."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from crosswalk.lab.tables.kept_runs import Queries, Run
from crosswalk.lab.tables.metric_names import metric_label
from crosswalk.lab.tables.table_markdown import render_markdown as render_markdown
from crosswalk.lab.tables.table_page import render_html as render_html
from crosswalk.lab.tables.table_text import (
    conclusions,
    heading,
    main_metrics,
    obtained,
    other_code,
    percent,
    runs_of_row,
    source_line,
)
from crosswalk.lab.tables.verdict import Verdict


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
    queries = None
    if kept.is_file():
        with np.load(kept, allow_pickle=False) as arrays:
            queries = {name: arrays[name] for name in arrays}
    overrides = tuple(content.get("overrides", ()))
    return KeptResults(content["data"], overrides, tuple(runs), queries)


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """Return the verdict in what JSON knows, without the runs, which stand beside it."""
    plain: dict[str, Any] = _plain(verdict)
    del plain["runs"]
    for ordering, words in zip(plain["orderings"], verdict.orderings, strict=True):
        ordering["conclusion"] = words.conclusion
        for pair, each in zip(ordering["pairs"], words.pairs, strict=True):
            pair["outcome"] = each.outcome
    return plain


def render_terminal(verdict: Verdict, *, file: TextIO | None = None) -> None:
    """Print the table with its main metrics, readable from 100 columns on.

    Args:
        verdict: The table.
        file: Where to; standard output by default.
    """
    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        console.width = 100
    positions = [verdict.metrics.index(name) for name in main_metrics(verdict)]
    table = Table(
        title=Text(heading(verdict)), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1)
    )
    table.add_column("row", ratio=3)
    table.add_column("metric", no_wrap=True)
    for column in ("published", "obtained"):
        table.add_column(column, no_wrap=True, justify="right")
    if verdict.is_on_published_data:
        table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("runs", justify="right", no_wrap=True)
    table.add_column("verdict", ratio=2)
    for row in verdict.rows:
        cells = [row.cells[position] for position in positions]
        columns = [
            [metric_label(cell.metric) for cell in cells],
            [percent(cell.published) for cell in cells],
            [obtained(row, cell) for cell in cells],
        ]
        if verdict.is_on_published_data:
            columns.append([percent(cell.difference, sign=True) for cell in cells])
        texts = [Text("\n".join(column)) for column in columns]
        table.add_row(Text(row.name), *texts, runs_of_row(row), Text(row.verdict))
    console.print(table)
    lines = [source_line(verdict), *verdict.notes, *conclusions(verdict)]
    if others := other_code(verdict):
        lines.append(others)
    if verdict.references:
        numbers = "; ".join(
            f"{each.name} ({', '.join(percent(each.published[place]) for place in positions)})"
            for each in verdict.references
        )
        labels = ", ".join(metric_label(name) for name in main_metrics(verdict))
        lines.append(f"Other methods, as published; not run ({labels}): {numbers}.")
    lines += [f"Not offered: {each.name}: {each.reason}" for each in verdict.not_offered]
    for line in lines:
        console.print(Text(line))


def _plain(value: Any) -> Any:  # noqa: ANN401
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(each) for name, each in value._asdict().items()}
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value
