"""How far numbers of one setting spread over seeds, from few runs."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import mean, stdev
from typing import NamedTuple

from scipy.special import stdtrit


class Interval(NamedTuple):
    """Two ends, in the unit of the values."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Return whether the value lies inside, ends included."""
        return self.low <= value <= self.high


def prediction_interval(values: Sequence[float], *, confidence: float = 0.95) -> Interval | None:
    """Return where one more run would lie, None for fewer than two runs.

    A published number is one run, or chosen from a few; nobody says how far it spreads. If it is
    from the same setting, it lies here with this confidence: mean ± t(n - 1) · std · √(1 + 1/n),
    with Student's t, since the standard deviation is itself estimated from ``n`` runs.

    Args:
        values: One number per run.
        confidence: In (0, 1).

    Example:
        >>> low, high = prediction_interval([70.0, 71.0, 72.0])  # t(2) = 4.303
        >>> round(low, 2), round(high, 2)
        (66.03, 75.97)
        >>> prediction_interval([70.0]) is None
        True
    """
    return _interval(values, sqrt(1 + 1 / len(values)) if values else 0, confidence)


def mean_interval(values: Sequence[float], *, confidence: float = 0.95) -> Interval | None:
    """Return where the mean over very many runs lies, None for fewer than two runs.

    Example:
        >>> low, high = mean_interval([1.0, 2.0, 3.0])
        >>> round(low, 2), round(high, 2)
        (-0.48, 4.48)
    """
    return _interval(values, sqrt(1 / len(values)) if values else 0, confidence)


def _interval(values: Sequence[float], width: float, confidence: float) -> Interval | None:
    if len(values) < 2:
        return None
    quantile = float(stdtrit(len(values) - 1, (1 + confidence) / 2))
    half = quantile * stdev(values) * width
    return Interval(mean(values) - half, mean(values) + half)
