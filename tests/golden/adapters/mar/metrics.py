"""Retrieval with the camera rule, and the average precision with a bonus for the first match."""

from __future__ import annotations

import numpy as np
import torch

from crosswalk.metrics.ranking import mean_average_precision, rank_embeddings, rank_k
from tests.golden.harness import Case, golden


@golden("mar", "evaluation")
def evaluation(case: Case) -> None:
    query, gallery = case.tensor("probe_features"), case.tensor("gallery_features")
    persons = {
        "query_person_id": case.tensor("probe_labels"),
        "gallery_person_id": case.tensor("gallery_labels"),
    }
    cameras = {
        "query_camera_id": case.tensor("probe_views"),
        "gallery_camera_id": case.tensor("gallery_views"),
    }
    ranking = rank_embeddings(
        query,
        gallery,
        **persons,
        **(cameras if case.item("use_views") else {}),
        extra_map=["first_hit_bonus", "trapezoidal"],
    )
    everyone = torch.zeros(len(gallery), dtype=torch.int64)
    all_similarities = rank_embeddings(
        query,
        gallery,
        query_person_id=everyone[:1].expand(len(query)),
        gallery_person_id=everyone,
        topk=len(gallery),
    )
    distance = np.empty((len(query), len(gallery)))
    np.put_along_axis(distance, all_similarities.top_index, 1 - all_similarities.top_score, axis=1)

    case.close("out_distance", distance.T)
    num_ranks = len(case["out_cmc"])
    cmc = [100 * rank_k(ranking, rank) for rank in range(1, num_ranks + 1)]
    case.close("out_cmc", np.asarray(cmc))
    case.equal("out_first_match_rank0", ranking.first_hit - 1)
    precision = 100 * ranking.extra_average_precision["first_hit_bonus"]
    case.close("out_ap_per_probe", precision)
    case.close("out_map", 100 * mean_average_precision(ranking, "first_hit_bonus"))
    if "ref_ap_plain" in case:
        case.close("ref_ap_plain", 100 * ranking.average_precision)
    if "ref_ap_market_devkit" in case:
        area = 100 * ranking.extra_average_precision["trapezoidal"]
        case.close("ref_ap_market_devkit", area)
