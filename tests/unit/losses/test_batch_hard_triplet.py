from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from crosswalk.losses.batch_hard_triplet import batch_hard_triplet_loss


def hinge(lead: float, margin: float | None) -> float:
    return math.log(1 + math.exp(lead)) if margin is None else max(0.0, margin + lead)


def explicit(features: Tensor, person_id: Tensor, margin: float | None) -> list[float]:
    losses = []
    for anchor in range(len(features)):
        distance = [math.dist(features[anchor], other) for other in features.tolist()]
        others = [place for place in range(len(features)) if place != anchor]
        positives = [distance[p] for p in others if person_id[p] == person_id[anchor]]
        negatives = [distance[p] for p in others if person_id[p] != person_id[anchor]]
        if positives and negatives:
            losses.append(hinge(max(positives) - min(negatives), margin))
        else:
            losses.append(0.0)
    return losses


PEOPLE = [[0, 0, 1, 1, 1, 2], [3, 3], [0, 1, 2], [5], [1, 1, 2]]


@pytest.mark.parametrize("margin", [0.7, None])
@pytest.mark.parametrize("person_id", PEOPLE)
def test_losses_match_an_explicit_loop(person_id: list[int], margin: float | None) -> None:
    generator = torch.Generator().manual_seed(len(person_id))
    features = torch.randn(len(person_id), 5, generator=generator, dtype=torch.float64)

    losses = batch_hard_triplet_loss(features, torch.tensor(person_id), margin=margin)

    expected = explicit(features, torch.tensor(person_id), margin)
    assert losses.tolist() == pytest.approx(expected, abs=1e-12)


def test_the_gradient_is_that_of_finite_differences() -> None:
    person_id = torch.tensor([0, 0, 1, 1, 2])
    features = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def loss(x: Tensor) -> Tensor:
        return batch_hard_triplet_loss(x, person_id, margin=5.0).sum()

    assert torch.autograd.gradcheck(loss, features.requires_grad_())


def test_equal_images_of_a_person_give_no_nan_gradient() -> None:
    features = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 2.0]], requires_grad=True)

    batch_hard_triplet_loss(features, torch.tensor([0, 0, 1]), margin=2.0).sum().backward()

    # both anchors are pushed off the negative at distance 1, along the first axis
    assert features.grad is not None
    assert features.grad.tolist() == [[-1.0, 0.0], [-1.0, 0.0], [2.0, 0.0]]


@pytest.mark.parametrize("margin", [0.5, None])
def test_without_a_negative_the_gradient_is_zero(margin: float | None) -> None:
    features = torch.tensor([[1.0, 2.0], [0.0, 2.0]], requires_grad=True)

    losses = batch_hard_triplet_loss(features, torch.tensor([4, 4]), margin=margin)
    losses.sum().backward()

    assert features.grad is not None
    assert features.grad.tolist() == [[0.0, 0.0], [0.0, 0.0]]
