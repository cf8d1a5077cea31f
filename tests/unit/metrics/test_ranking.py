from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor
from torch.nn.functional import normalize

from crosswalk.metrics import counting
from crosswalk.metrics import ranking as ranking_module
from crosswalk.metrics.average_precision import EXTRA_MAP
from crosswalk.metrics.counting import Labels, _count_by_torch, _count_compiled
from crosswalk.metrics.ranking import (
    Processes,
    Ranking,
    Rankings,
    Rescoring,
    mean_average_precision,
    mean_inp,
    most_similar,
    rank_embeddings,
    rank_k,
    rank_similarity,
    rank_views,
)


@pytest.fixture(params=[_count_compiled, _count_by_torch], ids=["compiled", "torch"], autouse=True)
def _counter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every test run with what counts on the CPU, and with what counts elsewhere."""
    monkeypatch.setitem(counting.COUNTERS, "cpu", request.param)


def rank_in_a_loop(
    similarity: list[list[float]],
    query_person_id: list[int],
    gallery_person_id: list[int],
    cameras: tuple[list[int], list[int]] | None,
    topk: int,
) -> list[dict[str, Any]]:
    """The definition, one query at a time, with Python's stable sort."""
    results = []
    for query, person_id in enumerate(query_person_id):
        kept = []
        for place, other in enumerate(gallery_person_id):
            same_camera = cameras is not None and cameras[0][query] == cameras[1][place] >= 0
            if other != -1 and not (other == person_id and same_camera):
                kept.append(place)
        kept.sort(key=lambda place: -similarity[query][place])
        is_hit = [gallery_person_id[place] == person_id for place in kept]
        ranks = [rank for rank, hit in enumerate(is_hit, start=1) if hit and person_id != -1]
        precision = [(number + 1) / rank for number, rank in enumerate(ranks)]
        scores = [similarity[query][place] for place in kept]
        without_person = [
            similarity[query][place]
            for place, other in enumerate(gallery_person_id)
            if other not in (-1, person_id)
        ]
        results.append(
            {
                "num_matches": len(ranks),
                "first_hit": ranks[0] if ranks else 0,
                "average_precision": sum(precision) / len(ranks) if ranks else math.nan,
                "trapezoidal": area_in_a_loop(scores, is_hit) if ranks else math.nan,
                "first_hit_bonus": area_with_bonus_in_a_loop(ranks) if ranks else math.nan,
                "inverse_negative_penalty": len(ranks) / ranks[-1] if ranks else math.nan,
                "top_index": (kept + [-1] * topk)[: min(topk, len(gallery_person_id))],
                "best_score": scores[0] if scores else -math.inf,
                "best_other_score": max(without_person, default=-math.inf),
            }
        )
    return results


def area_in_a_loop(scores: list[float], is_hit: list[bool]) -> float:
    """Area under the precision-recall curve with one point per different score."""
    area, recall, precision, num_items, num_hits = 0.0, 0.0, 1.0, 0, 0
    for score in sorted(set(scores), reverse=True):
        num_items += scores.count(score)
        num_hits += sum(hit for other, hit in zip(scores, is_hit, strict=True) if other == score)
        point = num_hits / sum(is_hit), num_hits / num_items
        area += (point[0] - recall) * (point[1] + precision) / 2
        recall, precision = point
    return area


def area_with_bonus_in_a_loop(ranks: list[int]) -> float:
    """The same, item by item, with precision 1 ahead of the first match."""
    area = 0.0
    for number, rank in enumerate(ranks):
        before = number / (rank - 1) if number else 1
        area += (before + (number + 1) / rank) / 2 / len(ranks)
    return area


def assert_equals_loop(ranking: Ranking, expected: list[dict[str, Any]]) -> None:
    for name in ("num_matches", "first_hit", "top_index"):
        assert getattr(ranking, name).tolist() == [query[name] for query in expected], name
    names = ("average_precision", "inverse_negative_penalty", "best_score", "best_other_score")
    for name in names:
        values = [query[name] for query in expected]
        np.testing.assert_allclose(getattr(ranking, name), values, rtol=1e-12, err_msg=name)
    for name, found in ranking.extra_average_precision.items():
        values = [query[name] for query in expected]
        np.testing.assert_allclose(found, values, rtol=1e-12, err_msg=name)


def draw(
    num_queries: int, num_gallery: int, num_persons: int, num_levels: int, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Similarities of few levels, so that many are equal, with junk and two or three cameras."""
    random = torch.Generator().manual_seed(seed)
    similarity = torch.randint(
        -num_levels, num_levels, (num_queries, num_gallery), generator=random
    )
    return (
        similarity.double() / num_levels,
        torch.randint(0, num_persons, (num_queries,), generator=random),
        torch.randint(-1, num_persons, (num_gallery,), generator=random),
        torch.randint(-1, 3, (num_queries,), generator=random),
        torch.randint(-1, 3, (num_gallery,), generator=random),
    )


SIZES = [(7, 1, 1), (3, 7, 2), (9, 40, 3), (31, 300, 7), (5, 1031, 40), (2, 2100, 1)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_levels", [1, 3, 1000])
@pytest.mark.parametrize(("num_queries", "num_gallery", "num_persons"), SIZES)
@pytest.mark.parametrize("with_cameras", [False, True])
def test_ranking_equals_an_explicit_loop_ties_included(
    num_queries: int,
    num_gallery: int,
    num_persons: int,
    num_levels: int,
    with_cameras: bool,
    dtype: torch.dtype,
) -> None:
    similarity, *ids = draw(num_queries, num_gallery, num_persons, num_levels, seed=num_gallery)
    similarity = similarity.to(dtype)
    ids[1][0] = ids[0][0] = 0
    ids[2][0], ids[3][0] = 1, 2
    names = ["query_person_id", "gallery_person_id", "query_camera_id", "gallery_camera_id"]
    labels = dict(zip(names, ids if with_cameras else ids[:2], strict=False))

    ranking = rank_similarity(
        similarity, **labels, topk=11, extra_map=list(EXTRA_MAP), tile_bytes=100_000
    )

    cameras = (ids[2].tolist(), ids[3].tolist()) if with_cameras else None
    expected = rank_in_a_loop(similarity.tolist(), ids[0].tolist(), ids[1].tolist(), cameras, 11)
    assert ranking.extra_average_precision.keys() == EXTRA_MAP.keys()
    assert_equals_loop(ranking, expected)


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (counting, "GROUP_BYTES", 1),
        (counting, "FLAG_BYTES", 1),
        (ranking_module, "TILE_ROWS", 3),
        (ranking_module, "NUM_TILES", 1),
        (torch, "get_num_threads", lambda: 3),
    ],
)
def test_sizes_of_tiles_and_groups_and_threads_do_not_matter(
    module: ModuleType, name: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    similarity, query_person_id, gallery_person_id, *_ = draw(13, 70, 5, num_levels=4, seed=3)
    labels = (query_person_id.tolist(), gallery_person_id.tolist())

    monkeypatch.setattr(module, name, value)
    ranking = rank_similarity(
        similarity,
        query_person_id=query_person_id,
        gallery_person_id=gallery_person_id,
        extra_map=list(EXTRA_MAP),
        tile_bytes=1,
    )

    assert_equals_loop(ranking, rank_in_a_loop(similarity.tolist(), *labels, None, 10))


@pytest.mark.parametrize("held_bytes", [0, 2**20])
@pytest.mark.parametrize("num_levels", [1, 3, 1000])
@pytest.mark.parametrize(("num_queries", "num_gallery"), [(1, 7), (23, 9), (31, 300)])
def test_both_directions_and_views_come_from_the_same_tiles(
    num_queries: int,
    num_gallery: int,
    num_levels: int,
    held_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    views, ids = [], []
    for seed in (1, 2):
        similarity, *ids = draw(num_queries, num_gallery, 3, num_levels, seed)
        views.append(similarity)
    ids[0][0], ids[1][0], ids[2][0] = 0, 0, -1
    labels = Labels(*ids)
    monkeypatch.setattr(ranking_module, "HELD_BYTES", held_bytes)
    monkeypatch.setattr(ranking_module, "LEAST_ROWS", 2)

    found = rank_views(
        torch.cat(views, dim=1),
        torch.eye(num_gallery, dtype=torch.float64).repeat(1, 2),  # products are the levels
        labels,
        widths=[num_gallery, num_gallery],
        by_view=True,
        both_ways=True,
        topk=11,
        extra_map=list(EXTRA_MAP),
    )

    mean = (views[0] + views[1]) / 2
    there = (ids[0].tolist(), ids[1].tolist(), (ids[2].tolist(), ids[3].tolist()))
    back = (there[1], there[0], there[2][::-1])
    assert_equals_loop(found.joint, rank_in_a_loop(mean.tolist(), *there, 11))
    assert found.backward is not None
    assert_equals_loop(found.backward, rank_in_a_loop(mean.T.tolist(), *back, 11))
    for ranking, similarity in zip(found.views, views, strict=True):
        assert_equals_loop(ranking, rank_in_a_loop(similarity.tolist(), *there, 0))


@pytest.mark.parametrize(("num_queries", "width"), [(3, 5), (77, 33), (1043, 16)])
def test_a_network_that_says_the_same_of_everybody_ranks_by_place_in_both_directions(
    num_queries: int, width: int
) -> None:
    vector = normalize(torch.randn(1, 2 * width, generator=torch.Generator().manual_seed(1)))
    queries, gallery = torch.arange(num_queries), torch.arange(60)

    found = rank_views(
        vector.repeat(num_queries, 1),
        vector.repeat(60, 1),
        Labels(queries % 60, gallery),
        widths=[width, width],
        both_ways=True,
    )

    assert found.joint.first_hit.tolist() == (queries % 60 + 1).tolist()
    assert found.backward is not None
    expected = [place + 1 if place < num_queries else 0 for place in range(60)]
    assert found.backward.first_hit.tolist() == expected


@pytest.mark.parametrize("world_size", [2, 3, 50])
def test_shares_of_processes_together_are_the_whole(world_size: int) -> None:
    random = torch.Generator().manual_seed(world_size)
    query, gallery = (normalize(torch.randn(n, 12, generator=random)) for n in (83, 57))
    _, *ids = draw(83, 57, num_persons=9, num_levels=1, seed=1)
    options: dict[str, Any] = {
        "widths": [5, 7],
        "by_view": True,
        "both_ways": True,
        "extra_map": list(EXTRA_MAP),
    }
    alone = rank_views(query, gallery, Labels(*ids), **options)

    def rank_share(processes: Processes) -> Rankings:
        return rank_views(query, gallery, Labels(*ids), **options, processes=processes)

    for found in on_pretended_processes(rank_share, world_size):
        rankings = zip(
            (found.joint, *found.views, found.backward),
            (alone.joint, *alone.views, alone.backward),
            strict=True,
        )
        for ours, expected in rankings:
            assert ours is not None
            assert expected is not None
            np.testing.assert_equal(ours._asdict(), expected._asdict())


def on_pretended_processes(
    function: Callable[[Processes], Any], world_size: int
) -> list[Any | Exception]:
    """Return what the function returns or raises on each of some threads that gather."""
    barrier = threading.Barrier(world_size)
    values: list[Any] = [None] * world_size

    def run(rank: int) -> Any | Exception:  # noqa: ANN401
        def gather(value: object) -> list[Any]:
            values[rank] = copy.deepcopy(value)
            barrier.wait(timeout=60)
            gathered = list(values)
            barrier.wait(timeout=60)
            return gathered

        try:
            return function(Processes(rank, world_size, gather))
        except ValueError as error:
            return error

    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(run, range(world_size)))


def test_a_bad_embedding_is_an_error_on_every_process() -> None:
    query, ids = torch.ones(40, 2), torch.arange(40)
    query[33, 1] = math.nan

    found = on_pretended_processes(
        lambda processes: rank_views(
            query, torch.ones(40, 2), Labels(ids, ids), widths=[2], processes=processes
        ),
        world_size=3,
    )

    assert [str(error).partition(" embeddings")[0] for error in found] == ["1 query"] * 3


def test_the_most_similar_items_are_those_of_a_sort() -> None:
    random = torch.Generator().manual_seed(4)
    query, gallery = (torch.randint(-2, 3, (n, 3), generator=random).double() for n in (29, 71))

    found = most_similar(query, gallery, 20, tile_bytes=1)

    expected = (query @ gallery.T).argsort(dim=1, descending=True, stable=True)[:, :20]
    assert found.tolist() == expected.tolist()
    assert most_similar(query, gallery[:4], 20).shape == (29, 4)


@pytest.mark.parametrize("num_views", [1, 2, 3])
def test_similarity_of_several_views_is_their_mean(num_views: int) -> None:
    random = torch.Generator().manual_seed(num_views)
    query = torch.nn.functional.normalize(
        torch.randn(11, num_views, 5, generator=random, dtype=torch.float64), dim=2
    )
    gallery = torch.nn.functional.normalize(
        torch.randn(23, num_views, 5, generator=random, dtype=torch.float64), dim=2
    )
    person_id = torch.arange(23) % 11

    ranking = rank_embeddings(
        query.flatten(1),
        gallery.flatten(1),
        query_person_id=person_id[:11],
        gallery_person_id=person_id,
        num_views=num_views,
        topk=4,
    )

    mean = [
        [sum(float(q[view] @ g[view]) for view in range(num_views)) / num_views for g in gallery]
        for q in query
    ]
    expected = rank_in_a_loop(mean, person_id[:11].tolist(), person_id.tolist(), None, 4)
    assert_equals_loop(ranking, expected)
    best = [sorted(row, reverse=True)[:4] for row in mean]
    np.testing.assert_allclose(ranking.top_score, best, rtol=1e-12)


@pytest.mark.parametrize("topk", [0, 3])
@pytest.mark.parametrize("with_pictures", [False, True])
@pytest.mark.parametrize("with_bonus", [False, True])
def test_the_best_other_score_is_the_first_one_of_a_gallery_without_the_person(
    topk: int, with_pictures: bool, with_bonus: bool
) -> None:
    _, *ids = draw(13, 57, num_persons=5, num_levels=1, seed=9)
    ids[0][3], ids[0][4] = 77, -1  # somebody who is not in the gallery, and junk
    random = torch.Generator().manual_seed(2)
    query, gallery = (normalize(torch.randn(n, 6, generator=random)) for n in (13, 57))
    pictures = torch.arange(-3, 10), torch.arange(57) % 19
    bonus = sparse.random_array((13, 57), density=0.3, rng=1).tocsr()

    def ranked(rows: Tensor, kept: Tensor) -> Ranking:
        extra: dict[str, Any] = {}
        if with_pictures:
            extra = {"query_picture": pictures[0][rows], "gallery_picture": pictures[1][kept]}
        if with_bonus:
            part = bonus[rows.numpy()][:, kept.numpy()]
            extra["rescoring"] = Rescoring(np.zeros(len(rows)), np.full(len(rows), 0.7), part)
        return rank_embeddings(
            query[rows],
            gallery[kept],
            query_person_id=ids[0][rows],
            gallery_person_id=ids[1][kept],
            query_camera_id=ids[2][rows],
            gallery_camera_id=ids[3][kept],
            topk=topk,
            **extra,
        )

    ranking = ranked(torch.arange(13), torch.arange(57))

    for number, person in enumerate(ids[0].tolist()):
        without = (ids[1] != person).nonzero().flatten() if person != -1 else torch.arange(57)
        # ranked beside another query, as a ranking without any match is refused
        other = next(row for row in range(13) if ids[0][row] not in (person, 77, -1))
        alone = ranked(torch.tensor([number, other]), without)
        assert alone.num_matches[0] == 0
        assert ranking.best_other_score[number] == pytest.approx(alone.best_score[0], abs=1e-6)
    assert ranking.best_other_score[3:5].tolist() == ranking.best_score[3:5].tolist()
    if topk:
        np.testing.assert_array_equal(ranking.best_score, ranking.top_score[:, 0])


def test_who_is_alone_in_the_gallery_leaves_no_score_behind() -> None:
    ranking = rank_similarity(
        torch.tensor([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7]]),
        query_person_id=torch.tensor([1, 2]),
        gallery_person_id=torch.tensor([1, 1, -1]),
        query_camera_id=torch.tensor([4, 4]),
        gallery_camera_id=torch.tensor([4, 5, 6]),
    )

    assert ranking.best_score.tolist() == pytest.approx([0.8, 0.9])
    assert ranking.best_other_score.tolist() == pytest.approx([-math.inf, 0.9])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_ranks_as_the_processor_does() -> None:
    random = torch.Generator().manual_seed(3)
    vectors = [torch.randn(number, 31, generator=random).double() for number in (37, 523)]
    query, gallery = (torch.nn.functional.normalize(each, dim=1) for each in vectors)
    _, *ids = draw(37, 523, num_persons=11, num_levels=1, seed=5)
    names = ["query_person_id", "gallery_person_id", "query_camera_id", "gallery_camera_id"]

    here, there = (
        rank_embeddings(
            query.to(device),
            gallery.to(device),
            **{name: each.to(device) for name, each in zip(names, ids, strict=True)},
            extra_map=list(EXTRA_MAP),
        )
        for device in ("cpu", "cuda")
    )

    for name in ("num_matches", "first_hit", "average_precision", "top_index"):
        np.testing.assert_array_equal(getattr(there, name), getattr(here, name), err_msg=name)
    for name, precision in here.extra_average_precision.items():
        np.testing.assert_array_equal(there.extra_average_precision[name], precision)
    np.testing.assert_allclose(there.top_score, here.top_score, rtol=0, atol=1e-12)


def test_equal_embeddings_rank_in_gallery_order() -> None:
    query = torch.tensor([[1.0, 0.0]])
    gallery = torch.tensor([[1.0, 0.0]]).repeat(70, 1)

    ranking = rank_embeddings(
        query,
        gallery,
        query_person_id=torch.tensor([5]),
        gallery_person_id=torch.arange(70),
        topk=3,
    )

    assert ranking.first_hit.tolist() == [6]
    assert ranking.top_index.tolist() == [[0, 1, 2]]


def test_half_precision_embeddings_are_compared_in_float32() -> None:
    query = torch.tensor([[1.0, 2**-8]]).bfloat16()
    gallery = torch.tensor([[1.0, 0.0], [1.0, 2**-8]]).bfloat16()

    ranking = rank_embeddings(
        query, gallery, query_person_id=torch.tensor([1]), gallery_person_id=torch.arange(2)
    )

    assert ranking.first_hit.tolist() == [1]  # 1 + 2**-16 is more than 1, not so in bfloat16
    assert ranking.top_score[0, 0] == 1 + 2**-16


def test_measures_are_means_over_queries_with_a_match() -> None:
    ranking = rank_similarity(
        torch.tensor([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7], [0.9, 0.8, 0.7]]),
        query_person_id=torch.tensor([1, 2, 3]),
        gallery_person_id=torch.tensor([1, 2, 1]),
    )

    assert ranking.valid.tolist() == [True, True, False]
    assert rank_k(ranking, 1) == 1 / 2
    assert rank_k(ranking, 2) == 1
    assert mean_average_precision(ranking) == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)
    assert mean_inp(ranking) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_mean_of_a_further_definition_leaves_the_usual_one_as_it_is() -> None:
    ranking = rank_similarity(
        torch.tensor([[0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.7, 0.6]]),
        query_person_id=torch.tensor([1, 2, 3]),
        gallery_person_id=torch.tensor([1, 2, 1, 2]),
        extra_map=["first_hit_bonus", "trapezoidal"],
    )

    # Person 1 is found at ranks 1 and 3, person 2 at 2 and 4.
    usual = (1 + 2 / 3) / 2, (1 / 2 + 2 / 4) / 2
    area = ((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2) / 2, ((0 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2
    with_bonus = area[0], ((1 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2
    assert mean_average_precision(ranking) == pytest.approx(sum(usual) / 2)
    assert mean_average_precision(ranking, "trapezoidal") == pytest.approx(sum(area) / 2)
    assert mean_average_precision(ranking, "first_hit_bonus") == pytest.approx(sum(with_bonus) / 2)


def test_unknown_definitions_are_refused_with_the_choice() -> None:
    with pytest.raises(ValueError, match=r"data.extra_map=\['area'\].*first_hit_.*trapezoidal"):
        rank_similarity(
            torch.zeros(1, 1),
            query_person_id=torch.tensor([1]),
            gallery_person_id=torch.tensor([1]),
            extra_map=["area"],
        )


def test_a_query_with_all_matches_ignored_is_skipped_and_leaves_the_lists() -> None:
    ranking = rank_similarity(
        torch.tensor([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7]]),
        query_person_id=torch.tensor([1, 2]),
        gallery_person_id=torch.tensor([1, 2, -1]),
        query_camera_id=torch.tensor([4, 4]),
        gallery_camera_id=torch.tensor([4, 5, 6]),
        topk=3,
    )

    assert ranking.num_matches.tolist() == [0, 1]
    assert ranking.top_index.tolist() == [[1, -1, -1], [0, 1, -1]]


def test_error_says_which_rule_removed_how_many_matches() -> None:
    with pytest.raises(ValueError, match=r"no query has a match \(3 queries\)") as caught:
        rank_similarity(
            torch.zeros(3, 4),
            query_person_id=torch.tensor([1, 2, 9]),
            gallery_person_id=torch.tensor([1, 1, 2, -1]),
            query_camera_id=torch.tensor([0, 1, 1]),
            gallery_camera_id=torch.tensor([0, 0, 1, 1]),
        )

    message = str(caught.value)
    assert "2 lost all their 3 matches to the camera rule" in message
    assert "1 show persons that the gallery does not hold" in message
    assert "left out of the gallery: 1 junk image (person -1)" in message
    assert "data.camera_rule=false" in message


def test_error_without_a_camera_rule_points_to_the_person_ids() -> None:
    with pytest.raises(ValueError, match="person ids of query and gallery come from the same"):
        rank_similarity(
            torch.zeros(1, 1),
            query_person_id=torch.tensor([1]),
            gallery_person_id=torch.tensor([2]),
        )


@pytest.mark.parametrize("role", ["query", "gallery"])
def test_embeddings_that_are_not_finite_are_refused(role: str) -> None:
    embeddings = {"query": torch.ones(5, 2), "gallery": torch.ones(6, 2)}
    embeddings[role][3, 1] = math.nan

    with pytest.raises(ValueError, match=rf"1 {role} embeddings are NaN .*first: \[3\]"):
        rank_embeddings(
            **embeddings,
            query_person_id=torch.arange(5),
            gallery_person_id=torch.arange(6),
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_person_id": torch.zeros(3)}, r"query_person_id has shape \(3,\), expected \(2,\)"),
        ({"query_camera_id": torch.zeros(2)}, "give both, or neither"),
        ({"similarity": torch.zeros(2, 0)}, r"gallery_person_id has shape \(3,\), expected \(0,\)"),
        ({"similarity": torch.full((2, 3), math.inf)}, "NaN or infinite"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change: dict[str, Tensor], message: str) -> None:
    inputs = {
        "similarity": torch.zeros(2, 3),
        "query_person_id": torch.zeros(2, dtype=torch.long),
        "gallery_person_id": torch.zeros(3, dtype=torch.long),
    }

    with pytest.raises(ValueError, match=message):
        rank_similarity(**(inputs | change))


def test_a_query_is_not_ranked_against_its_own_picture() -> None:
    query = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    gallery = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [0.0, 1.0]], dtype=torch.float64)

    ranking = rank_embeddings(
        query,
        gallery,
        query_person_id=torch.tensor([7, 8]),
        gallery_person_id=torch.tensor([7, 7, 3, 5]),
        query_picture=torch.tensor([0, 1]),
        gallery_picture=torch.tensor([0, -1, -1, 1]),
    )

    # of the first query: item 0 is itself, item 2 is ahead of its match; the second has no match
    assert ranking.top_index.tolist() == [[2, 1, 3, -1], [1, 2, 0, -1]]
    assert (ranking.num_matches.tolist(), ranking.first_hit.tolist()) == ([1, 0], [2, 0])
    assert ranking.average_precision[0] == 0.5
