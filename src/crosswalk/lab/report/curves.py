"""How a run went, epoch by epoch: losses, validation, whatever else it logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from crosswalk.diagnostics.figures import Curves, curve_figures, side_by_side
from crosswalk.pages import Section
from crosswalk.run.results import DIRECTIONS, MEASURES
from crosswalk.run.run_folder import PLACE

MOST_LINES = 8
"""Lines in one panel; further ones go to the next."""


def curves_section(history: Sequence[Mapping[str, Any]]) -> Section:
    """Return the curves of a run.

    Args:
        history: Lines of ``metrics.jsonl``.

    Example:
        >>> section = curves_section([{"epoch": 1, "train/loss": 2.0, "val/rank1": 0.25}])
        >>> section.body.count("<svg"), curves_section([]).body
        (2, Markup('<p>Nothing was logged by epoch: this run did not train.</p>'))
    """
    figures = curve_figures(history, wanted_curves(history))
    nothing = Markup("<p>Nothing was logged by epoch: this run did not train.</p>")
    return Section("curves", "Curves", side_by_side(figures) if figures else nothing)


def wanted_curves(history: Sequence[Mapping[str, Any]]) -> list[Curves]:
    """Return the panels that show everything a run logged by epoch.

    Losses share a panel; validation has one for each split and direction, and each single view;
    learning rates have one; the rest is grouped into shares, in [0, 1], and other numbers.

    Example:
        >>> lines = [{"epoch": 1, "train/loss": 2.0, "train/loss_all": 1.0, "lr/base": 0.1}]
        >>> [panel.title for panel in wanted_curves(lines)]
        ['Training loss', 'Learning rate: lr/base']
    """
    by_epoch = [line for line in history if line.get("epoch") is not None]
    names = sorted({name for line in by_epoch for name in line} - set(PLACE))
    names = [name for name in names if not name.endswith("_step")]  # the epoch's mean is beside it
    losses = [name for name in names if name.startswith("train/loss")]
    rates = [name for name in names if name.startswith("lr")]
    rest = [name for name in names if name.startswith("train/") and name not in losses]
    shares = [name for name in rest if _is_share(by_epoch, name)]
    numbers = [name for name in rest if name not in shares]
    return [
        *_panels("Training loss", "loss", losses, "Mean of an epoch."),
        *_validation(names),
        *_panels("Learning rate", "learning rate", rates, "Of each group of parameters."),
        *_panels("Other measures of training", "share", shares, "Mean of an epoch."),
        *_panels("Other numbers of training", "", numbers, "Mean of an epoch."),
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


def _panels(title: str, unit: str, names: Sequence[str], look_for: str) -> list[Curves]:
    if len(names) == 1:  # such a panel has no legend
        title = f"{title}: {names[0].removeprefix('train/')}"
    starts = range(0, len(names), MOST_LINES)
    return [
        Curves(
            f"{title} {number}" if len(starts) > 1 else title,
            unit,
            {name: name.removeprefix("train/") for name in names[start : start + MOST_LINES]},
            look_for,
        )
        for number, start in enumerate(starts, 1)
    ]


def _is_share(lines: Sequence[Mapping[str, Any]], name: str) -> bool:
    return all(0 <= float(line[name]) <= 1 for line in lines if name in line)
