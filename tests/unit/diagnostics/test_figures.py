"""Small figures of one style."""

from __future__ import annotations

import re
from typing import Any

import pytest

from crosswalk.diagnostics import figures
from crosswalk.diagnostics.figures import Curves, curve_figures, legend_below, panels


@pytest.mark.parametrize("names", [["a", "b"], [f"loss_of_token_selection_{n}" for n in range(8)]])
def test_no_line_runs_through_a_legend(names: list[str]) -> None:
    figure, ((axes,),) = panels(1, 1)
    for number, name in enumerate(names):
        axes.plot([1, 2], [number, -number], label=name)

    legend_below(figure, axes)

    figure.draw_without_rendering()
    (legend,) = figure.legends
    box, panel = legend.get_window_extent(), axes.get_tightbbox()
    assert box.y1 <= panel.y0 + 1
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert axes.get_window_extent().height > 100  # the panel keeps its size


def test_a_run_of_one_epoch_has_an_axis_with_that_epoch() -> None:
    curves = Curves("Loss", "loss", {"train/loss": "all"}, "")

    (figure,) = curve_figures([{"epoch": 7, "train/loss": 2.0}], [curves])

    shown = re.findall(r">([\d.]+)</text>", figure)
    assert shown[0] == "7"
    assert sum(float(each) > 2.5 for each in shown) == 1  # the others are losses


@pytest.mark.parametrize("number", [3, 8])
@pytest.mark.parametrize("epochs", [2, 60])
def test_lines_differ_by_more_than_colour(
    number: int, epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"train/loss_{each}" for each in range(number)]
    history = [
        {"epoch": epoch, **{name: float(each) for each, name in enumerate(names)}}
        for epoch in range(1, epochs + 1)
    ]
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "figure_tag", lambda figure, alt: drawn.append(figure) or "")

    curve_figures(history, [Curves("Loss", "loss", dict(zip(names, names, strict=True)), "")])

    lines = drawn[0].axes[0].get_lines()
    looks = {(line.get_linestyle(), line.get_marker()) for line in lines}
    assert len(looks) == len(lines) == number
    assert all(1 < -(-epochs // line.get_markevery()) <= 15 for line in lines)
