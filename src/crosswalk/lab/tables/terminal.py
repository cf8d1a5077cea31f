"""A table with its verdict in the terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TextIO

from rich.box import SIMPLE_HEAD
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from crosswalk.lab.tables.manifest import metric_label
from crosswalk.lab.tables.verdict import RowVerdict, Verdict
from crosswalk.lab.tables.words import (
    conclusions,
    heading,
    legend,
    main_metrics,
    obtained,
    other_code,
    percent,
    runs_of_row,
    source_line,
)
from crosswalk.terminal import console_for, fit, is_squeezed


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """Return the verdict in what JSON knows, without the runs, which stand beside it."""
    plain: dict[str, Any] = _plain(verdict)
    del plain["runs"]
    for ordering, words in zip(plain["orderings"], verdict.orderings, strict=True):
        ordering["conclusion"] = words.conclusion
        for pair, each in zip(ordering["pairs"], words.pairs, strict=True):
            pair["outcome"] = each.outcome
    return plain


def render_terminal(
    verdict: Verdict, *, only: Collection[str] = (), file: TextIO | None = None
) -> None:
    """Print the table with its main metrics, row below row where columns would be too narrow.

    Args:
        verdict: The table.
        only: Names of the rows to print; all if empty.
        file: Where to; standard output by default.
    """
    console = console_for(file, highlight=False)
    positions = [verdict.metrics.index(name) for name in main_metrics(verdict)]
    table = Table(
        title=Text(heading(verdict)), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1)
    )
    numbers = ["published", "obtained", *(["difference"] * verdict.is_on_published_data), "runs"]
    for column in ("row", "metric", *numbers, "verdict"):
        table.add_column(column, justify="right" if column in numbers else "left")
    shown = [row for row in verdict.rows if not only or row.name in only]
    for row in shown:
        columns = _columns(verdict, row, positions)
        texts = [Text("\n".join(column)) for column in columns.values()]
        table.add_row(Text(row.name), *texts, runs_of_row(row), Text(row.verdict))
    if is_squeezed(fit(table, console, numbers=range(1, 2 + len(numbers)))):
        console.print(Text(heading(verdict)))
        for row in shown:
            console.print(Text(row.name), Padding(_entries(verdict, row, positions), (0, 0, 0, 2)))
    else:
        console.print(table)
    lines = [source_line(verdict), *verdict.notes, *conclusions(verdict)]
    if said := legend([*lines, *(row.verdict for row in shown)]):
        lines.append(said)
    if len(shown) < len(verdict.rows):
        lines.append(
            "Rows that were not asked for are left out here, but verdicts and pairs count them; "
            "without --row all are printed."
        )
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


def _columns(
    verdict: Verdict, row: RowVerdict, positions: Sequence[int]
) -> Mapping[str, list[str]]:
    """Return what is said of each metric of a row, by column."""
    cells = [row.cells[position] for position in positions]
    columns = {
        "metric": [metric_label(cell.metric) for cell in cells],
        "published": [percent(cell.published) for cell in cells],
        "obtained": [obtained(row, cell) for cell in cells],
    }
    if verdict.is_on_published_data:
        columns["difference"] = [percent(cell.difference, sign=True) for cell in cells]
    return columns


def _entries(verdict: Verdict, row: RowVerdict, positions: Sequence[int]) -> Table:
    """Return what is said of a row, one below the other."""
    labels, *columns = _columns(verdict, row, positions).items()
    entries = Table.grid(padding=(0, 2))
    for place, label in enumerate(labels[1]):
        for name, texts in columns:
            entries.add_row(Text(f"{label} {name}"), Text(texts[place]))
    entries.add_row("runs", runs_of_row(row))
    entries.add_row("verdict", Text(row.verdict))
    return entries


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
