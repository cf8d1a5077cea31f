"""Everything that a comparison of two sides shows, put together; and as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from crosswalk.lab.compare.compare import (
    Breakdown,
    Change,
    break_down,
    changes_between,
    mean_over_runs,
    most_changed,
)
from crosswalk.lab.compare.groups import query_groups
from crosswalk.lab.compare.runs import Side, run_facts
from crosswalk.metrics.paired import measures_per_query
from crosswalk.metrics.retrieval import QueryResults
from crosswalk.run.run_folder import differing_keys

NUM_LISTS = 6
"""Queries shown that got better, and as many that got worse."""


class ChangedQuery(NamedTuple):
    """A query whose average precision changed.

    Attributes:
        row: Its place in the per-query results.
        sample_index: Its sample index.
        person_id: Its person.
        first: Its average precision on side A, mean over runs.
        second: The same on side B.
        first_hits: Rank of the best match in the first run of side A, and of side B.
    """

    row: int
    sample_index: int
    person_id: int
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
        data: The data module, or None where the data cannot be read.
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
        data: The data module of a run; None where it cannot be made.
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
    better, worse = (
        [
            ChangedQuery(
                row,
                int(results.sample_index[row]),
                int(results.person_id[row]),
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
        "checkpoint": comparison.first.checkpoint,
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
