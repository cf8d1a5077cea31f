"""Tables in a terminal: in a narrow one labels and frames give way, numbers are never cut."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from textwrap import wrap
from typing import Any, TextIO

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

READABLE, LEAST = 8, 3
"""Letters that a label keeps on a line as long as there is room, and however little there is."""

INTERVAL = re.compile(r"\[[^][,]+, [^][,]+\]$")

LINES = 6
"""Lines that a sentence may take in a cell; where one takes more, rows stand below each other."""


def console_for(file: TextIO | None, *, width: int = 100, **options: Any) -> Console:  # noqa: ANN401
    """Return what tables are printed to: of ``width`` where neither a terminal nor COLUMNS says.

    Args:
        file: Where they go; standard output by default.
        width: Columns of a file or a pipe.
        options: Of rich's `Console`.
    """
    console = Console(file=file, **options)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = width
    return console


def fit(table: Table, console: Console, *, numbers: Collection[int] = ()) -> Table:
    """Return the table, no wider than the console as far as its numbers allow that.

    Where that is enough the frame goes; else labels are broken, then the frame goes as well, then
    labels become very narrow.

    Args:
        table: Whole: columns get their widths.
        console: Where it will be shown.
        numbers: Columns that are broken last, and only at spaces.

    Example:
        >>> table = Table("the name", "share")
        >>> table.add_row("a long name", "98.76")
        >>> narrow = Console(width=20)
        >>> narrow.print(fit(table, narrow, numbers=[1]))
        the name    share
        ─────────────────
        a long name 98.76
    """
    steps = [_widths(column, kept=place in numbers) for place, column in enumerate(table.columns)]
    whole, readable, least = zip(*steps, strict=True)
    room = console.width - _beside(table, console, whole)
    if sum(whole) <= room:
        return table
    if table.box is not None:
        framed = table.box, table.show_edge, table.padding
        table.box, table.show_edge, table.padding = SIMPLE_HEAD, False, (0, 0)
        plain = console.width - _beside(table, console, whole)
        if sum(whole) <= plain:
            return table
        if sum(readable) > room:
            room = plain
        else:
            table.box, table.show_edge, table.padding = framed
    widths = _shrunk(_shrunk(whole, readable, room), least, room)
    for column, width in zip(table.columns, widths, strict=True):
        column.width, column.no_wrap, column.overflow = width, False, "fold"
    return table


def show(table: Table, console: Console, *, numbers: Collection[int] = ()) -> None:
    """Print a table: as `fit` gives it, or row below row where words and numbers would be broken.

    Args:
        table: As for `fit`.
        console: Where it is shown.
        numbers: As for `fit`.

    Example:
        >>> table = Table("split", "R@1", "mAP", title="Results")
        >>> table.add_row("test", "49.35", "52.03")
        >>> show(table, Console(width=14), numbers=[1, 2])
        Results
        split  test
          R@1  49.35
          mAP  52.03
    """
    if not is_squeezed(fit(table, console, numbers=numbers)):
        console.print(table)
        return
    if table.title:
        console.print(table.title)
    heads = [str(column.header) for column in table.columns]
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        entries = Table.grid(padding=(0, 2, 0, 0))
        for place, (head, cell) in enumerate(zip(heads, cells, strict=True)):
            entries.add_row(Text(f"{'  ' * (place > 0)}{head}"), cell)
        console.print(entries)
    if table.caption:
        console.print(table.caption)


def is_squeezed(table: Table) -> bool:
    """Return whether a word or an interval stands on two lines, or a sentence on more than `LINES`.

    Args:
        table: As `fit` returns it.
    """
    return any(
        column.width is not None
        and (
            any(column.width < cell_len(part) for line in lines for part in _whole_parts(line))
            or any(len(wrap(line, column.width)) > LINES for line in lines)
        )
        for column in table.columns
        for lines in (str(text).split("\n") for text in (column.header, *column.cells))
    )


def _whole_parts(line: str) -> list[str]:
    """Return what of a line stays together: its words, or all of it where it gives an interval."""
    return [line] if INTERVAL.search(line) else line.split()


def _widths(column: Column, *, kept: bool) -> tuple[int, int, int]:
    """Return the width of a column with nothing broken, with labels readable, and at least."""
    heads = _lines(column.header)
    cells = [line for cell in column.cells for line in _lines(cell)]
    is_aligned = any(len(_lines(cell)) > 1 for cell in column.cells)  # with lines beside it
    words = [word for line in [*heads, *cells] for word in line.split()]
    figures = [word for word in words if not any(letter.isalpha() for letter in word)]
    whole = _widest([*heads, *cells])
    figures_kept = _widest(cells if kept else figures)
    readable = max(figures_kept, min(READABLE, _widest(words)))
    least = _widest(cells) if kept and is_aligned else max(_widest(figures), LEAST)
    return whole, min(whole, readable), min(whole, least)


def _widest(texts: Sequence[str]) -> int:
    return max(map(cell_len, texts), default=0)


def _lines(cell: RenderableType) -> list[str]:
    text = Text.from_markup(cell) if isinstance(cell, str) else cell
    if isinstance(text, Text):
        return text.plain.splitlines()
    return ["#" * (getattr(cell, "width", None) or 0)]  # a bar is as wide as it says


def _beside(table: Table, console: Console, whole: Sequence[int]) -> int:
    """Return the width of what is no content: frame and padding."""
    unbounded = console.options.update(max_width=100_000)
    return Measurement.get(console, unbounded, table).maximum - sum(whole)


def _shrunk(widths: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Return widths of ``room`` together if ``least`` allows it, the widest made less first."""
    shrunk = list(widths)
    while sum(shrunk) > room:
        width, place = max(
            (width, place) if width > least[place] else (0, place)
            for place, width in enumerate(shrunk)
        )
        if width == 0:
            break
        shrunk[place] -= 1
    return shrunk
