"""A table with its verdict in Markdown."""

from __future__ import annotations

from crosswalk.lab.tables.table_document import document
from crosswalk.lab.tables.table_text import Grid, heading
from crosswalk.lab.tables.verdict import Verdict


def render_markdown(verdict: Verdict) -> str:
    """Return the whole document in Markdown.

    It depends on manifest and results alone, not on the code that is installed, so that a
    committed file stays what its results render to.
    """
    lines = [f"# {heading(verdict)}", ""]
    for number, part in enumerate(document(verdict)):
        if number:
            lines += [f"## {part.title}", ""]
        for paragraph in part.paragraphs:
            lines += [paragraph, ""]
        for grid in part.grids:
            lines += [grid_in_markdown(grid), ""]
    return "\n".join(lines)


def grid_in_markdown(grid: Grid) -> str:
    r"""Return a table.

    Example:
        >>> print(grid_in_markdown(Grid(("row", "R@1"), (("a|b", "1.00"),), frozenset({1}))))
        | row | R@1 |
        |---|---:|
        | a\|b | 1.00 |
    """
    places = range(len(grid.header))
    rule = "".join("---:|" if place in grid.numbers else "---|" for place in places)
    rows = [
        [
            f"`{cell}`" if place in grid.code else cell.replace("|", r"\|")
            for place, cell in enumerate(row)
        ]
        for row in grid.rows
    ]
    head, *body = (f"| {' | '.join(row)} |" for row in (grid.header, *rows))
    return "\n".join([head, f"|{rule}", *body])
