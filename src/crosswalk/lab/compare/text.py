"""The comparison in the terminal: tables as wide as it is, plain when they are piped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from crosswalk.config.keys import idle_keys
from crosswalk.lab.compare.compare import (
    BROKEN_DOWN,
    SMALL,
    Breakdown,
    Change,
    ChangedQuery,
    Comparison,
)
from crosswalk.lab.compare.runs import Side, run_facts
from crosswalk.lab.compare.words import (
    ABOUT_INTERVALS,
    ABOUT_LISTS,
    Row,
    row_of,
    sentences_on,
    title_of,
    verdict_on,
)
from crosswalk.run.ranking_lists import queries_and_gallery
from crosswalk.run.results import MEASURES
from crosswalk.terminal import console_for, show
from crosswalk.words import counted

WIDTH = 100
MOST_KEYS = 12
"""Configuration keys that are printed; the page has all of them."""
MOST_LETTERS = 44
"""Of a caption or the name of a file; the page has all of them."""


def print_comparison(comparison: Comparison, *, file: TextIO | None = None) -> None:
    """Print the comparison.

    Args:
        comparison: What to print.
        file: Where to; standard output by default.
    """
    console = console_for(file, width=WIDTH, highlight=False)
    for line in verdict_on(comparison):
        console.print(Text(line))
    console.print()
    for side in (comparison.first, comparison.second):
        _print_runs(console, side)
    _print_configuration(console, comparison)
    for note in [*comparison.notes, comparison.data_problem]:
        if note:
            console.print(Text(f"note: {note}"))
    for name, each in (comparison.directions | comparison.views).items():
        console.print()
        _print_table(console, _changes_table(title_of(name), each.changes))
        for sentence in sentences_on(each):
            console.print(Text(sentence))
        for breakdown in each.breakdowns:
            console.print()
            _print_table(console, _breakdown_table(title_of(name), breakdown))
    direction = comparison.first.directions[0]
    found = comparison.directions[direction]
    for title, queries in (("got better", found.better), ("got worse", found.worse)):
        if queries:
            console.print()
            table = _queries_table(f"Queries that {title}", comparison, direction, queries)
            _print_table(console, table)
    console.print()
    console.print(ABOUT_INTERVALS)


def _print_runs(console: Console, side: Side) -> None:
    for run in side.runs:
        facts = run_facts(run, side.checkpoint)
        details = f"seed {facts['seed']}, code {facts['code']}, commit {facts['commit']}"
        console.print(Text(f"{side.label}  {facts['run']}"))
        console.print(
            Text(f"   {side.split}, {side.checkpoint} (epoch {facts['epoch']}); {details}")
        )


def _print_configuration(console: Console, comparison: Comparison) -> None:
    differing = comparison.differing
    sides = [side.runs[0].config() for side in (comparison.first, comparison.second)]
    idle = idle_keys(*sides)
    if idle:
        shown = ", ".join(idle[:3]) + ", …" * (len(idle) > 3)
        change = "changes" if len(idle) == 1 else "change"
        also = f"{counted(len(idle), 'key')} that {change} no number: {shown}."
    if not differing:
        console.print(
            Text(f"The configurations are the same{f', but for {also}' if idle else '.'}")
        )
        return
    console.print(f"Configuration (A → B), {len(differing)} differing:")
    for key, change in list(differing.items())[:MOST_KEYS]:
        console.print(Text(f"  {key}: {change}"))
    if len(differing) > MOST_KEYS:
        console.print(f"  and {len(differing) - MOST_KEYS} more")
    if idle:
        console.print(Text(f"  and {also}"))


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
    return table


def _print_table(console: Console, table: Table) -> None:
    numbers = [place for place, column in enumerate(table.columns) if column.justify == "right"]
    show(table, console, numbers=numbers)


def _changes_table(title: str, changes: Sequence[Change]) -> Table:
    columns = ("", "A", "B", "B - A", "95 % interval", "better", "worse", "equal")
    table = _table(f"{title}, in percent", columns)
    for change in changes:
        table.add_row(*row_of(change))
    return table


def _breakdown_table(direction: str, breakdown: Breakdown) -> Table:
    columns = ["", "queries", *(f"{MEASURES[name]}: B - A" for name in BROKEN_DOWN)]
    table = _table(f"{direction}, by {breakdown.title}", columns)
    if any(group.is_small for group in breakdown.groups):
        table.caption = f"few: less than {SMALL} queries, so even the interval is uncertain"
    for group in breakdown.groups:
        rows: list[Row] = [row_of(change) for change in group.changes]
        table.add_row(
            f"{group.name} (few)" if group.is_small else group.name,
            f"{group.num_queries:,}",
            *(Text(f"{row.mean}  {row.interval}") for row in rows),
        )
    return table


def _queries_table(
    title: str, comparison: Comparison, direction: str, queries: Sequence[ChangedQuery]
) -> Table:
    table = Table(
        title=f"{title}, {title_of(direction)}",
        title_justify="left",
        caption=ABOUT_LISTS if comparison.has_several_runs else None,
        caption_justify="left",
    )
    for name in ("query", "person", "AP", "first hit"):
        table.add_column(name, justify="right")
    names: Sequence[str | Path] | None = None
    if comparison.data is not None:
        names, _ = queries_and_gallery(comparison.data, comparison.first.split, direction)
        table.add_column("caption or file")
    for query in queries:
        cells = [
            str(query.sample_index),
            str(query.person_id),
            f"{100 * query.first:.1f} → {100 * query.second:.1f}",
            f"{query.first_hits[0]} → {query.first_hits[1]}",
        ]
        if names is not None:
            shown = names[query.sample_index]
            cells.append(_cut(shown.name if isinstance(shown, Path) else shown))
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _cut(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1].rstrip()}…"
