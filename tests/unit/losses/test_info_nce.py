import math

import pytest
import torch

from crosswalk.losses.info_nce import info_nce
from tests.unit.losses.batches import hand_example, random_batch


@pytest.mark.parametrize(("num_anchors", "num_candidates"), [(1, 1), (3, 3), (3, 7)])
def test_it_matches_an_explicit_loop(num_anchors: int, num_candidates: int) -> None:
    similarity, positive = random_batch(num_candidates, num_candidates, seed=1)

    losses = info_nce(similarity[:num_anchors], positive[:num_anchors], temperature=0.1)

    for anchor, loss in enumerate(losses):
        exponentials = [math.exp(s / 0.1) for s in similarity[anchor].tolist()]
        expected = -math.log(exponentials[anchor] / sum(exponentials))
        assert loss.item() == pytest.approx(expected, abs=1e-9)


def test_another_pair_of_the_same_person_is_a_negative() -> None:
    similarity, positive = hand_example()

    text = info_nce(similarity, positive, temperature=0.1)
    image = info_nce(similarity.T, positive.T, temperature=0.1)

    expected = [1.014641, 1.284250, 1.557690]
    assert (0.5 * (text + image)).tolist() == pytest.approx(expected, abs=1e-6)


def test_a_hopeless_pair_has_a_finite_loss() -> None:
    similarity = torch.tensor([[-1.0, 1.0], [0.0, 0.0]])

    losses = info_nce(similarity, torch.eye(2, dtype=torch.bool), temperature=0.005)

    assert losses.tolist() == pytest.approx([400.0, math.log(2)])
