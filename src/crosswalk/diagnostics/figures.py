"""Small figures of one style, each with a sentence that says what to look for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from crosswalk.pages import figure_tag

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, GREY = "#3c6ec8", "#e07b1a", "#2a9d50", "#8a4fbf", "#777777"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, "#8c4a2f")
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v")
MARKED = 15
"""Marks on a line, at most: lines differ by more than their colours."""
COUNTS = ("pairs", "clusters", "labels", "pairs of a batch")
"""Units whose axis starts at 0."""
PANEL = (3.6, 2.5)
"""Width and height of one panel, in inches."""


class Curves(NamedTuple):
    """Values of every epoch in one panel, as data.

    Attributes:
        title: Of the panel.
        unit: What the vertical axis counts; "share" runs from 0 to 1.
        lines: Name of a logged metric by what it is called in the legend.
        look_for: A sentence or two below the panel.
        styles: Colour and dash of each line, by the metric's name; None: one after another.
    """

    title: str
    unit: str
    lines: Mapping[str, str]
    look_for: str
    styles: Mapping[str, tuple[str, str]] | None = None


class Line(NamedTuple):
    """The values of one metric; epochs count from 1."""

    epochs: tuple[int, ...]
    values: tuple[float, ...]


def line_of(history: Iterable[Mapping[str, Any]], name: str) -> Line:
    """Return what was logged under ``name``, the last value of each epoch.

    Args:
        history: Lines of ``metrics.jsonl``.
        name: The metric.

    Example:
        >>> line_of([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": "nan"}], "loss")
        Line(epochs=(1, 2), values=(2.0, nan))
    """
    found = {
        int(line["epoch"]): float(line[name])
        for line in history
        if name in line and line.get("epoch") is not None
    }
    return Line(tuple(found), tuple(found.values()))


def panels(rows: int, columns: int) -> tuple[Figure, Sequence[Sequence[Axes]]]:
    """Return a figure of the reports' style and its axes by row and column."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for each in axes.flat:
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(labelsize=8)
        each.grid(axis="y", color="#dddddd", linewidth=0.6)
        each.set_axisbelow(True)
    return figure, axes.tolist()


def label(axes: Axes, *, title: str, across: str, up: str) -> None:
    """Name a panel and its axes."""
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlabel(across, fontsize=8)
    axes.set_ylabel(up, fontsize=8)


def legend_below(figure: Figure, axes: Axes) -> None:
    """Name what is drawn below the panel, where no line can run through the names."""
    handles, names = axes.get_legend_handles_labels()
    room = figure.get_figwidth() / (0.35 + 0.06 * max(map(len, names)))  # inches of each name
    columns = min(len(names), max(1, int(room)))
    figure.set_figheight(figure.get_figheight() + 0.17 * -(-len(names) // columns))
    figure.legend(
        handles,
        names,
        loc="outside lower left",
        ncols=columns,
        fontsize=7,
        frameon=False,
        handlelength=1.6,
        columnspacing=1.2,
    )


def curve_figures(history: Sequence[Mapping[str, Any]], wanted: Iterable[Curves]) -> list[Markup]:
    """Return a figure for each of ``wanted`` of which anything was logged.

    Example:
        >>> wanted = [Curves("Loss", "loss", {"train/loss": "all"}, "It should fall.")]
        >>> (figure,) = curve_figures([{"epoch": 1, "train/loss": 2.0}], wanted)
        >>> "It should fall." in figure
        True
        >>> curve_figures([{"epoch": 1}], wanted)
        []
    """
    figures = []
    for curves in wanted:
        lines = {name: line_of(history, name) for name in curves.lines}
        lines = {name: line for name, line in lines.items() if line.epochs}
        if lines:
            figures.append(_curve_figure(curves, lines))
    return figures


def captioned(figure: Figure, *, alt: str, look_for: str) -> Markup:
    """Return a figure with a sentence below it."""
    return Markup('<div>{}<p class="quiet">{}</p></div>').format(
        figure_tag(figure, alt=alt), look_for
    )


def side_by_side(figures: Iterable[Markup]) -> Markup:
    """Return figures as a grid that takes as many columns as there is room for."""
    return Markup('<div class="figures">{}</div>').format(Markup("\n").join(figures))


def _curve_figure(curves: Curves, lines: Mapping[str, Line]) -> Markup:
    from matplotlib.ticker import MaxNLocator

    figure, ((axes,),) = panels(1, 1)
    in_turn = {
        name: (COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)])
        for number, name in enumerate(curves.lines)
    }
    marks = dict(zip(curves.lines, cycle(MARKERS), strict=False))
    for name, line in lines.items():
        colour, dash = (curves.styles or in_turn)[name]
        axes.plot(
            line.epochs,
            line.values,
            color=colour,
            linestyle=dash,
            marker=marks[name],
            markevery=-(-len(line.epochs) // MARKED),
            markersize=3,
            linewidth=1.3,
            label=curves.lines[name],
        )
    if curves.unit == "share":
        axes.set_ylim(-0.02, 1.02)
    elif curves.unit in COUNTS:
        axes.set_ylim(bottom=0, top=1.05 * axes.dataLim.y1 or 1)
    epochs = [epoch for line in lines.values() for epoch in line.epochs]
    if min(epochs) == max(epochs):  # no axis around a single one has whole numbers
        axes.set_xticks(epochs[:1])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    label(axes, title=curves.title, across="epoch", up=curves.unit)
    if len(lines) > 1:
        legend_below(figure, axes)
    return captioned(figure, alt=f"{curves.title} by epoch", look_for=curves.look_for)
