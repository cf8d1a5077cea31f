"""A table with its verdict as a page that needs no other file."""

from __future__ import annotations

from markupsafe import Markup

from crosswalk.lab.tables.document import document
from crosswalk.lab.tables.manifest import metric_label
from crosswalk.lab.tables.ordering import Ordering
from crosswalk.lab.tables.verdict import Verdict
from crosswalk.lab.tables.words import Grid, heading, other_code
from crosswalk.pages import Section, figure_tag, render, render_page


def render_html(verdict: Verdict) -> str:
    """Return the page; the order of the rows is also drawn where one was published."""
    sections = []
    for part in document(verdict):
        paragraphs = [Markup("<p>{}</p>").format(line) for line in part.paragraphs]
        if part.anchor == "table" and (line := other_code(verdict)):
            paragraphs.append(Markup("<p>{}</p>").format(line))
        if part.anchor == "order":
            paragraphs.append(_order_picture(verdict, verdict.orderings[0]))
        grids = [render("ablation_grid.html.j2", grid=_verdict_last(grid)) for grid in part.grids]
        body = Markup("\n").join([*paragraphs, *grids])
        sections.append(Section(part.anchor, part.title, body))
    return render_page(heading(verdict), sections, subtitle=verdict.table)


def _verdict_last(grid: Grid) -> Grid:
    """Return a table whose numbers come before its sentences: on a phone they are seen first."""
    order = sorted(range(len(grid.header)), key=lambda column: grid.header[column] == "verdict")
    return Grid(
        tuple(grid.header[column] for column in order),
        tuple(tuple(row[column] for column in order) for row in grid.rows),
        frozenset(order.index(column) for column in grid.numbers),
        frozenset(order.index(column) for column in grid.code),
    )


def _order_picture(verdict: Verdict, ordering: Ordering) -> Markup:
    """Return obtained over published numbers: a line that rises is an order that holds."""
    from matplotlib.figure import Figure

    cells = {row.name: row.cells[verdict.metrics.index(ordering.metric)] for row in verdict.rows}
    claimed = dict(zip(ordering.rows, ordering.claimed, strict=True))
    figure = Figure(figsize=(6.4, 0.6 + 0.42 * len(ordering.rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = sorted(ordering.rows, key=lambda name: claimed[name])
    places = range(len(names))
    left.plot([claimed[name] for name in names], places, "o", color="#777777")
    left.set_title("published")
    if ordering.claim == "order":
        left.set_title("place by the source")
        left.set_xticks([])
    left.set_yticks(list(places), names)
    right.errorbar(
        [cells[name].mean for name in names],
        list(places),
        xerr=[cells[name].std or 0 for name in names],
        fmt="o",
        color="#3c5ac8",
        capsize=3,
    )
    right.set_title(f"obtained, {metric_label(ordering.metric)} ± std")
    for axes in (left, right):
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure_tag(figure, alt="Published and obtained numbers of the rows, best on top")
