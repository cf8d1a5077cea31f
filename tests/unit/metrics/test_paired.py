"""Differences query by query, against explicit loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from crosswalk.metrics import paired
from crosswalk.metrics.paired import bootstrap_means, measures_per_query, paired_difference
from crosswalk.metrics.queries import QueryResults


def query_results(
    first_hit: list[int], precision: list[float], penalty: list[float]
) -> QueryResults:
    nothing = np.zeros(len(first_hit), np.int64)
    hits = np.array(first_hit)
    return QueryResults(
        *(np.arange(len(first_hit)), nothing, hits, hits),
        *(np.array(precision), np.array(penalty), nothing, nothing, nothing),
    )


def test_measures_of_a_query_follow_its_first_hit_and_its_precision() -> None:
    results = query_results([1, 5, 6, 11], [1.0, 0.2, 0.15, 0.1], [0.5, 0.2, 0.1, 0.05])

    measures = measures_per_query(results)

    assert measures["rank1"].tolist() == [1, 0, 0, 0]
    assert measures["rank5"].tolist() == [1, 1, 0, 0]
    assert measures["rank10"].tolist() == [1, 1, 1, 0]
    assert measures["map"].tolist() == [1.0, 0.2, 0.15, 0.1]
    assert measures["minp"].tolist() == [0.5, 0.2, 0.1, 0.05]


def test_a_skipped_query_has_no_measure() -> None:
    measures = measures_per_query(query_results([0, 1], [math.nan, 1.0], [math.nan, 1.0]))

    for values in measures.values():
        assert np.isnan(values).tolist() == [True, False]


@pytest.mark.parametrize(("num_queries", "draws", "chunk"), [(1, 3, 10), (7, 40, 20), (3, 41, 2)])
def test_bootstrap_matches_a_loop_with_the_same_draws(
    monkeypatch: pytest.MonkeyPatch, num_queries: int, draws: int, chunk: int
) -> None:
    monkeypatch.setattr(paired, "CHUNK", chunk)
    generator = np.random.default_rng(5)
    first, second = generator.random((2, num_queries))

    difference = paired_difference(first, second, draws=draws, seed=3, confidence=0.9)

    generator = np.random.default_rng(3)
    means = []
    for _ in range(draws):
        total = 0.0
        for query in generator.integers(num_queries, size=num_queries).tolist():
            total += second[query] - first[query]
        means.append(total / num_queries)
    assert difference.mean == pytest.approx(sum(second - first) / num_queries, abs=1e-12)
    assert difference.low == pytest.approx(np.quantile(means, 0.05), abs=1e-12)
    assert difference.high == pytest.approx(np.quantile(means, 0.95), abs=1e-12)
    assert difference.share_positive == sum(mean > 0 for mean in means) / draws
    assert difference.num_queries == num_queries


def test_a_query_that_either_skipped_is_left_out() -> None:
    first = [math.nan, 0.0, 0.25, 1.0]
    second = [1.0, math.nan, 0.75, 0.5]

    difference = paired_difference(first, second, draws=50)

    assert difference.num_queries == 2
    assert difference.mean == 0.0
    assert difference == paired_difference([0.25, 1.0], [0.75, 0.5], draws=50)


def test_columns_share_the_queries_of_a_draw() -> None:
    values = np.random.default_rng(0).random((5, 3))

    together = bootstrap_means(values, draws=20, seed=1)

    for column in range(3):
        alone = bootstrap_means(values[:, [column]], draws=20, seed=1)
        np.testing.assert_allclose(together[:, [column]], alone, atol=1e-12)


def test_a_constant_gain_is_separated_and_a_balanced_change_is_not() -> None:
    gain = paired_difference(np.zeros(9), np.full(9, 0.125), draws=100)
    balanced = paired_difference(np.zeros(8), np.tile([1.0, -1.0], 4), draws=100)

    assert (gain.low, gain.high, gain.share_positive) == (0.125, 0.125, 1.0)
    assert gain.is_separated
    assert not balanced.is_separated


def test_values_that_are_not_of_the_same_queries_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\)"):
        paired_difference([1, 2, 3], [1, 2])


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="no query was ranked by both"):
        paired_difference([math.nan, 1.0], [1.0, math.nan])
    with pytest.raises(ValueError, match="draws=0"):
        paired_difference([1.0], [1.0], draws=0)
    with pytest.raises(ValueError, match="confidence=1"):
        paired_difference([1.0], [1.0], confidence=1)


def test_means_that_are_zero_but_for_rounding_are_not_above_zero() -> None:
    thirds = np.array([2, 1, 2, 3, 2, 2, 2]) / 3, np.array([3, 3, 3, 2, 2, 3, 3]) / 3

    difference = paired_difference(*thirds)

    assert difference.low == 0.0
    assert not difference.is_separated
