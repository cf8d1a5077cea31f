from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from crosswalk.metrics.average_precision import (
    MatchPlaces,
    average_precision,
    check_extra_map,
    first_hit_bonus_precision,
    trapezoidal_precision,
)

FAR = np.iinfo(np.int64).max


def places(*queries: list[tuple[int, int, int]]) -> MatchPlaces:
    """Places of the matches (rank, number of better items, number of items not worse)."""
    most = max(map(len, queries))
    table = np.array([query + [(FAR, FAR, FAR)] * (most - len(query)) for query in queries])
    return MatchPlaces(*np.moveaxis(table, 2, 0), table[..., 0] < FAR)


def without_ties(*queries: list[int]) -> MatchPlaces:
    return places(*([(rank, rank - 1, rank) for rank in query] for query in queries))


def test_queries_with_other_numbers_of_matches_do_not_mix() -> None:
    found = without_ties([2, 4], [1], [1, 3, 7])

    usual = [(1 / 2 + 2 / 4) / 2, 1, (1 + 2 / 3 + 3 / 7) / 3]
    area = [
        (0 + 1 / 2 + 1 / 3 + 2 / 4) / 4,
        1,
        (1 + 1 + 1 / 2 + 2 / 3 + 2 / 6 + 3 / 7) / 6,
    ]
    bonus = [(1 + 1 / 2 + 1 / 3 + 2 / 4) / 4, *area[1:]]
    np.testing.assert_allclose(average_precision(found.rank, found.is_match), usual, rtol=1e-15)
    np.testing.assert_allclose(trapezoidal_precision(found), area, rtol=1e-15)
    np.testing.assert_allclose(first_hit_bonus_precision(found), bonus, rtol=1e-15)


def test_equal_items_enter_the_area_as_one_point() -> None:
    # Ranks 1 and 2 are equal and one of them is right; ranks 3 to 6 are equal, two are right.
    found = places([(2, 0, 2), (3, 2, 6), (5, 2, 6)])

    points = [(0, 1), (1 / 3, 1 / 2), (3 / 3, 3 / 6)]  # recall, precision
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
    np.testing.assert_allclose(trapezoidal_precision(found), [area], rtol=1e-15)


def test_a_list_of_matches_alone_is_perfect_by_any_definition() -> None:
    found = without_ties([1, 2, 3])

    for definition in (trapezoidal_precision, first_hit_bonus_precision):
        np.testing.assert_allclose(definition(found), [1.0], rtol=1e-15)


@pytest.mark.parametrize("names", ["trapezoidal", ["trapezoidal", "devkit"], 3])
def test_what_is_not_a_list_of_known_names_is_refused(names: object) -> None:
    with pytest.raises(ValueError, match=r"data\.extra_map=.*'first_hit_bonus', 'trapezoidal'"):
        check_extra_map(names)


def test_surplus_slots_do_not_move_the_last_digit() -> None:
    random = np.random.default_rng(0)
    rank = np.sort(random.permutation(900)[:21] + 1)[None]

    values = {
        float(
            average_precision(
                np.pad(rank, ((0, 0), (0, surplus)), constant_values=2**40),
                np.pad(np.ones((1, 21), np.bool_), ((0, 0), (0, surplus))),
            )[0]
        )
        for surplus in range(20)
    }

    assert len(values) == 1
