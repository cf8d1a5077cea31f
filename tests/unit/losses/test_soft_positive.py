import math

import pytest
import torch

from crosswalk.losses.soft_positive import soft_positive_similarity
from tests.unit.losses.batches import random_batch


@pytest.mark.parametrize(("num_pairs", "num_persons"), [(1, 1), (3, 1), (3, 3), (7, 3)])
def test_it_is_the_softmax_weighted_mean_over_positives(num_pairs: int, num_persons: int) -> None:
    similarity, positive = random_batch(num_pairs, num_persons, seed=num_pairs)

    soft = soft_positive_similarity(similarity, positive, temperature=0.1)

    for anchor in range(num_pairs):
        own = [s for s, p in zip(similarity[anchor], positive[anchor], strict=True) if p]
        weight = [math.exp(s / 0.1) for s in own]
        expected = sum(w * s for w, s in zip(weight, own, strict=True)) / sum(weight)
        assert soft[anchor].item() == pytest.approx(float(expected), abs=1e-12)


def test_the_gradient_is_the_weight_because_the_weights_are_constants() -> None:
    similarity = torch.tensor([[0.2, 0.2, 0.9]], dtype=torch.float64, requires_grad=True)

    soft_positive_similarity(
        similarity, torch.tensor([[True, True, False]]), temperature=0.1
    ).sum().backward()

    assert similarity.grad is not None
    torch.testing.assert_close(
        similarity.grad, torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_an_anchor_without_a_positive_is_named() -> None:
    positive = torch.tensor([[True, False], [False, False]])

    with pytest.raises(ValueError, match=r"anchors \[1\] have no positive"):
        soft_positive_similarity(torch.zeros(2, 2), positive, temperature=0.1)
