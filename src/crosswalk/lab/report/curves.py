"""How a run went, epoch by epoch: losses, validation, whatever else it logged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from crosswalk.diagnostics.figures import Curves, Line, curve_figures, line_of, side_by_side
from crosswalk.pages import Section
from crosswalk.run.results import DIRECTIONS, MEASURES
from crosswalk.run.run_folder import PLACE

MOST_LINES = 8
"""Lines in one panel; further ones go to the next."""
VISIBLE = 20
"""A loss so many times smaller than another would lie flat on the axis of that one."""


def curves_section(
    history: Sequence[Mapping[str, Any]], shown: Callable[[str], bool] = lambda metric: False
) -> Section:
    """Return the curves of a run.

    Args:
        history: Lines of ``metrics.jsonl``.
        shown: Whether another section has the curve of a metric.

    Example:
        >>> section = curves_section([{"epoch": 1, "train/loss": 2.0, "val/rank1": 0.25}])
        >>> section.body.count("<svg"), curves_section([]).body
        (2, Markup('<p>Nothing was logged by epoch: this run did not train.</p>'))
    """
    figures = curve_figures(history, wanted_curves(history, shown))
    nothing = Markup("<p>Nothing was logged by epoch: this run did not train.</p>")
    return Section("curves", "Curves", side_by_side(figures) if figures else nothing)


def wanted_curves(
    history: Sequence[Mapping[str, Any]], shown: Callable[[str], bool] = lambda metric: False
) -> list[Curves]:
    """Return the panels that show everything a run logged by epoch and no other section has.

    Losses of about one size share a panel, and equal ones a line; validation has a panel for each
    split and direction, and each single view; learning rates have one; the rest is grouped into
    shares, in [0, 1], and other numbers.

    Example:
        >>> lines = [{"epoch": 1, "train/loss": 2.0, "train/loss_all": 1.0, "lr/base": 0.1}]
        >>> [panel.title for panel in wanted_curves(lines)]
        ['Training loss', 'Learning rate: lr/base']
    """
    by_epoch = [line for line in history if line.get("epoch") is not None]
    names = sorted({name for line in by_epoch for name in line} - set(PLACE))
    names = [name for name in names if not name.endswith("_step")]  # the epoch's mean is beside it
    names = [name for name in names if not shown(name)]
    losses = [name for name in names if name.startswith("train/loss")]
    rates = [name for name in names if name.startswith("lr")]
    rest = [name for name in names if name.startswith("train/") and name not in losses]
    curves = {name: line_of(by_epoch, name) for name in losses}
    shares = [name for name in rest if _is_share(by_epoch, name)]
    numbers = [name for name in rest if name not in shares]
    return [
        *_panels("Training loss", "loss", _of_one_size(curves), "Mean of an epoch."),
        *_validation(names),
        *_panels(
            "Learning rate", "learning rate", [_labels(rates)], "Of each group of parameters."
        ),
        *_panels("Other measures of training", "share", [_labels(shares)], "Mean of an epoch."),
        *_panels("Other numbers of training", "", [_labels(numbers)], "Mean of an epoch."),
    ]


def _validation(names: Sequence[str]) -> list[Curves]:
    found = []
    places = sorted({name.rpartition("/")[0] for name in names if not name.startswith("train/")})
    for place in places:
        split, _, part = place.partition("/")
        lines = {f"{place}/{measure}": text for measure, text in MEASURES.items()}
        if split not in ("val", "test") or not any(name in names for name in lines):
            continue
        what = f", {DIRECTIONS.get(part) or part.replace('view/', 'view ')}" if part else ""
        found.append(Curves(f"Retrieval on {split}{what}", "share", lines, "Higher is better."))
    return found


def _labels(names: Iterable[str]) -> dict[str, str]:
    return {name: name.removeprefix("train/") for name in names}


def _of_one_size(curves: Mapping[str, Line]) -> list[dict[str, str]]:
    """Return what each line is called, in panels whose lines are large enough to be seen.

    A line that is the same as an earlier one is named with that.
    """
    groups: list[dict[str, str]] = []
    largest = {name: max(map(abs, line.values), default=0.0) for name, line in curves.items()}
    for name in sorted(curves, key=lambda name: -largest[name]):
        same = [other for group in groups for other in group if curves[other] == curves[name]]
        if same:
            group = next(group for group in groups if same[0] in group)
            group[same[0]] += f" = {name.removeprefix('train/')}"
        elif groups and not 0 < largest[name] < largest[next(iter(groups[-1]))] / VISIBLE:
            groups[-1] |= _labels([name])
        else:
            groups.append(_labels([name]))
    return groups


def _panels(
    title: str, unit: str, groups: Sequence[Mapping[str, str]], look_for: str
) -> list[Curves]:
    found = []
    for group in groups:
        names = list(group)
        for start in range(0, len(names), MOST_LINES):
            found.append({name: group[name] for name in names[start : start + MOST_LINES]})
    titles = [
        f"{title} {number}" if len(found) > 1 else title for number in range(1, len(found) + 1)
    ]
    return [
        # a panel of one line has no legend
        Curves(
            f"{each}: {next(iter(lines.values()))}" if len(lines) == 1 else each,
            unit,
            lines,
            look_for,
        )
        for each, lines in zip(titles, found, strict=True)
    ]


def _is_share(lines: Sequence[Mapping[str, Any]], name: str) -> bool:
    return all(0 <= float(line[name]) <= 1 for line in lines if name in line)
