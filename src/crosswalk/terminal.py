"""Tables in a terminal: in a narrow one labels and frames give way, numbers are never cut."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

READABLE, LEAST = 8, 3
"""Letters that a label keeps on a line as long as there is room, and however little there is."""


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
