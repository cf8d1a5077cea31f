from __future__ import annotations

import numpy as np
import pytest
import torch

from crosswalk.metrics.retrieval import RetrievalScores
from crosswalk.metrics.samples import Samples, draw_persons

QUERY_PERSONS = [3, 3, 3, 7, 9, 9, 4]
GALLERY_PERSONS = [9, 3, 7, 7, 8, 9, 3, 9, 0]


def role(persons: list[int], start: int) -> Samples:
    number = len(persons)
    index = torch.arange(number)
    return Samples(
        torch.arange(start, start + 3 * number, dtype=torch.float64).reshape(number, 3),
        torch.tensor(persons),
        index % 2 - 1,
        index,
    )


ROLES = {"query": role(QUERY_PERSONS, 0), "gallery": role(GALLERY_PERSONS, 100)}


@pytest.mark.parametrize("most_each", [1, 2, 100])
def test_drawn_samples_are_those_of_persons_of_both_roles(most_each: int) -> None:
    drawn = draw_persons(ROLES, num_persons=9, most_each=most_each, seed=0)

    for name, is_query in (("query", True), ("gallery", False)):
        mine = drawn.is_query == is_query
        persons = ROLES[name].person_id.tolist()
        for person in (3, 7, 9):
            expected = min(most_each, persons.count(person))
            assert (drawn.person_id[mine] == person).sum() == expected
        assert set(drawn.person_id[mine].tolist()) == {3, 7, 9}
        index = drawn.sample_index[mine]
        assert index.tolist() == sorted(set(index.tolist()))
        for field in ("embedding", "person_id", "camera_id"):
            rows = getattr(ROLES[name], field)[torch.from_numpy(index)].numpy()
            np.testing.assert_array_equal(getattr(drawn, field)[mine], rows)


def test_the_choice_depends_on_seed_and_persons_alone() -> None:
    other = {
        name: samples._replace(embedding=-samples.embedding) for name, samples in ROLES.items()
    }

    chosen = [
        draw_persons(roles, num_persons=1, most_each=9, seed=seed).sample_index.tolist()
        for roles, seed in ((ROLES, 0), (other, 0))
    ]
    persons = {
        int(draw_persons(ROLES, num_persons=1, most_each=9, seed=seed).person_id[0])
        for seed in range(9)
    }

    assert chosen[0] == chosen[1]
    assert len(persons) > 1


def test_nobody_in_both_roles_gives_no_samples() -> None:
    roles = {"query": role([1, 2], 0), "gallery": role([3], 0)}

    drawn = draw_persons(roles, num_persons=5, most_each=5, seed=0)

    assert drawn.embedding.shape == (0, 3)
    assert len(drawn.is_query) == 0


@pytest.mark.parametrize("number", [0, 2])
def test_scores_return_drawn_samples_only_where_asked_for(number: int) -> None:
    scores = RetrievalScores(directions=["image_to_image"], num_drawn_persons=number)
    ids = torch.tensor([4, 5, 6])
    for name in ("query", "gallery"):
        scores.update(name, {"global": torch.eye(3)}, ids, -ids, ids)

    drawn = scores.compute().drawn

    if number == 0:
        assert drawn is None
    else:
        assert drawn is not None
        assert len(np.unique(drawn.person_id)) == 2
        assert drawn.embedding.dtype == np.float32
        np.testing.assert_array_equal(
            drawn.embedding, np.eye(3)[drawn.person_id - 4].astype(np.float32)
        )
