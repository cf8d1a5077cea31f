"""Text to image retrieval with and without re-ranking, and the image protocols' evaluation."""

from __future__ import annotations

import numpy as np
from torch.nn.functional import normalize

from crosswalk.metrics.ranking import (
    Ranking,
    mean_average_precision,
    rank_embeddings,
    rank_k,
    rank_similarity,
)
from crosswalk.metrics.reranking import k_reciprocal
from tests.golden.harness import Case, Tolerance, golden

PERCENT: Tolerance = {"rtol": 1e-6, "atol": 1e-5}  # recorded in float32
HALF: Tolerance = {"rtol": 0, "atol": 5e-3}  # recorded from half precision


def percent_of_all(ranking: Ranking) -> list[float]:
    """Return R@1, R@5 and R@10; a query without a match counts, as a miss."""
    share = ranking.valid.mean()
    return [100 * float(share) * rank_k(ranking, k) for k in (1, 5, 10)]


@golden("cmmt", "topk")
def topk(case: Case) -> None:
    query, gallery = (normalize(case.tensor(name), dim=1) for name in ("query", "gallery"))
    labels = {
        "query_person_id": case.tensor("query_labels"),
        "gallery_person_id": case.tensor("gallery_labels"),
    }

    case.close(
        "out_r1_r5_r10", percent_of_all(rank_embeddings(query, gallery, **labels)), **PERCENT
    )
    if "k1" not in case:
        return
    rescoring = k_reciprocal(
        query,
        gallery,
        k1=case.item("k1"),
        k2=case.item("k2"),
        distance_weight=case.item("lambda_value"),
    )
    ranking = rank_embeddings(query, gallery, **labels, rescoring=rescoring, topk=len(gallery))
    distance = np.empty_like(ranking.top_score)
    np.put_along_axis(distance, ranking.top_index, -ranking.top_score, axis=1)
    case.close("out_rerank_dist", distance, **HALF)
    case.close("out_rerank_r1_r5_r10", percent_of_all(ranking), **PERCENT)


@golden("cmmt", "market_eval")
def market_eval(case: Case) -> None:
    ranking = rank_similarity(
        -case.tensor("dist"),
        query_person_id=case.tensor("q_pids"),
        gallery_person_id=case.tensor("g_pids"),
        query_camera_id=case.tensor("q_camids"),
        gallery_camera_id=case.tensor("g_camids"),
    )

    num_ranks = len(case["out_cmc"])
    cmc = [rank_k(ranking, rank) for rank in range(1, num_ranks + 1)]
    case.close("out_cmc", np.asarray(cmc), rtol=1e-6)  # recorded in float32
    case.close("out_mAP", mean_average_precision(ranking))
