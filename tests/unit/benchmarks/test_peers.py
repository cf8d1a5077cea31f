"""The comparison with the evaluators of others."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.peers import differing, draw
from crosswalk.metrics.ranking import rank_similarity


def test_another_result_of_a_peer_is_told() -> None:
    arrays = draw("quick")
    similarity = torch.from_numpy(-arrays.pop("distance"))
    ranking = rank_similarity(
        similarity, **{name: torch.from_numpy(rows) for name, rows in arrays.items()}, topk=0
    )
    precision, hits = [], []
    for query, scores in enumerate(similarity.numpy()):
        order = np.argsort(-scores)
        match = arrays["gallery_person_id"][order] == arrays["query_person_id"][query]
        other = arrays["gallery_camera_id"][order] != arrays["query_camera_id"][query]
        match = match[~match | other]
        places = np.flatnonzero(match)
        precision.append(np.mean(np.arange(1, len(places) + 1) / (places + 1)))
        hits.append(match[0])
    found = {"queries": 60, "rank1": np.mean(hits), "map": np.mean(precision)}

    assert list(differing(found, ranking)) == []
    assert [each[:3] for each in differing({**found, "map": 0.5}, ranking)] == ["map"]
