"""How far differences between rows depend on which queries the test set has."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

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
