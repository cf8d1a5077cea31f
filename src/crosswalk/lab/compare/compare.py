"""Two sides of a comparison, query by query: differences, who gained and lost, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crosswalk.config.keys import differing_keys
from crosswalk.lab.compare.groups import query_groups
from crosswalk.lab.compare.runs import Side, checkpoints_of, run_facts
from crosswalk.metrics.paired import Difference, bootstrap_means, measures_per_query, summarize
from crosswalk.metrics.queries import QueryResults
from crosswalk.run.ranking_lists import people_of

Measures = Mapping[str, NDArray[np.float64]]
"""By name ``[queries]`` in [0, 1], NaN where a query has no match."""

BROKEN_DOWN = ("rank1", "map")
"""Measures that are shown for each group of queries."""

DECIMALS = 9
"""Of a change that mean something; what is behind them comes from the order of additions."""

SMALL = 30
"""A group with fewer queries is said to be small: its interval is itself uncertain."""


NUM_LISTS = 6
"""Queries shown that got better, and as many that got worse."""


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


class ChangedQuery(NamedTuple):
    """A query whose average precision changed.

    Attributes:
        row: Its place in the per-query results.
        sample_index: Its sample index.
        person_id: Its person, as the data call it.
        first: Its average precision on side A, mean over runs.
        second: The same on side B.
        first_hits: Rank of the best match in the first run of side A, and of side B.
    """

    row: int
    sample_index: int
    person_id: int | str
    first: float
    second: float
    first_hits: tuple[int, int]


@dataclass(frozen=True)
class DirectionComparison:
    """One retrieval direction, or one view of the first one.

    Attributes:
        changes: Of every measure, over all queries.
        breakdowns: Of groups of queries; none of views.
        better: The queries that gained most, those with the largest gain first.
        worse: The queries that lost most.
        num_skipped: Queries without a match in the gallery, which count nowhere.
        by_run: The measures of each run of side A, and of side B, as fractions.
    """

    changes: Sequence[Change]
    breakdowns: Sequence[Breakdown]
    better: Sequence[ChangedQuery]
    worse: Sequence[ChangedQuery]
    num_skipped: int
    by_run: tuple[list[dict[str, float]], list[dict[str, float]]]


@dataclass(frozen=True)
class Comparison:
    """Two sides and how they differ.

    Attributes:
        first: Side A.
        second: Side B.
        differing: "A → B" of every configuration key that differs between the first runs.
        notes: What a reader should know, whole sentences.
        directions: By the direction's name.
        views: By the view's name, ``view/<view>``.
        data: The data of a run, or None where they cannot be read.
        data_problem: Why not.
    """

    first: Side
    second: Side
    differing: dict[str, str]
    notes: Sequence[str]
    directions: dict[str, DirectionComparison]
    views: dict[str, DirectionComparison]
    data: Any | None
    data_problem: str

    @property
    def has_several_runs(self) -> bool:
        """Whether a side is more than one run."""
        return len(self.first.runs) + len(self.second.runs) > 2


def compare_sides(
    first: Side,
    second: Side,
    *,
    notes: Sequence[str],
    data: Any | None,  # noqa: ANN401
    data_problem: str = "",
    draws: int = 10_000,
) -> Comparison:
    """Return how the second side differs from the first.

    Args:
        first: Side A.
        second: Side B, which answers the same queries.
        notes: What `crosswalk.lab.compare.runs.check_comparable` found.
        data: The data of a run; None where they cannot be read.
        data_problem: Why it cannot.
        draws: Resamples of the bootstrap.

    Raises:
        ValueError: If no query has a match.
    """
    shared_views = [view for view in first.views if view in second.views]
    differing = {
        key: change
        for key, change in differing_keys(second.runs[0].config(), first.runs[0].config()).items()
        if not key.startswith(("logger", "choices.logger"))  # who hears of a run changes no number
    }
    return Comparison(
        first,
        second,
        differing,
        list(notes),
        {name: _compare(name, first, second, data, draws) for name in first.directions},
        {name: _compare(name, first, second, data, draws) for name in shared_views},
        data,
        data_problem,
    )


def _compare(
    name: str,
    first: Side,
    second: Side,
    data: Any | None,  # noqa: ANN401
    draws: int,
) -> DirectionComparison:
    left, right = (mean_over_runs(side.of(name)) for side in (first, second))
    changes = changes_between(left, right, draws=draws)
    if not changes:
        raise ValueError(
            f"no query of {first.runs[0].path} has a match in the gallery ({name}), so there is "
            "nothing to compare."
        )
    results, others = first.of(name)[0], second.of(name)[0]
    num_skipped = int((results.num_matches == 0).sum())
    by_run = _by_run(first.of(name)), _by_run(second.of(name))
    if name in first.views:
        return DirectionComparison(changes, [], [], [], num_skipped, by_run)
    groups = query_groups(results, name, data=data, split=first.split)
    people = people_of(data)
    better, worse = (
        [
            ChangedQuery(
                row,
                int(results.sample_index[row]),
                people.get(int(results.person_id[row]), int(results.person_id[row])),
                float(left["map"][row]),
                float(right["map"][row]),
                (int(results.first_hit[row]), int(others.first_hit[row])),
            )
            for row in rows.tolist()
        ]
        for rows in most_changed(left["map"], right["map"], number=NUM_LISTS)
    )
    breakdowns = [
        break_down(title, members, left, right, draws=draws) for title, members in groups.items()
    ]
    return DirectionComparison(changes, breakdowns, better, worse, num_skipped, by_run)


def _by_run(runs: Sequence[QueryResults]) -> list[dict[str, float]]:
    return [
        {name: float(np.nanmean(values)) for name, values in measures_per_query(run).items()}
        for run in runs
    ]


def plain(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as values that JSON holds; measures as fractions."""
    sides = {"A": comparison.first, "B": comparison.second}
    return {
        "split": comparison.first.split,
        "checkpoint": checkpoints_of(comparison.first, comparison.second),
        **{
            label: [run_facts(run, side.checkpoint) for run in side.runs]
            for label, side in sides.items()
        },
        "configuration": comparison.differing,
        "notes": list(comparison.notes),
        "data_problem": comparison.data_problem or None,
        "directions": {name: _plain(each) for name, each in comparison.directions.items()},
        "views": {name: _plain_changes(each.changes) for name, each in comparison.views.items()},
    }


def _plain(direction: DirectionComparison) -> dict[str, Any]:
    return {
        "measures": _plain_changes(direction.changes),
        "breakdowns": {
            breakdown.title: {
                group.name: {
                    "queries": group.num_queries,
                    "small": group.is_small,
                    **_plain_changes(group.changes),
                }
                for group in breakdown.groups
            }
            for breakdown in direction.breakdowns
        },
        "better": [_plain_query(query) for query in direction.better],
        "worse": [_plain_query(query) for query in direction.worse],
        "queries_without_match": direction.num_skipped,
        "runs": dict(zip("AB", direction.by_run, strict=True)),
    }


def _plain_changes(changes: Sequence[Change]) -> dict[str, Any]:
    return {
        change.measure: {
            "A": change.first,
            "B": change.second,
            "difference": change.difference.mean,
            "interval": [change.difference.low, change.difference.high],
            "queries": change.difference.num_queries,
            "better": change.better,
            "worse": change.worse,
            "equal": change.equal,
        }
        for change in changes
    }


def _plain_query(query: ChangedQuery) -> dict[str, Any]:
    return {
        "sample_index": query.sample_index,
        "person_id": query.person_id,
        "average_precision": {"A": query.first, "B": query.second},
        "rank_of_first_hit": dict(zip("AB", query.first_hits, strict=True)),
    }


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
