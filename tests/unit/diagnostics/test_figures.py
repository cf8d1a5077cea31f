"""Small figures of one style."""

from __future__ import annotations

import re

import pytest

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
