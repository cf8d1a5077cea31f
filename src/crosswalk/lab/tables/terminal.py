"""A table with its verdict in the terminal, and as JSON."""

from __future__ import annotations

import os
from dataclasses import fields, is_dataclass
from typing import Any, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from crosswalk.lab.tables.manifest import metric_label
from crosswalk.lab.tables.verdict import Verdict
from crosswalk.lab.tables.words import (
    conclusions,
    heading,
    main_metrics,
    obtained,
    other_code,
    percent,
    runs_of_row,
    source_line,
)
from crosswalk.terminal import fit


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
    """Print the table with its main metrics.

    Args:
        verdict: The table.
        file: Where to; standard output by default.
    """
    console = Console(file=file, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 100
    positions = [verdict.metrics.index(name) for name in main_metrics(verdict)]
    table = Table(
        title=Text(heading(verdict)), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1)
    )
    numbers = ["published", "obtained", *(["difference"] * verdict.is_on_published_data), "runs"]
    for column in ("row", "metric", *numbers, "verdict"):
        table.add_column(column, justify="right" if column in numbers else "left")
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
    console.print(fit(table, console, numbers=range(1, 2 + len(numbers))))
    lines = [source_line(verdict), *verdict.notes, *conclusions(verdict)]
    if others := other_code(verdict):
        lines.append(others)
    if verdict.references:
        others = "; ".join(
            f"{each.name} ({', '.join(percent(each.published[place]) for place in positions)})"
            for each in verdict.references
        )
        labels = ", ".join(metric_label(name) for name in main_metrics(verdict))
        lines.append(f"Other methods, as published; not run ({labels}): {others}.")
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
