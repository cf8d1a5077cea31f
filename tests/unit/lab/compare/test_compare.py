from __future__ import annotations

import numpy as np
import pytest

from crosswalk.lab.compare.compare import (
    SMALL,
    break_down,
    changes_between,
    mean_over_runs,
    most_changed,
)
from crosswalk.lab.compare.groups import camera_groups, number_groups
from crosswalk.metrics.paired import paired_difference
from tests.unit.lab.hand_made_runs import FIRST, SECOND, caption_queries

A, B = (mean_over_runs([caption_queries(**side)]) for side in (FIRST, SECOND))


def test_every_measure_has_its_difference_and_its_numbers_of_queries() -> None:
    changes = {change.measure: change for change in changes_between(A, B)}

    # rank 1: 1 0 0 1 0 and 1 1 1 0 0; AP: 1 .5 .25 1 .5 and .75 1 1 .5 .5
    assert changes["rank1"].first == pytest.approx(2 / 5)
    assert changes["rank1"].second == pytest.approx(3 / 5)
    assert changes["rank1"].difference.mean == pytest.approx(1 / 5)
    assert [changes["rank1"][place] for place in (4, 5, 6)] == [2, 1, 2]
    assert changes["map"].first == pytest.approx(3.25 / 5)
    assert changes["map"].second == pytest.approx(3.75 / 5)
    assert changes["map"].difference.mean == pytest.approx(0.1)
    assert [changes["map"][place] for place in (4, 5, 6)] == [2, 2, 1]
    assert changes["rank5"].difference == (0, 0, 0, 0, 5)
    assert changes["minp"].difference.mean == pytest.approx(0.05)


def test_intervals_are_those_of_the_paired_bootstrap() -> None:
    for change in changes_between(A, B):
        assert change.difference == pytest.approx(
            paired_difference(A[change.measure], B[change.measure]), abs=1e-9
        )


def test_the_interval_of_two_queries_is_between_the_one_and_the_other() -> None:
    # draws of (0, 1): 0, 1/2 and 1 in shares 1/4, 1/2, 1/4
    (change,) = changes_between({"map": np.zeros(2)}, {"map": np.array([0.0, 1.0])})

    assert change.difference[:3] == (0.5, 0.0, 1.0)


def test_a_side_compared_with_itself_differs_by_nothing_at_all() -> None:
    for change in changes_between(A, A):
        assert change.difference == (0, 0, 0, 0, 5)
        assert (change.better, change.worse, change.equal) == (0, 0, 5)
    assert [rows.tolist() for rows in most_changed(A["map"], A["map"], number=3)] == [[], []]


def test_queries_without_a_match_count_nowhere() -> None:
    matches = [2, 0, 2, 1, 1]
    sides = [
        mean_over_runs(
            [
                caption_queries(
                    [0 if n == 1 else hit for n, hit in enumerate(side["first_hit"])],
                    [np.nan if n == 1 else ap for n, ap in enumerate(side["average_precision"])],
                    num_matches=matches,
                )
            ]
        )
        for side in (FIRST, SECOND)
    ]

    changes = {change.measure: change for change in changes_between(*sides)}

    assert changes["map"].difference.num_queries == 4
    assert changes["map"].first == pytest.approx(2.75 / 4)
    assert changes["map"].difference.mean == pytest.approx(0.0)
    assert [rows.tolist() for rows in most_changed(*(s["map"] for s in sides), number=9)] == [
        [2],
        [3, 0],
    ]


def test_no_change_is_found_among_no_queries() -> None:
    assert changes_between(A, B, members=np.zeros(5, dtype=bool)) == []


def test_several_runs_of_a_side_are_averaged_query_by_query() -> None:
    runs = [caption_queries(**FIRST), caption_queries(**SECOND), caption_queries(**SECOND)]

    means = mean_over_runs(runs)

    np.testing.assert_allclose(means["rank1"], [1, 2 / 3, 2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(means["map"], [2.5 / 3, 2.5 / 3, 2.25 / 3, 2 / 3, 0.5])


def test_the_order_of_runs_is_no_difference() -> None:
    generator = np.random.default_rng(0)
    runs = [
        caption_queries([1] * 5, generator.random(5).tolist(), num_matches=[3] * 5)
        for _ in range(7)
    ]
    sides = [mean_over_runs(order) for order in (runs, runs[::-1])]

    changes = {change.measure: change for change in changes_between(*sides)}

    assert (changes["map"].better, changes["map"].worse, changes["map"].equal) == (0, 0, 5)
    assert changes["map"].difference == (0, 0, 0, 0, 5)


def test_an_interval_that_ends_at_0_does_not_leave_it_out() -> None:
    # hits of three runs; sums of thirds that cancel leave 1e-17
    first = np.array([2, 1, 2, 3, 2, 2, 2]) / 3
    second = np.array([3, 3, 3, 2, 2, 3, 3]) / 3

    (change,) = changes_between({"rank1": first}, {"rank1": second})

    assert change.difference.mean == pytest.approx(5 / 21, abs=1e-9)
    assert change.difference.low == 0
    assert not change.difference.is_separated


def test_queries_that_changed_most_come_first_and_equal_ones_never() -> None:
    better, worse = most_changed(A["map"], B["map"], number=9)

    assert better.tolist() == [2, 1]  # + 0.75, + 0.5
    assert worse.tolist() == [3, 0]  # - 0.5, - 0.25


def test_of_queries_that_changed_alike_the_first_ones_are_taken() -> None:
    zeros, ones = np.zeros(5), np.ones(5)

    better, worse = most_changed(zeros, ones, number=3)

    assert (better.tolist(), worse.tolist()) == ([0, 1, 2], [])


def test_groups_have_the_differences_of_their_queries_alone() -> None:
    groups = {"two": np.arange(5) < 3, "one": np.arange(5) >= 3, "none": np.zeros(5, dtype=bool)}

    breakdown = break_down("number of matches", groups, A, B)

    assert [(group.name, group.num_queries) for group in breakdown.groups] == [
        ("two", 3),
        ("one", 2),
    ]
    two, one = ([change.difference.mean for change in group.changes] for group in breakdown.groups)
    assert two == pytest.approx([2 / 3, 1 / 3])  # R@1, mAP
    assert one == pytest.approx([-1 / 2, -1 / 4])


@pytest.mark.parametrize("number", [1, SMALL - 1, SMALL, 97])
def test_a_group_with_few_queries_is_called_small(number: int) -> None:
    flat = {"rank1": np.zeros(101), "map": np.zeros(101)}

    (group,) = break_down("place", {"first": np.arange(101) < number}, flat, flat, draws=7).groups

    assert group.num_queries == number
    assert group.is_small == (number < SMALL)


@pytest.mark.parametrize("number", [1, 3, 7, 97])
@pytest.mark.parametrize("largest", [1, 5, 40])
def test_every_query_is_in_one_group_whose_name_holds_its_count(number: int, largest: int) -> None:
    values = np.random.default_rng(number).integers(1, largest, size=number, endpoint=True)

    groups = number_groups(values, "word")

    assert sum(members.astype(int) for members in groups.values()).tolist() == [1] * number
    for name, members in groups.items():
        first, *rest = name.split()
        low, high = int(first), int(rest[1]) if rest[0] == "to" else int(first)
        assert values[members].min() == low
        assert values[members].max() == high
    assert len(groups) == (len(set(values.tolist())) if len(set(values.tolist())) <= 5 else 4)


def test_a_count_that_most_queries_have_is_not_divided() -> None:
    values = np.array([1, 2, 9, 9, 9, 9, 9, 9, 9, 10, 11, 12])

    groups = number_groups(values, "match")

    # quartiles 9, 9 and 9: one group up to 9, and the rest
    assert {name: int(members.sum()) for name, members in groups.items()} == {
        "1 to 9 matches": 9,
        "10 to 12 matches": 3,
    }


def test_queries_are_grouped_by_cameras_where_some_are_known() -> None:
    groups = camera_groups(np.array([3, -1, 1, 3]))

    assert {name: np.flatnonzero(members).tolist() for name, members in groups.items()} == {
        "camera unknown": [1],
        "camera 1": [2],
        "camera 3": [0, 3],
    }
    assert camera_groups(np.full(3, -1)) == {}
