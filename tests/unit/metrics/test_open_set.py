from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from crosswalk.metrics.open_set import (
    FirstScores,
    Rate,
    figures,
    first_scores,
    verdict,
)
from crosswalk.metrics.paired import drawn_queries
from crosswalk.metrics.queries import QueryResults


def draw(number: int, lead: float, seed: int, levels: int = 0) -> FirstScores:
    """Scores of about two thirds right queries; some have no match, some nobody else."""
    random = np.random.default_rng(seed)
    absent = random.normal(0.4, 0.05, number)
    right = random.random(number) < 0.66
    present = np.where(right, absent + abs(random.normal(lead, 0.05, number)), absent)
    if levels:
        present, absent = np.round(levels * present) / levels, np.round(levels * absent) / levels
    present[:: number // 7] = np.nan
    absent[1 :: number // 3] = np.nan
    return FirstScores(present, right, absent, number)


def in_a_loop(scores: FirstScores, fpr: float) -> tuple[float, float, float]:
    """AUC, TPR and DIR by their definitions."""
    present = scores.present[np.isfinite(scores.present)].tolist()
    right = scores.right[np.isfinite(scores.present)].tolist()
    absent = scores.absent[np.isfinite(scores.absent)].tolist()
    wins = sum((p > a) + (p == a) / 2 for p in present for a in absent)
    # every score that there is, and something above all of them
    candidates = sorted({*present, *absent, math.inf})
    threshold = next(
        t for t in candidates if sum(a >= t for a in absent) <= math.floor(fpr * len(absent) + 1e-9)
    )
    tpr = sum(p >= threshold for p in present) / len(present)
    dir_ = sum(p >= threshold and r for p, r in zip(present, right, strict=True)) / len(present)
    return wins / len(present) / len(absent), tpr, dir_


def drawn_again(scores: FirstScores, count: NDArray[np.int64]) -> FirstScores:
    return FirstScores(*(np.repeat(each, count) for each in scores[:3]), scores.gallery)


@pytest.mark.parametrize("levels", [0, 20, 100])
@pytest.mark.parametrize("lead", [0.0, 0.1, 0.3])
def test_figures_and_intervals_equal_an_explicit_loop_ties_included(
    lead: float, levels: int
) -> None:
    scores = draw(131, lead, seed=levels, levels=levels)

    found = figures(scores, draws=23, seed=5)

    rate = found.rates[0.01]
    auc, tpr, dir_ = in_a_loop(scores, 0.01)
    assert found.auc.value == pytest.approx(auc, abs=1e-12)
    assert (rate.tpr.value, rate.dir.value) == pytest.approx((tpr, dir_), abs=1e-12)
    absent = scores.absent[np.isfinite(scores.absent)]
    present = scores.present[np.isfinite(scores.present)]
    assert (absent >= rate.threshold.value).mean() <= 0.01
    assert (present >= rate.threshold.value).mean() == pytest.approx(tpr)
    counts = np.concatenate(list(drawn_queries(131, draws=23, seed=5)))
    again = np.array([in_a_loop(drawn_again(scores, count), 0.01) for count in counts])
    for measured, values in zip((found.auc, rate.tpr, rate.dir), again.T, strict=True):
        expected = np.quantile(values, [0.025, 0.975])
        np.testing.assert_allclose(measured[1:], expected, rtol=0, atol=1e-12)
    assert rate.threshold.low <= rate.threshold.value <= rate.threshold.high


@pytest.mark.parametrize(
    ("number", "rates"), [(99, []), (100, [0.01]), (999, [0.01]), (1000, [0.01, 0.001])]
)
def test_a_false_positive_rate_needs_as_many_absent_queries_as_measure_it(
    number: int, rates: list[float]
) -> None:
    absent = np.linspace(0, 0.5, number)
    found = figures(FirstScores(absent + 1, absent >= 0, absent, 9), draws=10)

    assert list(found.rates) == rates
    for fpr, rate in found.rates.items():
        assert (absent >= rate.threshold.value).sum() == int(fpr * number + 1e-9)
    if not rates:
        assert not found.tells
        assert "needs 100 queries without their person, and there are 99" in verdict(found)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scores_of_hits_that_are_like_those_of_misses_cannot_tell(seed: int) -> None:
    # The toy RDE: hits have the quartiles .454 .493 .532, misses .446 .481 .517.
    random = np.random.default_rng(seed)
    right = random.random(930) < 0.53
    present = np.where(right, random.normal(0.493, 0.058, 930), random.normal(0.481, 0.053, 930))
    absent = np.where(right, np.minimum(present, random.normal(0.481, 0.053, 930)), present)

    found = figures(FirstScores(present, right, absent, 465))

    assert found.quantiles["right"] == pytest.approx((0.454, 0.493, 0.532), abs=0.01)
    assert found.quantiles["wrong"] == pytest.approx((0.446, 0.481, 0.517), abs=0.01)
    assert not found.tells
    assert verdict(found).startswith("The scores cannot tell")
    assert 0.5 < found.auc.value < 0.7


def test_scores_far_apart_can_tell() -> None:
    found = figures(draw(700, 0.3, seed=3)._replace(right=np.ones(700, bool)), draws=100)

    assert found.tells
    assert verdict(found).startswith("The scores can tell")
    assert (found.queries, found.absent, found.gallery) == (693, 697, 700)


def test_a_share_whose_interval_reaches_below_a_half_is_no_proof() -> None:
    absent = np.linspace(0, 0.5, 200)
    present = np.where(np.arange(200) < 104, 0.9, 0.1)

    found = figures(FirstScores(present, absent >= 0, absent, 9), draws=200)

    assert found.rates[0.01].tpr.value == 0.52
    assert found.rates[0.01].tpr.low < 0.5
    assert not found.tells
    assert "perhaps less than half, here 52 %" in verdict(found)


def test_the_calibrated_probability_is_at_even_odds() -> None:
    random = np.random.default_rng(0)
    score = random.uniform(-1, 1, 40_000)
    is_present = random.random(40_000) < 1 / (1 + np.exp(-(4 * score - 1)))
    few = score[~is_present][:5000]  # as if fewer had been looked for in vain
    present = np.concatenate([score[is_present], np.full(len(few), np.nan)])
    absent = np.concatenate([np.full(is_present.sum(), np.nan), few])

    found = figures(FirstScores(present, present > 9, absent, 9), draws=1)

    odds = math.log(is_present.sum() / (~is_present).sum())
    assert found.slope == pytest.approx(4, abs=0.15)
    assert found.intercept == pytest.approx(-1 - odds, abs=0.1)


def test_equal_scores_have_even_odds_and_nobody_to_compare_is_refused() -> None:
    same = np.full(150, 0.3)

    found = figures(FirstScores(same, same > 0, same, 9), draws=10)

    assert (found.slope, found.intercept, found.auc.value) == (0, 0, 0.5)
    assert found.rates[0.01] == Rate(*[(x, x, x) for x in (np.nextafter(0.3, 1), 0, 0)])
    with pytest.raises(ValueError, match=r"150 queries have their person .* and 0 have not"):
        figures(FirstScores(same, same > 0, same * np.nan, 9))


def test_first_scores_leave_out_unknown_people_and_those_without_anybody_else() -> None:
    results = QueryResults(
        np.arange(5),
        np.array([3, 4, -1, 5, 6]),
        *[np.array([1, 1, 0, 0, 2])] * 1,
        np.array([1, 2, 0, 0, 3]),
        *[np.zeros(5)] * 5,
        best_score=np.array([0.5, 0.4, 0.9, 0.25, 0.75], np.float32),
        best_other_score=np.array([0.25, 0.4, 0.9, 0.25, -np.inf], np.float32),
        gallery_size=np.full(5, 11),
    )

    found = first_scores(results)

    assert found is not None
    np.testing.assert_allclose(found.present, [0.5, 0.4, np.nan, 0.75])
    np.testing.assert_allclose(found.absent, [0.25, 0.4, 0.25, np.nan])
    assert found.right.tolist() == [True, False, False, False]
    assert found.gallery == 11
    assert {name: len(each) for name, each in found.groups.items()} == {
        **{"right": 1, "wrong": 2, "absent": 3}
    }
    assert first_scores(results._replace(best_other_score=None)) is None
