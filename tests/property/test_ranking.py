"""What must hold for the ranking of any similarities."""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis import given, settings
from torch import Tensor

from crosswalk.metrics.average_precision import EXTRA_MAP
from crosswalk.metrics.ranking import Ranking, rank_similarity
from crosswalk.metrics.retrieval import RetrievalScores

MEASURES = ("num_matches", "first_hit", "average_precision", "inverse_negative_penalty")
TOP = ("top_index", "top_score", "best_score", "best_other_score")


class Problem(NamedTuple):
    similarity: Tensor
    query_person_id: Tensor
    gallery_person_id: Tensor
    query_camera_id: Tensor
    gallery_camera_id: Tensor


@st.composite
def problems(draw: st.DrawFn, distinct: bool = False) -> Problem:
    """Small problems with junk, cameras and, unless ``distinct``, equal similarities."""
    num_queries, num_gallery = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    size = num_queries * num_gallery
    levels = (
        st.permutations(range(size))
        if distinct
        else st.lists(st.integers(-3, 3), min_size=size, max_size=size)
    )
    similarity = torch.tensor(draw(levels), dtype=torch.float64).view(num_queries, num_gallery)

    def ids(lowest: int, number: int) -> Tensor:
        return torch.tensor(
            draw(st.lists(st.integers(lowest, 2), min_size=number, max_size=number))
        )

    problem = Problem(
        similarity - size // 2,
        ids(0, num_queries),
        ids(-1, num_gallery),
        ids(-1, num_queries),
        ids(-1, num_gallery),
    )
    problem.query_person_id[0] = problem.gallery_person_id[0] = 1  # one query has a match
    problem.query_camera_id[0] = -1
    return problem


def rank(problem: Problem, **changes: Tensor) -> Ranking:
    inputs: dict[str, Any] = problem._asdict() | changes
    return rank_similarity(inputs.pop("similarity"), **inputs, topk=20, extra_map=list(EXTRA_MAP))


def assert_same(first: Ranking, second: Ranking, names: tuple[str, ...] = MEASURES) -> None:
    for name in names:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


@settings(deadline=None)
@given(problems(), st.integers(-9, 9), st.sampled_from([0.25, 1.0, 8.0]))
def test_shifted_and_scaled_similarities_rank_the_same(
    problem: Problem, shift: int, scale: float
) -> None:
    moved = rank(problem, similarity=scale * problem.similarity + shift)

    assert_same(moved, rank(problem), (*MEASURES, "top_index"))


@settings(deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_permuted_queries_permute_the_results(problem: Problem, random: Random) -> None:
    order = random.sample(range(len(problem.similarity)), len(problem.similarity))
    permuted = rank(
        problem,
        similarity=problem.similarity[order],
        query_person_id=problem.query_person_id[order],
        query_camera_id=problem.query_camera_id[order],
    )

    expected = rank(problem)
    arrays = {name: getattr(expected, name)[order] for name in (*MEASURES, *TOP)}
    assert_same(permuted, expected._replace(**arrays), (*MEASURES, *TOP))


@settings(deadline=None)
@given(problems(distinct=True), st.randoms(use_true_random=False))
def test_a_permuted_gallery_without_ties_ranks_the_same(problem: Problem, random: Random) -> None:
    num_gallery = problem.similarity.shape[1]
    order = random.sample(range(num_gallery), num_gallery)
    permuted = rank(
        problem,
        similarity=problem.similarity[:, order],
        gallery_person_id=problem.gallery_person_id[order],
        gallery_camera_id=problem.gallery_camera_id[order],
    )

    assert_same(permuted, rank(problem), (*MEASURES, "top_score", "best_score", "best_other_score"))


@settings(deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_the_area_does_not_depend_on_the_order_of_equal_items(
    problem: Problem, random: Random
) -> None:
    num_gallery = problem.similarity.shape[1]
    order = random.sample(range(num_gallery), num_gallery)
    permuted = rank(
        problem,
        similarity=problem.similarity[:, order],
        gallery_person_id=problem.gallery_person_id[order],
        gallery_camera_id=problem.gallery_camera_id[order],
    )

    areas = [each.extra_average_precision["trapezoidal"] for each in (permuted, rank(problem))]
    np.testing.assert_allclose(areas[0], areas[1], rtol=1e-12)


@settings(deadline=None)
@given(problems(distinct=True))
def test_without_ties_the_bonus_is_half_a_match_where_the_first_item_is_wrong(
    problem: Problem,
) -> None:
    ranking = rank(problem)

    bonus = np.subtract(
        *(ranking.extra_average_precision[name] for name in ("first_hit_bonus", "trapezoidal"))
    )[ranking.valid]
    share = 0.5 / ranking.num_matches[ranking.valid]
    expected = np.where(ranking.first_hit[ranking.valid] > 1, share, 0)
    np.testing.assert_allclose(bonus, expected, rtol=0, atol=1e-12)


@settings(deadline=None)
@given(problems(), st.integers(-9, 9), st.integers(0, 9))
def test_junk_in_the_gallery_changes_nothing(problem: Problem, score: int, place: int) -> None:
    place = min(place, problem.similarity.shape[1])

    def with_junk(values: Tensor, junk: float) -> Tensor:
        more = torch.full((*values.shape[:-1], 1), junk, dtype=values.dtype)
        return torch.cat([values[..., :place], more, values[..., place:]], dim=-1)

    polluted = rank(
        problem,
        similarity=with_junk(problem.similarity, score),
        gallery_person_id=with_junk(problem.gallery_person_id, -1),
        gallery_camera_id=with_junk(problem.gallery_camera_id, 0),
    )

    assert_same(polluted, rank(problem), (*MEASURES, "best_score", "best_other_score"))


@settings(deadline=None)
@given(problems(), st.integers(1, 9), st.data())
def test_samples_given_twice_in_any_batches_count_once(
    problem: Problem, batch_size: int, data: st.DataObject
) -> None:
    vectors = {
        "query": torch.nn.functional.normalize(problem.similarity + 0.25, dim=1),
        "gallery": torch.eye(problem.similarity.shape[1], dtype=torch.float64),
    }
    ids = {"query": problem.query_person_id, "gallery": problem.gallery_person_id}
    scores = [RetrievalScores(directions=["text_to_image"]) for _ in range(2)]
    for role, embedding in vectors.items():
        number = len(embedding)
        once = torch.arange(number)
        again = torch.tensor(data.draw(st.lists(st.integers(0, number - 1))), dtype=torch.int64)
        for each, order in zip(scores, (once, torch.cat([again, once])), strict=True):
            for index in order.split(batch_size):
                each.update(role, {"global": embedding[index]}, ids[role][index], -index - 1, index)

    first, second = (each.compute() for each in scores)

    assert first.values == second.values
    np.testing.assert_equal(first.queries, second.queries)
