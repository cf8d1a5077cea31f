from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from crosswalk.metrics.reranking import Reranking, cross_modal, k_reciprocal
from crosswalk.metrics.retrieval import RetrievalScores

UP, RIGHT = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
BETWEEN = torch.tensor([0.6, 0.8])


def fill(
    scores: RetrievalScores, role: str, views: dict[str, list[Tensor]], person_id: list[int]
) -> None:
    number = len(person_id)
    scores.update(
        role,
        {view: torch.stack(vectors) for view, vectors in views.items()},
        person_id=torch.tensor(person_id),
        camera_id=torch.zeros(number, dtype=torch.int64),
        sample_index=100 + torch.arange(number),
    )


def test_both_directions_views_and_skipped_queries_are_measured() -> None:
    scores = RetrievalScores(topk=2)
    fill(scores, "query", {"a": [UP, UP], "b": [RIGHT, UP]}, [1, 2])
    fill(scores, "gallery", {"a": [UP, RIGHT, UP], "b": [BETWEEN, UP, UP]}, [1, 2, 3])

    values, queries, _ = scores.compute()

    # Mean similarities: query 1 against the gallery 0.9, 0, 0.5; query 2 0.8, 0.5, 1.
    assert queries["text_to_image"].top_index.tolist() == [[100, 102], [102, 100]]
    assert queries["text_to_image"].top_person_id.tolist() == [[1, 3], [3, 1]]
    assert queries["text_to_image"].sample_index.tolist() == [100, 101]
    np.testing.assert_allclose(queries["text_to_image"].top_score, [[0.9, 0.5], [1, 0.8]])
    np.testing.assert_allclose(queries["text_to_image"].best_score, [0.9, 1])
    np.testing.assert_allclose(queries["text_to_image"].best_other_score, [0.5, 1])
    assert queries["text_to_image"].gallery_size.tolist() == [3, 3]
    assert queries["image_to_text"].gallery_size.tolist() == [2, 2, 2]
    assert queries["text_to_image"].first_hit.tolist() == [1, 3]
    assert queries["image_to_text"].first_hit.tolist() == [1, 1, 0]
    assert math.isnan(queries["image_to_text"].average_precision[2])
    expected = {
        "rank1": 1 / 2,
        "rank5": 1,
        "map": (1 + 1 / 3) / 2,
        "queries_without_match": 0,
        # View a: 1, 0, 1 for both queries, so person 2 is third; view b: 0.8, 0, 0 and 0.6, 1, 1.
        "view/a/rank1": 1 / 2,
        "view/a/map": (1 + 1 / 3) / 2,
        "view/b/rank1": 1,
        "image_to_text/rank1": 1,
        "image_to_text/queries_without_match": 1,
    }
    assert {name: values[name] for name in expected} == pytest.approx(expected)


def test_single_views_have_per_query_results_of_their_own() -> None:
    scores = RetrievalScores(topk=2)
    fill(scores, "query", {"a": [UP, UP], "b": [RIGHT, UP]}, [1, 2])
    fill(scores, "gallery", {"a": [UP, RIGHT, UP], "b": [BETWEEN, UP, UP]}, [1, 2, 3])

    queries = scores.compute().queries

    assert list(queries) == ["text_to_image", "view/a", "view/b", "image_to_text"]
    assert queries["view/a"].first_hit.tolist() == [1, 3]
    assert queries["view/b"].first_hit.tolist() == [1, 1]
    assert queries["view/a"].top_index.shape == (2, 0)
    np.testing.assert_allclose(queries["view/a"].best_score, [1, 1])
    np.testing.assert_allclose(queries["view/b"].best_other_score, [0, 1])


def test_further_definitions_of_map_are_measured_in_every_direction_and_view() -> None:
    scores = RetrievalScores(topk=2, extra_map=["trapezoidal", "first_hit_bonus"])
    usual = RetrievalScores(topk=2)
    for each in (scores, usual):
        fill(each, "query", {"a": [UP, UP], "b": [RIGHT, UP]}, [1, 2])
        fill(each, "gallery", {"a": [UP, RIGHT, UP], "b": [BETWEEN, UP, UP]}, [1, 2, 3])

    values = scores.compute().values

    # Text to image: the one match is first, then third; image to text: first of two equal ones.
    expected = {
        "map_trapezoidal": (1 + (0 + 1 / 3) / 2) / 2,
        "map_first_hit_bonus": (1 + (1 + 1 / 3) / 2) / 2,
        "image_to_text/map_first_hit_bonus": 1,
        "view/a/map_first_hit_bonus": (1 + (1 + 1 / 3) / 2) / 2,
    }
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    rest = {name: value for name, value in values.items() if "map_" not in name}
    assert rest == usual.compute().values


RERANKINGS = [
    partial(cross_modal, num_neighbours=3, weight=0.5),
    partial(k_reciprocal, k1=4, k2=2, distance_weight=0.3),
]


@pytest.mark.parametrize("reranking", RERANKINGS, ids=["cross_modal", "k_reciprocal"])
def test_a_re_ranking_of_the_mean_cosine_is_measured_beside_the_plain_ranking(
    reranking: Reranking,
) -> None:
    random = torch.Generator().manual_seed(3)
    person_id = {"query": torch.arange(13) % 4, "gallery": torch.arange(9) % 4}
    views = {
        role: {
            view: normalize(torch.randn(len(ids), 5, generator=random, dtype=torch.float64), dim=1)
            for view in ("a", "b")
        }
        for role, ids in person_id.items()
    }
    plain, both = (RetrievalScores(reranking=each, topk=2) for each in (None, reranking))
    for scores in (plain, both):
        for role, ids in person_id.items():
            index = torch.arange(len(ids))
            scores.update(role, views[role], ids, torch.zeros_like(ids), index)

    values, queries, _ = both.compute()

    expected, plain_queries, _ = plain.compute()
    assert {name: each for name, each in values.items() if "reranked" not in name} == expected
    for direction, (one, other) in {
        "text_to_image": ("query", "gallery"),
        "image_to_text": ("gallery", "query"),
    }.items():
        np.testing.assert_array_equal(
            queries[direction].top_index, plain_queries[direction].top_index
        )
        cosine = sum(views[one][view] @ views[other][view].T for view in ("a", "b")) / 2
        # one vector per sample whose products are these means
        joint = {role: torch.cat([views[role]["a"], views[role]["b"]], dim=1) for role in views}
        found = reranking(*(joint[role] / math.sqrt(2) for role in (one, other)))
        bonus = torch.from_numpy(found.bonus.toarray())
        score = cosine * torch.from_numpy(found.slope)[:, None] + bonus
        order = score.argsort(dim=1, descending=True)
        hits = person_id[other][order] == person_id[one][:, None]
        precision = hits.cumsum(dim=1) / torch.arange(1, hits.shape[1] + 1)
        prefix = "" if direction == "text_to_image" else f"{direction}/"
        assert values[f"{prefix}reranked/rank1"] == pytest.approx(hits[:, 0].double().mean().item())
        assert values[f"{prefix}reranked/map"] == pytest.approx(
            ((precision * hits).sum(dim=1) / hits.sum(dim=1)).mean().item()
        )
    measured = [name for name in values if "reranked/" in name]
    assert [name.rpartition("/")[2] for name in measured] == 2 * [
        *("rank1", "rank5", "rank10", "map", "minp")
    ]


def test_further_definitions_of_map_and_the_camera_rule_hold_for_a_re_ranking() -> None:
    scores = RetrievalScores(
        camera_rule=True,
        directions=["image_to_image"],
        extra_map=["first_hit_bonus"],
        reranking=partial(cross_modal, num_neighbours=1, weight=0.5),
    )
    fill(scores, "query", {"a": [UP]}, [1])
    scores.update(
        "gallery",
        {"a": torch.stack([UP, BETWEEN, torch.tensor([0.8, 0.6]), RIGHT])},
        person_id=torch.tensor([1, 1, -1, 2]),
        camera_id=torch.tensor([0, 1, 1, 1]),
        sample_index=torch.arange(4),
    )

    values = scores.compute().values

    # The one neighbour of the query is the image by its camera, which is ignored with the junk.
    assert values["reranked/rank1"] == values["reranked/map"] == 1
    assert values["reranked/map_first_hit_bonus"] == 1


def test_a_sample_seen_twice_counts_once() -> None:
    once, twice = RetrievalScores(num_query=2, num_gallery=3), RetrievalScores(num_gallery=3)
    for scores in (once, twice):
        fill(scores, "query", {"a": [UP, RIGHT]}, [1, 2])
        fill(scores, "gallery", {"a": [RIGHT, UP, BETWEEN]}, [1, 1, 2])
    fill(twice, "gallery", {"a": [RIGHT, UP]}, [1, 1])
    fill(twice, "query", {"a": [UP]}, [1])

    assert twice.compute().values == once.compute().values


def test_order_of_batches_does_not_matter() -> None:
    vectors = [UP, RIGHT, BETWEEN, BETWEEN]
    forward, backward = RetrievalScores(topk=4), RetrievalScores(topk=4)
    for scores, order in ((forward, [0, 1, 2, 3]), (backward, [3, 1, 0, 2])):
        fill(scores, "query", {"a": [BETWEEN]}, [1])
        for place in order:
            index = torch.tensor([place])
            scores.update("gallery", {"a": vectors[place][None]}, index % 2, index * 0, index)

    results = [scores.compute().queries["text_to_image"] for scores in (forward, backward)]

    assert results[0].top_index.tolist() == results[1].top_index.tolist() == [[2, 3, 1, 0]]


def test_the_camera_rule_is_off_unless_asked_for() -> None:
    without, with_rule = (
        RetrievalScores(camera_rule=rule, directions=["image_to_image"]) for rule in (False, True)
    )
    for scores in (without, with_rule):
        fill(scores, "query", {"a": [UP]}, [1])
        scores.update(
            "gallery",
            {"a": torch.stack([UP, RIGHT, BETWEEN])},
            torch.tensor([1, 1, 2]),
            torch.tensor([0, 1, 1]),
            torch.arange(3),
        )

    assert without.compute().values["map"] == pytest.approx((1 + 2 / 3) / 2)
    assert with_rule.compute().values["map"] == pytest.approx(1 / 2)


def test_double_precision_is_kept() -> None:
    scores = RetrievalScores(directions=["text_to_image"])
    fill(scores, "query", {"a": [UP.double()]}, [2])
    close = torch.tensor([1 - 1e-12, 0.0], dtype=torch.float64)
    fill(scores, "gallery", {"a": [close, UP.double()]}, [1, 2])

    assert scores.compute().values["rank1"] == 1


@pytest.mark.parametrize("role", ["query", "gallery"])
def test_missing_samples_are_an_error_that_counts_them(role: str) -> None:
    scores = RetrievalScores(**{f"num_{role}": 4})
    for each in ("query", "gallery"):
        fill(scores, each, {"a": [UP, RIGHT, UP]}, [1, 2, 3])

    with pytest.raises(RuntimeError, match=f"saw 3 different {role} samples, the split has 4"):
        scores.compute()


def test_evaluation_without_samples_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="saw no sample"):
        RetrievalScores().compute()


def test_views_must_stay_the_same() -> None:
    scores = RetrievalScores()
    fill(scores, "query", {"a": [UP]}, [1])

    with pytest.raises(ValueError, match=r"gallery batch has views \{'b': 2\}, earlier .*'a': 2"):
        fill(scores, "gallery", {"b": [UP]}, [1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_embeddings_on_a_gpu_are_measured_as_on_the_processor() -> None:
    random = torch.Generator().manual_seed(1)
    vectors = torch.nn.functional.normalize(torch.randn(41, 9, generator=random), dim=1)
    ids = torch.arange(41)
    results = []
    for device in ("cpu", "cuda"):
        scores = RetrievalScores(
            camera_rule=True,
            directions=["image_to_image"],
            extra_map=["trapezoidal"],
            reranking=RERANKINGS[1],
        ).to(device)
        for role, part in (("query", ids[:12]), ("gallery", ids)):
            columns = (vectors[part], part % 5, part % 3, part)
            view, *labels = (column.to(device) for column in columns)
            scores.update(role, {"a": view}, *labels)
        results.append(scores.compute())

    assert results[0].values == results[1].values
    hits = [result.queries["image_to_image"].first_hit.tolist() for result in results]
    assert hits[0] == hits[1]


def test_reset_forgets_samples_and_views() -> None:
    scores = RetrievalScores(directions=["text_to_image"])
    fill(scores, "query", {"a": [UP]}, [1])
    scores.reset()
    for role in ("query", "gallery"):
        fill(scores, role, {"b": [UP, RIGHT]}, [1, 2])

    assert scores.compute().queries["text_to_image"].first_hit.tolist() == [1, 1]


@pytest.mark.parametrize("directions", [[], ["image_to_sound"]])
def test_unknown_directions_are_refused(directions: list[str]) -> None:
    with pytest.raises(ValueError, match="choose one or more of"):
        RetrievalScores(directions=directions)


def test_unknown_definitions_of_map_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.extra_map=\['area'\]"):
        RetrievalScores(extra_map=["area"])


def test_unknown_roles_are_refused() -> None:
    with pytest.raises(ValueError, match="role 'probe' is unknown"):
        fill(RetrievalScores(), "probe", {"a": [UP]}, [1])
