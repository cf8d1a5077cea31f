"""Two sides of a comparison, query by query: differences, who gained and lost, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crosswalk.metrics.paired import Difference, bootstrap_means, measures_per_query, summarize
from crosswalk.metrics.retrieval import QueryResults

Measures = Mapping[str, NDArray[np.float64]]
"""By name ``[queries]`` in [0, 1], NaN where a query has no match."""

BROKEN_DOWN = ("rank1", "map")
"""Measures that are shown for each group of queries."""

DECIMALS = 9
"""Of a change that mean something; what is behind them comes from the order of additions."""

SMALL = 30
"""A group with fewer queries is said to be small: its interval is itself uncertain."""


class Change(NamedTuple):
    """One measure on both sides, in one direction and over one group of queries.

    Attributes:
        measure: Its name, of `measures_per_query`.
        first: Mean over queries of side A, as a fraction.
        second: The same of side B.
        difference: B minus A with its interval.
        better: Queries of which B has the higher value.
        worse: Queries of which A has the higher value.
        equal: Queries of which both have the same.
    """

    measure: str
    first: float
    second: float
    difference: Difference
    better: int
    worse: int
    equal: int


class Group(NamedTuple):
    """Queries that have something in common, and what changed for them.

    Attributes:
        name: What they have in common.
        changes: Of each of `BROKEN_DOWN`.
    """

    name: str
    changes: Sequence[Change]

    @property
    def num_queries(self) -> int:
        """Queries of the group that were ranked."""
        return self.changes[0].difference.num_queries

    @property
    def is_small(self) -> bool:
        """Whether the group has too few queries to say much."""
        return self.num_queries < SMALL


class Breakdown(NamedTuple):
    """The queries of one direction, divided into groups."""

    title: str
    groups: Sequence[Group]


def mean_over_runs(runs: Sequence[QueryResults]) -> dict[str, NDArray[np.float64]]:
    """Return ``[queries]`` each measure of every query, mean over runs of one side.

    Example:
        >>> zero = np.zeros(1, np.int64)
        >>> def run(first_hit, precision):
        ...     return QueryResults(zero, zero, zero + 1, zero + first_hit, *[zero + precision] * 5)
        >>> means = mean_over_runs([run(1, 1.0), run(3, 0.5)])
        >>> {name: values.tolist() for name, values in means.items()}
        {'rank1': [0.5], 'rank5': [1.0], 'rank10': [1.0], 'map': [0.75], 'minp': [0.75]}
    """
    measures = [measures_per_query(run) for run in runs]
    return {name: np.mean([each[name] for each in measures], axis=0) for name in measures[0]}


def changes_between(
    first: Measures,
    second: Measures,
    *,
    members: NDArray[np.bool_] | None = None,
    draws: int = 10_000,
) -> list[Change]:
    """Return what changed from the first to the second side, measure by measure.

    All measures share the bootstrap's draws of queries; each interval is that of
    `crosswalk.metrics.paired.paired_difference`.

    Args:
        first: Side A; queries in the same order as in ``second``, the same ones without a match.
        second: Side B.
        members: ``[queries]`` the queries to look at; None: all.
        draws: Resamples of the bootstrap.

    Returns:
        One change per measure; none if no member has a match.

    Example:
        >>> before = {"map": np.array([0.5, 0.5, 0.25])}
        >>> after = {"map": np.array([1.0, 0.5, 0.0])}
        >>> (change,) = changes_between(before, after, draws=100)
        >>> change.better, change.worse, change.equal, round(change.difference.mean, 4)
        (1, 1, 1, 0.0833)
    """
    names = list(first)
    left, right = (np.stack([side[name] for name in names], axis=1) for side in (first, second))
    kept = ~np.isnan(left[:, 0])
    if members is not None:
        kept &= members
    left, right = left[kept], right[kept]
    if len(left) == 0:
        return []
    # an end of an interval that is 0 must not be taken for one beyond 0
    change = np.round(right - left, DECIMALS) + 0.0
    means = np.round(bootstrap_means(change, draws=draws), DECIMALS) + 0.0  # + 0.0: no -0.0
    return [
        Change(
            name,
            float(left[:, column].mean()),
            float(right[:, column].mean()),
            summarize(
                round(float(change[:, column].mean()), DECIMALS), means[:, column], len(change)
            ),
            better=int((change[:, column] > 0).sum()),
            worse=int((change[:, column] < 0).sum()),
            equal=int((change[:, column] == 0).sum()),
        )
        for column, name in enumerate(names)
    ]


def most_changed(
    first: NDArray[np.float64], second: NDArray[np.float64], *, number: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which queries gained most, and which lost most; of equals the earlier one first.

    Args:
        first: ``[queries]`` average precision of side A; NaN = no match.
        second: The same of side B.
        number: Most queries of each kind; those that did not change are none of them.

    Example:
        >>> precision = np.array([0.5, 0.5, 0.5, np.nan])
        >>> better, worse = most_changed(precision, np.array([0.75, 0.25, 1, np.nan]), number=3)
        >>> better.tolist(), worse.tolist()
        ([2, 0], [1])
    """
    change = np.round(np.nan_to_num(second - first), DECIMALS)
    gained = np.argsort(-change, kind="stable")[:number]
    lost = np.argsort(change, kind="stable")[:number]
    return gained[change[gained] > 0], lost[change[lost] < 0]


def break_down(
    title: str,
    groups: Mapping[str, NDArray[np.bool_]],
    first: Measures,
    second: Measures,
    *,
    draws: int = 10_000,
) -> Breakdown:
    """Return the changes of `BROKEN_DOWN` in each group that has a query with a match.

    Args:
        title: What the queries are divided by.
        groups: ``[queries]`` members by the group's name.
        first: As for `changes_between`.
        second: Likewise.
        draws: Likewise.

    Example:
        >>> flat = {"rank1": np.zeros(3), "map": np.full(3, 0.5)}
        >>> up = {"rank1": np.ones(3), "map": np.ones(3)}
        >>> odd = np.array([False, True, False])
        >>> parts = break_down("place", {"even": ~odd, "odd": odd, "no": odd & ~odd}, flat, up)
        >>> [(group.name, group.num_queries, group.is_small) for group in parts.groups]
        [('even', 2, True), ('odd', 1, True)]
    """
    sides = [{name: side[name] for name in BROKEN_DOWN} for side in (first, second)]
    found = (
        (name, changes_between(*sides, members=members, draws=draws))
        for name, members in groups.items()
    )
    return Breakdown(title, [Group(name, changes) for name, changes in found if changes])
