"""Retrieval metrics, and the mean of both embeddings' similarities."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn.functional import normalize

from crosswalk.metrics.ranking import (
    Ranking,
    mean_average_precision,
    mean_inp,
    rank_k,
    rank_similarity,
)
from crosswalk.metrics.retrieval import RetrievalScores
from tests.golden.harness import Case, Tolerance, golden

PERCENT: Tolerance = {"rtol": 1e-6, "atol": 1e-5}  # recorded in float32


def rank_all(similarity: Tensor, query_person_id: Tensor, gallery_person_id: Tensor) -> Ranking:
    return rank_similarity(
        similarity,
        query_person_id=query_person_id,
        gallery_person_id=gallery_person_id,
        topk=similarity.shape[1],
    )


@golden("rde", "metrics")
def metrics(case: Case) -> None:
    similarity = case.tensor("similarity")
    captions, images = case.tensor("query_pids"), case.tensor("gallery_pids")
    text_to_image = rank_all(similarity, captions, images)
    image_to_text = rank_all(similarity.T, images, captions)

    case.equal("i2t_query_kept", image_to_text.valid.astype(np.int64))
    for name, ranking in (("t2i", text_to_image), ("i2t", image_to_text)):
        num_ranks = len(case[f"out_{name}_cmc"])
        cmc = [100 * rank_k(ranking, rank) for rank in range(1, num_ranks + 1)]
        case.close(f"out_{name}_cmc", np.asarray(cmc), **PERCENT)
        case.close(f"out_{name}_mAP", 100 * mean_average_precision(ranking), **PERCENT)
        case.close(f"out_{name}_mINP", 100 * mean_inp(ranking), **PERCENT)
    case.equal("out_t2i_order", text_to_image.top_index)
    case.equal("out_i2t_order", image_to_text.top_index[image_to_text.valid])
    cmc = [100 * rank_k(text_to_image, rank) for rank in (1, 5, 10)]
    measures = [100 * mean_average_precision(text_to_image), 100 * mean_inp(text_to_image)]
    case.close(
        "out_row_R1_R5_R10_mAP_mINP_rSum", np.asarray([*cmc, *measures, sum(cmc)]), **PERCENT
    )


@golden("rde", "fusion_eval")
def fusion_eval(case: Case) -> None:
    ids = {"query": case.tensor("query_pids"), "gallery": case.tensor("gallery_pids")}
    embeddings = {
        role: {
            view: normalize(case.tensor(f"{head}_{modality}"), dim=1)
            for view, head in (("global", "bge"), ("token_selection", "tse"))
        }
        for role, modality in (("query", "text"), ("gallery", "image"))
    }
    num_gallery = len(ids["gallery"])
    rows = []
    for head, views in (
        ("bge", ["global"]),
        ("tse", ["token_selection"]),
        ("fused", ["global", "token_selection"]),
    ):
        scores = RetrievalScores(directions=["text_to_image"], topk=num_gallery)
        for role, person_id in ids.items():
            index = person_id.new_tensor(range(len(person_id)))
            chosen = {view: embeddings[role][view] for view in views}
            scores.update(role, chosen, person_id, index.new_full(index.shape, -1), index)
        values, queries, _ = scores.compute()
        ranked = queries["text_to_image"]
        similarity = np.empty_like(ranked.top_score)
        np.put_along_axis(similarity, ranked.top_index, ranked.top_score, axis=1)
        case.close(f"out_sim_{head}", similarity, rtol=1e-9)
        row = [100 * values[name] for name in ("rank1", "rank5", "rank10", "map", "minp")]
        rows.append([*row, sum(row[:3])])
    case.close("out_rows_bge_tse_fused", np.asarray(rows), **PERCENT)
    case.close("out_selection_score", rows[-1][0], **PERCENT)
