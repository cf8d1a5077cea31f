"""Retrieval with the camera rule, and the trapezoidal average precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crosswalk.metrics.ranking import (
    Ranking,
    mean_average_precision,
    rank_embeddings,
    rank_k,
    rank_similarity,
)
from tests.golden.harness import Case, golden


def labels(case: Case) -> dict[str, Tensor]:
    return {
        "query_person_id": case.tensor("q_pid"),
        "gallery_person_id": case.tensor("g_pid"),
        "query_camera_id": case.tensor("q_cam"),
        "gallery_camera_id": case.tensor("g_cam"),
    }


def squared_distance(query: Tensor, gallery: Tensor) -> NDArray[Any]:
    """Return ``[queries, gallery]``, from the products that our ranking compares."""
    everyone = torch.zeros(len(gallery), dtype=torch.int64)
    ranking = rank_embeddings(
        query,
        gallery,
        query_person_id=everyone[:1].expand(len(query)),
        gallery_person_id=everyone,
        topk=len(gallery),
    )
    product = np.empty_like(ranking.top_score)
    np.put_along_axis(product, ranking.top_index, ranking.top_score, axis=1)
    lengths = query.square().sum(dim=1)[:, None] + gallery.square().sum(dim=1)
    return np.maximum(lengths.numpy() - 2 * product, 1e-8)


def cmc(ranking: Ranking, length: int) -> NDArray[Any]:
    return np.asarray([rank_k(ranking, rank) for rank in range(1, length + 1)])


def cmc_of_other_cameras(case: Case, distance: NDArray[Any], length: int) -> NDArray[Any]:
    """Return the CMC where nobody is looked for among images by the query's camera."""
    first_hits = []
    for query, row in enumerate(distance):
        others = case["g_cam"] != case["q_cam"][query]
        if not (others & (case["g_pid"] == case["q_pid"][query])).any():
            continue
        ranking = rank_similarity(
            torch.tensor(-row[None, others]),
            query_person_id=case.tensor("q_pid")[query : query + 1],
            gallery_person_id=case.tensor("g_pid")[others],
        )
        first_hits.append(ranking.first_hit[0])
    ranks = np.arange(1, length + 1)
    return (np.asarray(first_hits) <= ranks[:, None]).mean(axis=1)


def cmc_of_all_matches(case: Case, ranking: Ranking, length: int) -> NDArray[Any]:
    """Return the CMC that counts every match, at its rank less the matches ahead of it."""
    counts = np.zeros(length)
    for person_id, found in zip(case["q_pid"], ranking.top_index, strict=True):
        is_match = (found >= 0) & (case["g_pid"][found] == person_id)
        for number, place in enumerate(np.flatnonzero(is_match)):
            if place - number >= length:
                break
            counts[place - number] += 1 / is_match.sum()
    return counts.cumsum() / ranking.valid.sum()


@golden("mmcl", "rank_map_cmc")
def rank_map_cmc(case: Case) -> None:
    query, gallery = case.tensor("q_feat"), case.tensor("g_feat")
    distance = squared_distance(query, gallery)
    ranking = rank_similarity(
        torch.from_numpy(-distance), **labels(case), topk=len(gallery), extra_map=["trapezoidal"]
    )

    case.close("out_distmat", distance)
    case.close("out_mAP", mean_average_precision(ranking, "trapezoidal"))
    if "out_mean_ap_function" in case:
        case.close("out_mean_ap_function", mean_average_precision(ranking, "trapezoidal"))
    case.close("out_cmc", cmc(ranking, len(case["out_cmc"])))
    case.equal("out_num_valid_queries", ranking.valid.sum())
    for name, curve in {
        "out_cmc_first_match_break": lambda length: cmc(ranking, length),
        "out_cmc_all_matches": lambda length: cmc_of_all_matches(case, ranking, length),
        "out_cmc_separate_camera_set": lambda length: cmc_of_other_cameras(case, distance, length),
    }.items():
        if name in case:
            case.close(name, curve(len(case[name])))


@golden("mmcl", "rank_ties")
def rank_ties(case: Case) -> None:
    ranking = rank_similarity(-case.tensor("distmat"), **labels(case), extra_map=["trapezoidal"])

    case.close("out_mAP", mean_average_precision(ranking, "trapezoidal"))
