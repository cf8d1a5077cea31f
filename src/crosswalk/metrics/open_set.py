"""Whether the first score of a query tells that the person is in the gallery at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crosswalk.metrics.paired import drawn_queries
from crosswalk.metrics.queries import QueryResults

RATES = (0.01, 0.001)
"""False positive rates that are looked at; the first gives the threshold."""

LEAST_TPR = 0.5
"""Least share of those who are there that a threshold of use accepts (`figures`)."""

QUARTILES = (0.25, 0.5, 0.75)
INTERVAL = (0.025, 0.975)
"""Ends of the bootstrap intervals."""

DRAWS = 1000


class Measured(NamedTuple):
    """A number with the ends of its 95 % bootstrap interval over queries."""

    value: float
    low: float
    high: float


class Rate(NamedTuple):
    """What a threshold does.

    Attributes:
        threshold: A first item with at least this score is taken as the person.
        tpr: Share of queries whose person is there with such a first item (true positive
            identification rate, whoever the item shows), in [0, 1].
        dir: The same where the first item is the person (detection and identification rate).
    """

    threshold: Measured
    tpr: Measured
    dir: Measured


class OpenSet(NamedTuple):
    """How well the first scores of one direction tell who is in the gallery.

    Attributes:
        queries: Queries whose person is in the gallery.
        absent: Queries whose person is not, or was taken out.
        gallery: Items of the gallery.
        rates: By the false positive rate: share of absent queries that reach the threshold. Only
            rates that so many absent queries can measure, at least ``1 / rate``.
        auc: How often a query whose person is there scores higher than one whose person is not;
            0.5 is chance, 1 never errs.
        slope: With ``intercept``, the logistic calibration: ``1 / (1 + exp(-(slope * score +
            intercept)))`` is the probability that the person is there, at even odds.
        intercept: See ``slope``.
        quantiles: Quartiles of the first scores that are ``right``, ``wrong`` (the person is there
            and somebody else is first) and ``absent``; None where there is no such query.
        tells: Whether the scores can tell at all; `figures` says by what.
    """

    queries: int
    absent: int
    gallery: int
    rates: Mapping[float, Rate]
    auc: Measured
    slope: float
    intercept: float
    quantiles: Mapping[str, tuple[float, ...] | None]
    tells: bool


class FirstScores(NamedTuple):
    """The score of the first item of every query, with its person in the gallery and without.

    Attributes:
        present: ``[queries]``; NaN where the person is not in the gallery.
        right: ``[queries]`` bool, whether the first item shows the person.
        absent: ``[queries]`` when the person is not, or was taken out; NaN where there is none.
        gallery: Items of the gallery.
    """

    present: NDArray[np.float64]
    right: NDArray[np.bool_]
    absent: NDArray[np.float64]
    gallery: int

    @property
    def can_be_measured(self) -> bool:
        """Whether there are queries of both kinds."""
        return bool(np.isfinite(self.present).any() and np.isfinite(self.absent).any())

    @property
    def groups(self) -> dict[str, NDArray[np.float64]]:
        """Scores that are right, wrong, and of absent people."""
        there = np.isfinite(self.present)
        return {
            "right": self.present[there & self.right],
            "wrong": self.present[there & ~self.right],
            "absent": self.absent[np.isfinite(self.absent)],
        }


def first_scores(results: QueryResults) -> FirstScores | None:
    """Return the first scores of an evaluation; None of an earlier release, which kept none.

    Every query is looked at twice, with its person in the gallery and without; queries that have
    no match anyway count as absent alone. Queries of unknown people (-1) are left out.

    Example:
        >>> nothing = np.zeros(2)
        >>> results = QueryResults(
        ...     *[np.arange(2)] * 3, np.array([1, 0]), *[nothing] * 5,
        ...     np.array([0.75, 0.5]), np.array([0.5, 0.5]), np.array([7, 7]),
        ... )
        >>> first_scores(results).groups
        {'right': array([0.75]), 'wrong': array([], dtype=float64), 'absent': array([0.5, 0.5])}
    """
    if results.best_score is None or results.best_other_score is None:
        return None
    sizes = results.gallery_size
    return scores_by_hit(
        results.person_id,
        results.first_hit,
        results.best_score,
        results.best_other_score,
        gallery=0 if sizes is None or len(sizes) == 0 else int(sizes[0]),
    )


def scores_by_hit(
    person_id: NDArray[np.int64],
    first_hit: NDArray[np.int64],
    best_score: NDArray[np.floating[Any]],
    best_other_score: NDArray[np.floating[Any]],
    *,
    gallery: int,
) -> FirstScores:
    """Return the first scores of a ranking (`crosswalk.metrics.ranking.Ranking`).

    Args:
        person_id: ``[queries]``; -1 is unknown, and left out.
        first_hit: ``[queries]`` rank of the best match, 0 without one.
        best_score: ``[queries]`` score of the first item.
        best_other_score: ``[queries]`` score of the first item of another person.
        gallery: Items of the gallery.

    Example:
        >>> scores_by_hit(*[np.array([2])] * 2, *[np.array([0.5])] * 2, gallery=7)
        FirstScores(present=array([0.5]), right=array([False]), absent=array([0.5]), gallery=7)
    """
    known = person_id != -1
    hit, best, other = (
        each[known].astype(np.float64) for each in (first_hit, best_score, best_other_score)
    )
    return FirstScores(
        np.where((hit > 0) & np.isfinite(best), best, np.nan),
        hit == 1,
        np.where(np.isfinite(other), other, np.nan),
        gallery,
    )


def figures(scores: FirstScores, *, draws: int = DRAWS, seed: int = 0) -> OpenSet:
    """Return how well first scores tell who is in the gallery.

    The threshold of a false positive rate (FPR) is the least score that at most this share of
    absent queries reaches. **The scores can tell** if the threshold at an FPR of 1 % accepts at
    least half of the queries whose person is there (`LEAST_TPR`), the lower end of the interval
    included. With less, "not in this gallery" is said of more than half of those who are; at even
    odds it would then be right less than two times in three.

    Terms: identification rates of an open set, ISO/IEC 19795-1; Grother and Ngan, Face Recognition
    Vendor Test (false and true positive identification rate, FPIR and TPIR); Phillips, Grother and
    Micheals, Handbook of Face Recognition, 2005 (detection and identification rate).

    Args:
        scores: Of the queries.
        draws: Bootstrap draws of queries, each with both of its scores.
        seed: Of the draws.

    Raises:
        ValueError: If nobody is there, or nobody is absent.

    Example:
        >>> there, gone = np.linspace(0.6, 0.9, 200), np.linspace(0.3, 0.5, 200)
        >>> found = figures(FirstScores(there, there > 0, gone, 200), draws=100)
        >>> found.tells, found.auc.value, found.rates[0.01].tpr.value, list(found.rates)
        (True, 1.0, 1.0, [0.01])
        >>> round(found.rates[0.01].threshold.value, 3)
        0.498
    """
    groups = scores.groups
    present, absent = np.isfinite(scores.present), np.isfinite(scores.absent)
    num_present, num_absent = int(present.sum()), int(absent.sum())
    if not scores.can_be_measured:
        raise ValueError(
            f"{num_present} queries have their person in the gallery and {num_absent} have not; "
            "whether scores tell them apart needs some of both."
        )
    rates = [rate for rate in RATES if num_absent * rate >= 1 - 1e-9]
    once = _measures(scores, rates, np.ones((1, len(scores.present)), np.int64))[0]
    counts = drawn_queries(len(scores.present), draws=draws, seed=seed)
    drawn = np.concatenate([_measures(scores, rates, count) for count in counts])
    # a draw may have no such query at all
    low, high = np.nanquantile(drawn, INTERVAL, axis=0)
    measured = [Measured(*map(float, each)) for each in zip(once, low, high, strict=True)]
    by_rate = {rate: Rate(*measured[1 + 3 * i : 4 + 3 * i]) for i, rate in enumerate(rates)}
    slope, intercept = _logistic(scores.present[present], scores.absent[absent])
    return OpenSet(
        num_present,
        num_absent,
        scores.gallery,
        by_rate,
        measured[0],
        slope,
        intercept,
        {name: _quartiles(each) for name, each in groups.items()},
        RATES[0] in by_rate and by_rate[RATES[0]].tpr.low >= LEAST_TPR,
    )


def verdict(found: OpenSet) -> str:
    """Return in plain words whether the scores can tell who is in the gallery.

    Example:
        >>> one = Measured(0.1, 0.05, 0.15)
        >>> found = OpenSet(900, 900, 9, {0.01: Rate(one, one, one)}, one, 1.0, 0.0, {}, False)
        >>> print(verdict(found).partition(":")[0])
        The scores cannot tell whether a person is in the gallery
    """
    rate = found.rates.get(RATES[0])
    if rate is None:
        return (
            f"Whether the scores can tell who is in the gallery is not known: a false positive "
            f"rate of 1 % needs {math.ceil(1 / RATES[0])} queries without their person, and there "
            f"are {found.absent}."
        )
    share = f"{100 * rate.tpr.value:.0f} % of those who are there (AUC {found.auc.value:.2f})"
    if found.tells:
        return (
            "The scores can tell whether a person is in the gallery: the threshold that 1 % of "
            f"absent people reach accepts {share}."
        )
    only = "only " if rate.tpr.value < LEAST_TPR else "perhaps less than half, here "
    return (
        "The scores cannot tell whether a person is in the gallery: the threshold that 1 % of "
        f"absent people reach accepts {only}{share}."
    )


COLUMNS = ("false positives", "threshold", "accepted of those there", "found and accepted")
"""What `rate_rows` says: FPR, threshold, TPR and the detection and identification rate."""


def rate_rows(found: OpenSet) -> list[tuple[str, ...]]:
    """Return the cells of a table, a row for each of `RATES`, with intervals in brackets.

    Example:
        >>> one = Measured(0.5, 0.25, 0.75)
        >>> found = OpenSet(900, 900, 9, {0.01: Rate(one, one, one)}, one, 1.0, 0.0, {}, False)
        >>> for row in rate_rows(found):
        ...     print(row)
        ('1 %', '0.500 (0.250 to 0.750)', '50.0 % (25.0 to 75.0)', '50.0 % (25.0 to 75.0)')
        ('0.1 %', 'needs 1,000 absent queries, not 900', '-', '-')
    """
    rows: list[tuple[str, ...]] = []
    for fpr in RATES:
        rate = found.rates.get(fpr)
        if rate is None:
            needs = f"needs {round(1 / fpr):,} absent queries, not {found.absent}"
            rows.append((f"{100 * fpr:g} %", needs, "-", "-"))
            continue
        threshold = "{:.3f} ({:.3f} to {:.3f})".format(*rate.threshold)
        shares = ["{:.1f} % ({:.1f} to {:.1f})".format(*100 * np.array(s)) for s in rate[1:]]
        rows.append((f"{100 * fpr:g} %", threshold, *shares))
    return rows


def _measures(
    scores: FirstScores, rates: list[float], count: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return ``[draws, 1 + 3 * rates]``: AUC, then threshold, TPR and DIR of every rate.

    Args:
        scores: Of the queries.
        rates: False positive rates.
        count: ``[draws, queries]`` how often a query was drawn.
    """
    there = _descending(scores.present)
    gone = _descending(scores.absent)
    present, absent = scores.present[there], scores.absent[gone]
    higher = np.searchsorted(-present, -absent, side="left")  # present scores above each absent one
    not_lower = np.searchsorted(-present, -absent, side="right")
    num_there = _sums(count[:, there])
    num_right = _sums(count[:, there] * scores.right[there])
    of_absent = count[:, gone]
    num_gone = _sums(of_absent)
    with np.errstate(invalid="ignore"):
        total = num_there[:, -1:].astype(np.float64)
        pairs = (of_absent * (num_there[:, higher] + num_there[:, not_lower])).sum(axis=1)
        columns = [pairs / 2 / (total[:, 0] * num_gone[:, -1])]
        for rate in rates:
            allowed = np.floor(rate * num_gone[:, -1] + 1e-9)
            refused = (num_gone[:, 1:] <= allowed[:, None]).sum(axis=1).clip(max=len(absent) - 1)
            above = higher[refused][:, None]
            columns.append(np.nextafter(absent[refused], np.inf))
            for number in (num_there, num_right):
                columns.append((np.take_along_axis(number, above, axis=1) / total)[:, 0])
    return np.stack(columns, axis=1)


def _sums(count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``[draws, columns + 1]`` sums of the columns ahead of each place."""
    return np.pad(count.cumsum(axis=1), ((0, 0), (1, 0)))


def _descending(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the places of finite values, the greatest first."""
    places = np.flatnonzero(np.isfinite(values))
    order: NDArray[np.int64] = places[np.argsort(-values[places], kind="stable")]
    return order


def _logistic(present: NDArray[np.float64], absent: NDArray[np.float64]) -> tuple[float, float]:
    """Return slope and intercept of the logistic calibration, both groups weighed equally."""
    from sklearn.linear_model import LogisticRegression

    score = np.concatenate([present, absent])
    mean, spread = float(score.mean()), float(score.std())
    if spread == 0:
        return 0.0, 0.0
    is_present = np.arange(len(score)) < len(present)
    # its usual slight penalty keeps groups that do not overlap from an endless slope
    model = LogisticRegression(class_weight="balanced")
    model.fit(((score - mean) / spread)[:, None], is_present)
    slope = float(model.coef_[0, 0]) / spread
    return slope, float(model.intercept_[0]) - slope * mean


def _quartiles(scores: NDArray[np.float64]) -> tuple[float, ...] | None:
    return None if len(scores) == 0 else tuple(np.quantile(scores, QUARTILES).tolist())
