"""Two evaluations on the same queries, compared query by query."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosswalk.metrics.queries import RANKS, QueryResults

DECIMALS = 12
"""Digits behind the point that means of values in [0, 1] are good for."""

CHUNK = 2_000_000
"""Most numbers drawn at once; bounds the memory of a bootstrap to about 50 MB."""


class Difference(NamedTuple):
    """What one evaluation is better by than another, in the unit of the measure.

    Attributes:
        mean: Second minus first, mean over queries.
        low: Lower end of the bootstrap interval of the mean.
        high: Upper end.
        share_positive: Share of bootstrap draws in which the second is better, in [0, 1].
        num_queries: Queries that both evaluations ranked.
    """

    mean: float
    low: float
    high: float
    share_positive: float
    num_queries: int

    @property
    def is_separated(self) -> bool:
        """Whether the interval leaves out 0: the sign is not for these queries to doubt."""
        return self.low > 0 or self.high < 0


def measures_per_query(results: QueryResults) -> dict[str, NDArray[np.float64]]:
    """Return ``[queries]`` rank1, rank5, rank10, map and minp in [0, 1], NaN where skipped.

    The mean over queries that were not skipped is the measure of the evaluation.

    Example:
        >>> nothing = np.zeros(3, np.int64)
        >>> precision = np.array([1.0, 0.25, np.nan])
        >>> first_hit = np.array([1, 4, 0])
        >>> results = QueryResults(
        ...     nothing, nothing, first_hit, first_hit, precision, precision, *[nothing] * 3
        ... )
        >>> {name: values.tolist() for name, values in measures_per_query(results).items()}
        ... # doctest: +NORMALIZE_WHITESPACE
        {'rank1': [1.0, 0.0, nan], 'rank5': [1.0, 1.0, nan], 'rank10': [1.0, 1.0, nan],
         'map': [1.0, 0.25, nan], 'minp': [1.0, 0.25, nan]}
    """
    skipped = results.num_matches == 0
    measures = {f"rank{k}": (results.first_hit <= k).astype(np.float64) for k in RANKS}
    measures |= {"map": results.average_precision, "minp": results.inverse_negative_penalty}
    return {
        name: np.where(skipped, np.nan, values.astype(np.float64))
        for name, values in measures.items()
    }


def bootstrap_means(
    values: NDArray[np.float64], *, draws: int = 10_000, seed: int = 0
) -> NDArray[np.float64]:
    """Return ``[draws, columns]`` means of queries drawn with replacement.

    All columns share the queries of a draw, so differences of columns are paired.

    Args:
        values: ``[queries, columns]``, finite.
        draws: Resamples; >= 1.
        seed: Of the draws: equal seeds draw equal queries.

    Raises:
        ValueError: If there is no query or no draw.

    Example:
        >>> bootstrap_means(np.array([[0.5, 1.0], [0.5, 1.0]]), draws=2).tolist()
        [[0.5, 1.0], [0.5, 1.0]]
    """
    num_queries = len(values)
    if num_queries == 0 or draws < 1:
        raise ValueError(
            f"a bootstrap of {num_queries} queries with draws={draws} has no meaning; it needs a "
            "query that was ranked and a draw."
        )
    # a product with the counts sums all columns at once
    parts = [
        count @ values / num_queries for count in drawn_queries(num_queries, draws=draws, seed=seed)
    ]
    return np.concatenate(parts)


def drawn_queries(num_queries: int, *, draws: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield ``[some draws, queries]``: how often each query was drawn, with replacement.

    Args:
        num_queries: As many are drawn each time; >= 1.
        draws: Of all parts together.
        seed: Of the draws.

    Example:
        >>> [part.sum(axis=1).tolist() for part in drawn_queries(3, draws=2, seed=0)]
        [[3, 3]]
    """
    generator = np.random.default_rng(seed)
    step = max(1, CHUNK // num_queries)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        drawn = generator.integers(num_queries, size=(size, num_queries))
        drawn += num_queries * np.arange(size)[:, None]
        count = np.bincount(drawn.ravel(), minlength=size * num_queries)
        yield count.reshape(size, num_queries)


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    draws: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Difference:
    """Return second minus first with a percentile bootstrap interval over queries.

    Queries are drawn with replacement, each with both of its values: hard and easy queries are
    the same for both evaluations, so far smaller differences are seen than between two samples.
    The interval says how much the choice of test queries matters. It knows nothing of other
    seeds; of several runs, pass each query's mean over the runs.

    Args:
        first: ``[queries]`` one measure; NaN = query was skipped.
        second: ``[queries]`` the same of the other evaluation, in the same order. A query that
            either skipped is left out.
        draws: Resamples; >= 1.
        seed: Of the draws.
        confidence: Share of resamples inside the interval; in (0, 1).

    Raises:
        ValueError: If the two do not have one value per query, no query is left, or a number is
            out of its range.

    Example:
        >>> difference = paired_difference([0.0, 0.5, float("nan")], [0.5, 1.0, 1.0])
        >>> difference
        Difference(mean=0.5, low=0.5, high=0.5, share_positive=1.0, num_queries=2)
        >>> difference.is_separated
        True
    """
    pair = [np.asarray(values, dtype=np.float64) for values in (first, second)]
    if pair[0].shape != pair[1].shape or pair[0].ndim != 1:
        raise ValueError(
            f"paired values have shapes {pair[0].shape} and {pair[1].shape}; both need one value "
            "per query, of the same queries in the same order."
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: choose a share between 0 and 1, such as 0.95.")
    change = pair[1] - pair[0]
    change = change[~np.isnan(change)]
    if len(change) == 0:
        raise ValueError("no query was ranked by both evaluations; check that they share a split.")
    means = bootstrap_means(change[:, None], draws=draws, seed=seed)[:, 0]
    return summarize(float(change.mean()), means, len(change), confidence=confidence)


def summarize(
    mean: float, means: NDArray[np.float64], num_queries: int, *, confidence: float = 0.95
) -> Difference:
    """Return the difference whose bootstrap gave ``[draws]`` means.

    Example:
        >>> summarize(0.5, np.array([0.0, 0.5, 1.0]), 7, confidence=0.5)
        Difference(mean=0.5, low=0.25, high=0.75, share_positive=0.6666666666666666, num_queries=7)
    """
    # sums of thirds that are 0 come out as 1e-17, and would count as above 0
    means = means.round(DECIMALS)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Difference(mean, float(low), float(high), float((means > 0).mean()), num_queries)
