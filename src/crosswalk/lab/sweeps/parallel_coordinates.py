"""A picture of a sweep: one vertical axis per parameter, one line per trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from crosswalk.lab.sweeps.parameters import Choice, Constant, Parameter, Value

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Trial(Protocol):
    """What is drawn of a trial."""

    @property
    def state(self) -> str:
        """Ended, or something else."""

    @property
    def value(self) -> float | None:
        """What is compared, as a fraction."""

    @property
    def values(self) -> dict[str, Value]:
        """Of the parameters."""


def position(parameter: Parameter, value: Value) -> float:
    """Return where a value lies on its axis, from 0 at the bottom to 1 at the top.

    Example:
        >>> from crosswalk.lab.sweeps.parameters import Range
        >>> position(Range(0.01, 1.0, log=True), 0.1)
        0.5
        >>> position(Choice((3, 5, 9)), 9)
        1.0
    """
    if isinstance(parameter, Choice):
        last = len(parameter.values) - 1
        return parameter.values.index(value) / last if last else 0.5
    if isinstance(parameter, Constant):
        return 0.5
    low, high, number = parameter.low, parameter.high, float(value)
    if parameter.log:
        low, high, number = math.log(low), math.log(high), math.log(max(number, low))
    return round((number - low) / (high - low), 9)


def ticks(parameter: Parameter) -> list[tuple[float, str]]:
    """Return positions and words along an axis.

    Example:
        >>> from crosswalk.lab.sweeps.parameters import Range
        >>> ticks(Range(0.001, 0.1, log=True))
        [(0.0, '0.001'), (0.5, '0.01'), (1.0, '0.1')]
    """
    if isinstance(parameter, Choice):
        return [(position(parameter, value), str(value)) for value in parameter.values]
    if isinstance(parameter, Constant):
        return [(0.5, str(parameter.value))]
    shares = (0.0, 0.5, 1.0)
    if parameter.log:
        low, high = math.log(parameter.low), math.log(parameter.high)
        return [(share, f"{math.exp(low + share * (high - low)):.3g}") for share in shares]
    low, high = parameter.low, parameter.high
    return [(share, f"{low + share * (high - low):.3g}") for share in shares]


def parallel_coordinates(
    parameters: Mapping[str, Parameter], trials: Sequence[Trial], metric: str
) -> Figure | None:
    """Return the picture; None while no trial has a value.

    Args:
        parameters: By name, in the order of their axes; constants have none.
        trials: Those without a value are left out; those that did not end are dashed.
        metric: Name of the value, on the last axis in percent.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    shown = [trial for trial in trials if trial.value is not None]
    if not shown:
        return None
    axes = {name: each for name, each in parameters.items() if not isinstance(each, Constant)}
    results = [100 * (trial.value or 0.0) for trial in shown]
    low, high = min(results), max(results)
    if low == high:
        low, high = low - 0.5, high + 0.5
    figure = Figure(figsize=(2.0 + 1.5 * len(axes), 4.2))
    panel = figure.add_subplot()
    colours = colormaps["viridis"]
    for trial, result in sorted(zip(shown, results, strict=True), key=lambda each: each[1]):
        share = (result - low) / (high - low)
        heights = [position(axes[name], trial.values[name]) for name in axes]
        ended = trial.state == "ended"
        panel.plot(
            [*heights, share],
            color=colours(share) if ended else "0.7",
            linewidth=1.6 if ended else 0.7,
            linestyle="-" if ended else "--",
            zorder=2 + share if ended else 1,
        )
    labels = [*(ticks(each) for each in axes.values())]
    labels.append([(share, f"{low + share * (high - low):.1f}") for share in (0.0, 0.5, 1.0)])
    for place, axis in enumerate(labels):
        panel.axvline(place, color="0.3", linewidth=0.8, zorder=0)
        for height, word in axis:
            panel.annotate(
                word,
                (place, height),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                zorder=9,
                bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "linewidth": 0},
            )
    # the last two parts of a name tell parameters apart
    names = [".\n".join(name.split(".")[-2:]) for name in axes]
    panel.set_xticks(range(len(labels)), [*names, f"{metric}\n(%)"], fontsize=8)
    panel.set_yticks([])
    panel.set_xlim(-0.15, len(labels) - 0.6)
    for side in ("top", "bottom", "left", "right"):
        panel.spines[side].set_visible(False)
    panel.tick_params(length=0)
    return figure
