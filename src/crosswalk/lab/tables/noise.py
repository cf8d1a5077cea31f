"""How far numbers depend on the seeds of the runs and on the queries of the test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from crosswalk.metrics.paired import Difference, bootstrap_means, paired_difference, summarize


class QueryNoise:
    """Paired bootstrap over test queries, with the same draws for all rows and metrics.

    Args:
        columns: ``[queries]`` percentages by row and metric, mean over seeds, NaN = skipped; all
            of the same queries in the same order.
        draws: Resamples.

    Raises:
        ValueError: If columns have different lengths.

    Example:
        >>> noise = QueryNoise({("A", "map"): np.array([10.0, 30.0]), ("B", "map"): np.zeros(2)})
        >>> noise.difference("map", better="A", worse="B").mean
        20.0
    """

    def __init__(
        self, columns: Mapping[tuple[str, str], NDArray[np.float64]], *, draws: int = 10_000
    ) -> None:
        lengths = {len(values) for values in columns.values()}
        if len(lengths) > 1:
            raise ValueError(
                f"rows were tested on different numbers of queries: {sorted(lengths)}. Run the "
                "rows again on the same data."
            )
        self.columns = columns
        self.draws = draws
        self.means: dict[tuple[str, str], NDArray[np.float64]] = {}
        alike: dict[bytes, list[tuple[str, str]]] = {}
        for name, values in columns.items():
            alike.setdefault(np.isnan(values).tobytes(), []).append(name)
        for names in alike.values():
            whole = np.stack([columns[name] for name in names], axis=1)
            ranked = whole[~np.isnan(whole[:, 0])]
            if len(ranked):
                means = bootstrap_means(ranked, draws=draws)
                self.means |= {name: means[:, place] for place, name in enumerate(names)}

    def difference(self, metric: str, *, better: str, worse: str) -> Difference | None:
        """Return what the first row is better by, in points, over the queries that both ranked.

        None if queries were not kept, or the two have none in common.
        """
        names = [(worse, metric), (better, metric)]
        if not all(name in self.means for name in names):
            return None
        first, second = (self.columns[name] for name in names)
        change = (second - first)[~np.isnan(second - first)]
        if len(change) == 0:
            return None
        if not np.array_equal(np.isnan(first), np.isnan(second)):
            return paired_difference(first, second, draws=self.draws)
        means = self.means[names[1]] - self.means[names[0]]
        return summarize(float(change.mean()), means, len(change))


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
