"""Evaluation by distances and by features, and re-ranking."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from crosswalk.metrics.ranking import (
    Ranking,
    mean_average_precision,
    rank_embeddings,
    rank_k,
    rank_similarity,
)
from crosswalk.metrics.reranking import k_reciprocal
from tests.golden.harness import Case, Tolerance, golden

FLOAT32: Tolerance = {"rtol": 1e-6, "atol": 1e-7}
HALF: Tolerance = {"rtol": 0, "atol": 5e-3}


def compare(case: Case, ranking: Ranking) -> None:
    cmc = [rank_k(ranking, rank) for rank in range(1, len(case["out_cmc"]) + 1)]
    case.close("out_cmc", np.array(cmc), **FLOAT32)
    case.close("out_map", mean_average_precision(ranking))


def distances_of(ranking: Ranking) -> NDArray[Any]:
    """Return what a ranking of everything compares, by place."""
    scores = np.empty_like(ranking.top_score)
    np.put_along_axis(scores, ranking.top_index, ranking.top_score, axis=1)
    return scores


@golden("clip_reid", "eval")
def evaluation(case: Case) -> None:
    case.unused("max_rank", reason="the curve is as long as it was recorded")
    ranking = rank_similarity(
        -case.tensor("distance"),
        query_person_id=case.tensor("query_id"),
        gallery_person_id=case.tensor("gallery_id"),
        query_camera_id=case.tensor("query_camera"),
        gallery_camera_id=case.tensor("gallery_camera"),
    )

    compare(case, ranking)


@golden("clip_reid", "eval_features")
def evaluation_of_features(case: Case) -> None:
    case.unused("feat_norm", reason='the released code normalises for "no" as well')
    case.unused("max_rank", reason="the curve is as long as it was recorded")
    number = case.item("num_query")
    features = F.normalize(case.tensor("features"))
    query, gallery = features[:number], features[number:]
    person_id, camera_id = case.tensor("person_id"), case.tensor("camera")
    everyone = torch.zeros(len(gallery), dtype=torch.int64)
    ranking = rank_embeddings(
        query,
        gallery,
        query_person_id=person_id[:number],
        gallery_person_id=person_id[number:],
        query_camera_id=camera_id[:number],
        gallery_camera_id=camera_id[number:],
    )
    of_all = rank_embeddings(
        query,
        gallery,
        query_person_id=everyone[:1].expand(number),
        gallery_person_id=everyone,
        topk=len(gallery),
    )

    case.close("out_distance", 2 - 2 * distances_of(of_all), rtol=1e-6, atol=1e-9)
    compare(case, ranking)


@golden("clip_reid", "rerank")
def rerank(case: Case) -> None:
    query, gallery = case.tensor("query"), case.tensor("gallery")
    rescoring = k_reciprocal(
        query,
        gallery,
        k1=case.item("k1"),
        k2=case.item("k2"),
        distance_weight=case.item("lambda_value"),
    )
    everyone = torch.zeros(len(gallery), dtype=torch.int64)
    ranking = rank_embeddings(
        query,
        gallery,
        query_person_id=everyone[:1].expand(len(query)),
        gallery_person_id=everyone,
        rescoring=rescoring,
        topk=len(gallery),
    )

    case.close("out_distance", -distances_of(ranking), **HALF)
