from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from crosswalk.metrics.ranking import Rescoring, rank_embeddings
from crosswalk.metrics.reranking import cross_modal, cross_modal_bonus, k_reciprocal, overlaps


def draw(num_queries: int, num_gallery: int, width: int = 4) -> tuple[Tensor, Tensor]:
    """Unit vectors of a few persons, so that neighbourhoods mean something."""
    random = torch.Generator().manual_seed(100 * num_queries + num_gallery)
    centre = torch.randn(3, width, generator=random, dtype=torch.float64)
    vectors = []
    for number in (num_queries, num_gallery):
        noise = torch.randn(number, width, generator=random, dtype=torch.float64)
        vectors.append(normalize(centre[torch.arange(number) % 3] + 0.7 * noise, dim=1))
    return vectors[0], vectors[1]


def best(similarity: list[float], count: int) -> set[int]:
    return set(sorted(range(len(similarity)), key=lambda item: -similarity[item])[:count])


def bonus_in_a_loop(query: Tensor, gallery: Tensor, count: int, weight: float) -> list[list[float]]:
    """The definition, one pair at a time."""
    rows = []
    for one in query:
        finds = best((gallery @ one).tolist(), count)
        row = []
        for item in gallery:
            neighbours = best((gallery @ item).tolist(), count)
            row.append(weight * len(finds & neighbours) / len(finds | neighbours))
        rows.append(row)
    return rows


def k_reciprocal_in_a_loop(
    query: Tensor, gallery: Tensor, k1: int, k2: int, weight: float
) -> list[list[float]]:
    """The algorithm of the paper with dense matrices, one point after the other."""
    rows = torch.cat([query, gallery]).tolist()
    number = len(rows)
    squared = [[sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) for y in rows] for x in rows]
    scaled = [[value / max(row) for value in row] for row in squared]
    order = [sorted(range(number), key=lambda other: row[other]) for row in squared]

    def reciprocal(point: int, k: int) -> set[int]:
        return {other for other in order[point][: k + 1] if point in order[other][: k + 1]}

    membership = []
    for point in range(number):
        core = reciprocal(point, k1)
        members = set(core)
        for candidate in core:
            brought = reciprocal(candidate, round(k1 / 2))
            if len(brought & core) > 2 / 3 * len(brought):
                members |= brought
        weights = [math.exp(-scaled[point][j]) * (j in members) for j in range(number)]
        membership.append([value / sum(weights) for value in weights])
    averaged = [
        [sum(membership[j][m] for j in order[i][:k2]) / len(order[i][:k2]) for m in range(number)]
        for i in range(number)
    ]
    scores = []
    for i in range(len(query)):
        row = []
        for j in range(len(query), number):
            shared = sum(min(a, b) for a, b in zip(averaged[i], averaged[j], strict=True))
            row.append(-(1 - weight) * (1 - shared / (2 - shared)) - weight * scaled[i][j])
        scores.append(row)
    return scores


def scores_of(rescoring: Rescoring, query: Tensor, gallery: Tensor) -> np.ndarray:
    similarity = (query @ gallery.T).numpy()
    scores = rescoring.slope[:, None] * similarity + rescoring.offset[:, None]
    return scores + rescoring.bonus.toarray()


@pytest.mark.parametrize(("num_queries", "num_gallery"), [(1, 1), (3, 7), (7, 3), (13, 31), (5, 5)])
@pytest.mark.parametrize(("count", "weight"), [(1, 0.3), (2, 0.05), (5, 0.05), (9, 1.0)])
def test_the_cross_modal_bonus_is_the_share_of_common_neighbours(
    num_queries: int, num_gallery: int, count: int, weight: float
) -> None:
    query, gallery = draw(num_queries, num_gallery)

    bonus = cross_modal_bonus(query, gallery, num_neighbours=count, weight=weight)

    expected = bonus_in_a_loop(query, gallery, count, weight)
    assert bonus.dtype == np.float64
    np.testing.assert_allclose(bonus.toarray(), expected, rtol=1e-12)


def test_the_overlap_of_two_sets_is_their_jaccard_index() -> None:
    first, second = np.array([[3, 0, 5], [1, 2, 4]]), np.array([[5, 3, 0], [0, 6, 3], [7, 8, 9]])

    found = overlaps(first, second)

    np.testing.assert_allclose(found.toarray(), [[1, 2 / 4, 0], [0, 0, 0]])
    assert found.nnz == 2


def test_equal_items_are_neighbours_in_the_order_of_the_gallery() -> None:
    corners = torch.eye(2, dtype=torch.float64)
    gallery = corners[[0, 1, 0, 1, 0]]  # three equal items, two equal ones

    bonus = cross_modal_bonus(corners, gallery, num_neighbours=2, weight=1.0)

    # The sets are {0, 2} for items of the first kind and {1, 3} for the others.
    expected = [[1, 0, 1, 0, 1], [0, 1, 0, 1, 0]]
    np.testing.assert_allclose(bonus.toarray(), expected)


def test_all_items_get_the_whole_bonus_if_the_gallery_is_smaller_than_a_set() -> None:
    query, gallery = draw(2, 4)

    bonus = cross_modal_bonus(query, gallery, num_neighbours=5, weight=0.05)

    np.testing.assert_allclose(bonus.toarray(), np.full((2, 4), 0.05))


def test_the_cross_modal_re_ranking_adds_the_bonus_to_the_similarity() -> None:
    query, gallery = draw(4, 9)

    scores = scores_of(cross_modal(query, gallery, num_neighbours=3, weight=0.5), query, gallery)

    expected = (query @ gallery.T).numpy() + bonus_in_a_loop(query, gallery, 3, 0.5)
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("num_queries", "num_gallery"), [(1, 1), (1, 6), (7, 13), (20, 31), (9, 2)]
)
@pytest.mark.parametrize(
    ("k1", "k2", "weight"), [(1, 1, 0.3), (3, 2, 0.0), (4, 1, 1.0), (20, 6, 0.3), (5, 9, 0.3)]
)
def test_the_k_reciprocal_re_ranking_equals_the_dense_algorithm(
    num_queries: int, num_gallery: int, k1: int, k2: int, weight: float
) -> None:
    query, gallery = draw(num_queries, num_gallery)

    rescoring = k_reciprocal(query, gallery, k1=k1, k2=k2, distance_weight=weight)

    expected = k_reciprocal_in_a_loop(query, gallery, k1, k2, weight)
    # float32 inside
    np.testing.assert_allclose(scores_of(rescoring, query, gallery), expected, atol=2e-6)


def test_a_gallery_of_copies_of_the_query_is_at_distance_zero() -> None:
    same = torch.tensor([[0.6, 0.8]])

    rescoring = k_reciprocal(same, same.repeat(4, 1), k1=20, k2=6, distance_weight=0.3)

    np.testing.assert_allclose(scores_of(rescoring, same, same.repeat(4, 1)), 0, atol=1e-6)


@pytest.mark.parametrize("rerank", ["cross_modal", "k_reciprocal"])
@pytest.mark.parametrize("tile_bytes", [1, 2**20])
def test_a_gallery_is_ranked_by_the_new_scores(rerank: str, tile_bytes: int) -> None:
    query, gallery = draw(7, 23)
    if rerank == "cross_modal":
        rescoring = cross_modal(query, gallery, num_neighbours=5, weight=0.5)
    else:
        rescoring = k_reciprocal(query, gallery, k1=4, k2=2, distance_weight=0.3)

    ranking = rank_embeddings(
        query,
        gallery,
        query_person_id=torch.arange(7) % 3,
        gallery_person_id=torch.arange(23) % 3,
        topk=23,
        rescoring=rescoring,
        tile_bytes=tile_bytes,
    )

    for place, row in enumerate(scores_of(rescoring, query, gallery)):
        order = sorted(range(23), key=lambda item: -row[item])
        hits = [rank for rank, item in enumerate(order, start=1) if item % 3 == place % 3]
        precision = [number / rank for number, rank in enumerate(hits, start=1)]
        assert ranking.top_index[place].tolist() == order
        np.testing.assert_allclose(ranking.top_score[place], row[order], rtol=1e-12)
        assert ranking.first_hit[place] == hits[0]
        assert ranking.average_precision[place] == pytest.approx(sum(precision) / len(hits))


def test_the_camera_rule_takes_items_out_after_re_ranking() -> None:
    query, gallery = draw(5, 19)
    person_id, camera_id = torch.arange(19) % 3, torch.arange(19) % 2
    person_id[4] = -1  # junk is a neighbour like any other, and then ignored
    rescoring = cross_modal(query, gallery, num_neighbours=5, weight=0.5)

    ranking = rank_embeddings(
        query,
        gallery,
        query_person_id=torch.arange(5) % 3,
        gallery_person_id=person_id,
        query_camera_id=torch.zeros(5, dtype=torch.int64),
        gallery_camera_id=camera_id,
        rescoring=rescoring,
        topk=19,
    )

    for place, row in enumerate(scores_of(rescoring, query, gallery)):
        own = [i for i in range(19) if person_id[i] == place % 3 and camera_id[i] == 0]
        kept = [i for i in range(19) if i not in own and i != 4]
        order = sorted(kept, key=lambda item: -row[item])
        found = [item for item in ranking.top_index[place].tolist() if item != -1]
        assert found == order


@pytest.mark.parametrize("count", [0, -1])
def test_a_set_without_neighbours_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=rf"reranking\.num_neighbours={count}: give 1 or more"):
        cross_modal_bonus(*draw(2, 3), num_neighbours=count, weight=0.05)


@pytest.mark.parametrize(("k1", "k2", "weight"), [(0, 1, 0.3), (1, 0, 0.3), (1, 1, 1.5)])
def test_numbers_out_of_range_are_refused(k1: int, k2: int, weight: float) -> None:
    with pytest.raises(ValueError, match=rf"reranking\.k1={k1}, k2={k2}, distance_weight={weight}"):
        k_reciprocal(*draw(2, 3), k1=k1, k2=k2, distance_weight=weight)


@pytest.mark.parametrize("rerank", [cross_modal, k_reciprocal])
def test_vectors_of_different_widths_are_refused(rerank: object) -> None:
    query, gallery = draw(2, 3)
    numbers = {"num_neighbours": 1, "weight": 0.1}
    if rerank is k_reciprocal:
        numbers = {"k1": 1, "k2": 1, "distance_weight": 0.1}

    with pytest.raises(ValueError, match=r"query \(2, 3\) and gallery \(3, 4\)"):
        rerank(query[:, 1:], gallery, **numbers)  # type: ignore[operator]
