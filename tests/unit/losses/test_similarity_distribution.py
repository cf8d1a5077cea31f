import math

import pytest
import torch

from crosswalk.losses.similarity_distribution import (
    label_divergence,
    similarity_distribution_loss,
)
from tests.unit.losses.batches import hand_example, random_batch


@pytest.mark.parametrize(("num_pairs", "num_persons"), [(1, 1), (3, 1), (3, 3), (7, 3)])
def test_it_matches_an_explicit_loop(num_pairs: int, num_persons: int) -> None:
    similarity, positive = random_batch(num_pairs, num_persons, seed=num_pairs)

    losses = similarity_distribution_loss(similarity, positive, temperature=0.1)

    for anchor, loss in enumerate(losses):
        exponentials = [math.exp(s / 0.1) for s in similarity[anchor].tolist()]
        count = int(positive[anchor].sum())
        expected = 0.0
        for exponential, own in zip(exponentials, positive[anchor].tolist(), strict=True):
            probability = exponential / sum(exponentials)
            label = 1 / count if own else 0.0
            expected += probability * (math.log(probability) - math.log(label + 1e-8))
        assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_it_gives_the_values_calculated_by_hand() -> None:
    similarity, positive = hand_example()

    text = similarity_distribution_loss(similarity, positive, temperature=0.1)
    image = similarity_distribution_loss(similarity.T, positive.T, temperature=0.1)

    expected = [5.720636, 5.788459, 27.518306]
    assert (text + image).tolist() == pytest.approx(expected, abs=1e-5)


def test_the_divergence_is_zero_where_the_softmax_is_the_label() -> None:
    label = torch.tensor([[0.25, 0.25, 0.5]])

    divergence = label_divergence(label.log() + 3.0, label)

    assert divergence.item() == pytest.approx(0.0, abs=1e-6)
