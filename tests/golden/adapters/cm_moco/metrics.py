"""Retrieval metrics, the cross-modal re-ranking, and the whole evaluation with both."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch.nn.functional import normalize

from crosswalk.metrics.ranking import (
    mean_average_precision,
    rank_embeddings,
    rank_k,
    rank_similarity,
)
from crosswalk.metrics.reranking import cross_modal, cross_modal_bonus
from crosswalk.metrics.retrieval import RetrievalScores
from tests.golden.harness import Case, Tolerance, golden

PERCENT: Tolerance = {"rtol": 1e-6, "atol": 1e-5}  # recorded in float32


@golden("cm_moco", "rank_metrics")
def rank_metrics(case: Case) -> None:
    similarity = case.tensor("similarity")
    ranking = rank_similarity(
        similarity,
        query_person_id=case.tensor("query_pids"),
        gallery_person_id=case.tensor("gallery_pids"),
        topk=similarity.shape[1],
    )

    cmc = [100 * rank_k(ranking, rank) for rank in case["topk"].tolist()]
    case.close("out_cmc", np.asarray(cmc), **PERCENT)
    case.close("out_mAP", 100 * mean_average_precision(ranking))
    case.equal("out_indices", ranking.top_index)


@golden("cm_moco", "k_reciprocal")
def k_reciprocal(case: Case) -> None:
    bonus = cross_modal_bonus(
        case.tensor("query_feats"),
        case.tensor("gallery_feats"),
        num_neighbours=case.item("neighbor_num"),
        weight=case.item("alpha"),
    )

    case.close("out_bonus", bonus.toarray(), rtol=1e-12)


def first_of_each(image_ids: np.ndarray) -> np.ndarray:
    return np.sort(np.unique(image_ids, return_index=True)[1])


@golden("cm_moco", "evaluation")
def evaluation(case: Case) -> None:
    first = torch.from_numpy(first_of_each(case["image_ids"]))
    captions = normalize(case.tensor("text_embeds"), dim=1), case.tensor("pids")
    images = normalize(case.tensor("image_embeds")[first], dim=1), captions[1][first]
    rerank = partial(
        cross_modal,
        num_neighbours=case.setting("neighbor_num", 5),
        weight=case.setting("alpha", 0.05),
    )
    rankings = {}
    for prefix, (query, query_id), (gallery, gallery_id) in (
        ("", captions, images),
        ("image_to_text/", images, captions),
    ):
        for kind, rescoring in (("", None), ("reranked/", rerank(query, gallery))):
            rankings[prefix + kind] = rank_embeddings(
                query,
                gallery,
                query_person_id=query_id,
                gallery_person_id=gallery_id,
                topk=len(gallery),
                rescoring=rescoring,
            )
    similarity = np.empty_like(rankings[""].top_score)
    np.put_along_axis(similarity, rankings[""].top_index, rankings[""].top_score, axis=1)
    table = np.asarray(
        [
            *([rank_k(each, k) for each in rankings.values()] for k in case["topk"].tolist()),
            [mean_average_precision(each) for each in rankings.values()],
        ]
    )

    case.equal("out_gallery_pids", images[1])
    case.close("out_similarity", similarity, rtol=1e-9)
    case.close("out_rvn_mat", rerank(captions[0], images[0]).bonus.toarray(), rtol=1e-12)
    case.close("out_rtn_mat", rerank(images[0], captions[0]).bonus.toarray(), rtol=1e-12)
    case.close("out_table", 100 * table, **PERCENT)
    case.close("out_table_no_rerank", 100 * table[:-1, ::2], **PERCENT)
    case.close("out_returned_top1", 100 * table[0, 0], **PERCENT)

    scores = RetrievalScores(reranking=rerank)
    for role, (vectors, person_id) in (("query", captions), ("gallery", images)):
        index = torch.arange(len(vectors))
        scores.update(role, {"global": vectors}, person_id, torch.full_like(index, -1), index)
    values = scores.compute().values
    same = all(
        values[f"{prefix}rank1"] == rank_k(each, 1)
        and values[f"{prefix}map"] == mean_average_precision(each)
        for prefix, each in rankings.items()
    )
    case.check(same, "an evaluation measures the same, collected from batches")
