"""What an evaluation found for every query."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

RANKS = (1, 5, 10)


class QueryResults(NamedTuple):
    """Per-query results of one direction, sorted by the query's sample index.

    Attributes:
        sample_index: ``[queries]`` sample index of the query within its role.
        person_id: ``[queries]`` its person.
        num_matches: ``[queries]`` matches in the gallery; 0 = the query was skipped.
        first_hit: ``[queries]`` rank of the best match from 1; 0 = skipped.
        average_precision: ``[queries]`` in [0, 1]; NaN = skipped.
        inverse_negative_penalty: ``[queries]`` in [0, 1]; NaN = skipped.
        top_index: ``[queries, topk]`` sample indices of the best gallery items, -1 = no more.
        top_person_id: ``[queries, topk]`` their persons, -1 = no more.
        top_score: ``[queries, topk]`` their similarities, -inf = no more.
        best_score: ``[queries]`` similarity of the first item, -inf = none. None here and below: a
            file of an earlier release, which did not keep them.
        best_other_score: ``[queries]`` similarity of the first item of another person: what the
            query gets whose person is taken out of the gallery; -inf = none.
        gallery_size: ``[queries]`` items of the gallery.
    """

    sample_index: NDArray[np.int64]
    person_id: NDArray[np.int64]
    num_matches: NDArray[np.int64]
    first_hit: NDArray[np.int64]
    average_precision: NDArray[np.float64]
    inverse_negative_penalty: NDArray[np.float64]
    top_index: NDArray[np.int64]
    top_person_id: NDArray[np.int64]
    top_score: NDArray[np.floating[Any]]
    best_score: NDArray[np.floating[Any]] | None = None
    best_other_score: NDArray[np.floating[Any]] | None = None
    gallery_size: NDArray[np.int64] | None = None
