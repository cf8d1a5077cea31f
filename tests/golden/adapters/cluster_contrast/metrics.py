"""Retrieval with the camera rule, and the released re-ranking, which squares twice."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crosswalk.metrics.average_precision import EXTRA_MAP, MatchPlaces
from crosswalk.metrics.ranking import Ranking, mean_average_precision, rank_similarity
from crosswalk.nearest import nearest_and_farthest
from crosswalk.neighbours import (
    averaged_memberships,
    entry_distances,
    expanded_sets,
    jaccard_distances,
    memberships,
)
from tests.golden.adapters.cmmt.clustering import dense
from tests.golden.adapters.mmcl.metrics import cmc
from tests.golden.harness import Case, golden


def squared_distance(query: Tensor, gallery: Tensor) -> Tensor:
    lengths = query.square().sum(dim=1)[:, None] + gallery.square().sum(dim=1)
    return lengths - 2 * query @ gallery.T


def precision_of_equals(places: MatchPlaces) -> NDArray[np.float64]:
    """Return ``[queries]`` means of the precision behind the last item as near as the match.

    It is scikit-learn's average precision, and the usual one where no distances are equal.
    """
    later = places.num_not_worse[:, None, :] <= places.num_not_worse[:, :, None]
    hits = (later & places.is_match[:, None, :]).sum(axis=2)
    precision = np.where(places.is_match, hits / places.num_not_worse, 0.0)
    return precision.sum(axis=1) / places.is_match.sum(axis=1)


@patch.dict(EXTRA_MAP, {"equals": precision_of_equals})
def ranked(case: Case, distance: NDArray[Any]) -> Ranking:
    return rank_similarity(
        torch.from_numpy(-distance),
        extra_map=["equals"],
        query_person_id=case.tensor("query_id"),
        gallery_person_id=case.tensor("gallery_id"),
        query_camera_id=case.tensor("query_camera"),
        gallery_camera_id=case.tensor("gallery_camera"),
    )


@golden("cluster_contrast", "evaluation")
def evaluation(case: Case) -> None:
    distance = squared_distance(case.tensor("query"), case.tensor("gallery")).numpy()
    case.close("out_distance", distance, rtol=0, atol=1e-9)
    ranking = ranked(case, case["out_distance"])  # rounding must not tell equal ones apart
    case.close("out_map", mean_average_precision(ranking, "equals"))
    if "out_cmc" in case:  # no distances are equal
        case.close("out_map", mean_average_precision(ranking))
        case.close("out_cmc", cmc(ranking, len(case["out_cmc"])))


def reranked(case: Case) -> NDArray[Any]:
    """Return the released distances: fourth powers, since squares come in and are squared."""
    query, gallery = case.tensor("query").float(), case.tensor("gallery").float()
    rows, k1 = torch.cat([query, gallery]), case.item("k1")
    nearest, known, farthest = (
        part.numpy() for part in nearest_and_farthest(rows, min(k1 + 1, len(rows)))
    )
    sets = expanded_sets(nearest, k1)
    scaled = entry_distances(rows, sets, known=(nearest, known)) ** 2
    scaled /= np.repeat(farthest**2, np.diff(sets.indptr))
    membership = averaged_memberships(memberships(sets, scaled), nearest, case.item("k2"))
    jaccard = dense(jaccard_distances(membership, num_rows=len(query)))[:, len(query) :]
    plain = squared_distance(query, gallery).numpy() ** 2 / farthest[: len(query), None] ** 2
    weight = case.item("lambda_value")
    return (1 - weight) * jaccard + weight * plain


@golden("cluster_contrast", "rerank")
def rerank(case: Case) -> None:
    evaluation(case)
    distance = reranked(case)
    case.close("out_reranked_distance", distance, rtol=0, atol=2e-5)
    ranking = ranked(case, distance)
    case.close("out_reranked_map", mean_average_precision(ranking))
    case.close("out_reranked_cmc", cmc(ranking, len(case["out_reranked_cmc"])))
