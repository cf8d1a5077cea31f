"""Average precision of a query, as it is usually defined and as published evaluators define it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class MatchPlaces(NamedTuple):
    """Where the matches of some queries stand among the items that are not ignored.

    All are ``[queries, slots]``, the best match of a query first, and each array ascends. Slots
    beyond a query's last match hold numbers greater than any place.

    Attributes:
        rank: From 1; of equal items the one earlier in the gallery is ahead.
        num_better: How many items are more similar to the query.
        num_not_worse: How many are at least as similar, the match itself included.
        is_match: Bool, false in surplus slots.
    """

    rank: NDArray[np.int64]
    num_better: NDArray[np.int64]
    num_not_worse: NDArray[np.int64]
    is_match: NDArray[np.bool_]


def average_precision(rank: NDArray[np.int64], is_match: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return ``[queries]`` means over matches of the precision at the match's rank, in [0, 1].

    Args:
        rank: ``[queries, slots]`` as in `MatchPlaces`.
        is_match: ``[queries, slots]`` bool, false in surplus slots.

    Example:
        >>> average_precision(np.array([[1, 3]]), np.array([[True, True]])).round(6)
        array([0.833333])
    """
    return _mean_over_matches(np.arange(1, rank.shape[1] + 1) / rank, is_match)


def trapezoidal_precision(places: MatchPlaces) -> NDArray[np.float64]:
    """Return ``[queries]`` areas under the precision-recall curve, joined by straight lines.

    The curve starts at recall 0 with precision 1. Items of equal similarity enter it as one point.
    Where no items are equal, it is what the evaluation published with Market-1501 gives.
    Source: Wang and Zhang, MMCL, CVPR 2020, official evaluation (scikit-learn's before 0.19).

    Example:
        >>> places = MatchPlaces(*np.array([[[1, 3]], [[0, 2]], [[1, 3]], [[True, True]]]))
        >>> trapezoidal_precision(places).round(6)
        array([0.791667])
    """
    slot = np.arange(places.rank.shape[1])
    edge = np.diff(places.num_better, axis=1) > 0  # between matches of different similarity
    none = np.zeros((len(edge), 1), dtype=bool)
    hits_better = np.maximum.accumulate(np.where(np.hstack([~none, edge]), slot, 0), axis=1)
    last_of_equals = np.where(np.hstack([edge, ~none]), slot, len(slot))
    hits = 1 + np.minimum.accumulate(last_of_equals[:, ::-1], axis=1)[:, ::-1]
    before = np.ones(places.rank.shape)
    np.divide(hits_better, places.num_better, out=before, where=places.num_better > 0)
    return _mean_over_matches((before + hits / places.num_not_worse) / 2, places.is_match)


def first_hit_bonus_precision(places: MatchPlaces) -> NDArray[np.float64]:
    """Return ``[queries]`` areas that take the precision ahead of the first match for 1.

    Behind the first match the curve is that of `trapezoidal_precision`, equal items one by one.
    Ahead of it the precision is really 0, so a query whose first item is wrong gains half of the
    share of one match: these values are not comparable with those of other methods.
    Source: Yu et al., MAR, CVPR 2019, official evaluation.

    Example:
        >>> places = MatchPlaces(*np.array([[[2, 4]], [[1, 3]], [[2, 4]], [[True, True]]]))
        >>> first_hit_bonus_precision(places).round(6)
        array([0.583333])
    """
    slot = np.arange(places.rank.shape[1])
    before = np.ones(places.rank.shape)
    np.divide(slot, places.rank - 1, out=before, where=np.broadcast_to(slot > 0, before.shape))
    return _mean_over_matches((before + (slot + 1) / places.rank) / 2, places.is_match)


EXTRA_MAP: dict[str, Callable[[MatchPlaces], NDArray[np.float64]]] = {
    "trapezoidal": trapezoidal_precision,
    "first_hit_bonus": first_hit_bonus_precision,
}
"""Definitions that can be measured beside the usual one, by name."""


def check_extra_map(names: object) -> None:
    """Refuse names that `EXTRA_MAP` does not hold.

    Raises:
        ValueError: If there is one.

    Example:
        >>> check_extra_map(["trapezoidal"])
    """
    known = sorted(EXTRA_MAP)
    if isinstance(names, str) or not isinstance(names, Sequence) or set(names) - set(known):
        raise ValueError(f"data.extra_map={names!r}: give a list of none or more of {known}.")


def _mean_over_matches(
    values: NDArray[np.float64], is_match: NDArray[np.bool_]
) -> NDArray[np.float64]:
    # one after the other: a sum in pairs would round by the number of surplus slots
    total = np.where(is_match, values, 0.0).cumsum(axis=1)[:, -1]
    mean: NDArray[np.float64] = total / is_match.sum(axis=1)
    return mean
