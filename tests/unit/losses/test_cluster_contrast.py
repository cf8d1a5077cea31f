from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from crosswalk.losses.cluster_contrast import cluster_contrast_loss


@pytest.mark.parametrize("epsilon", [1e-6, 1e-2])
@pytest.mark.parametrize("temperature", [0.05, 0.2])
@pytest.mark.parametrize(("size", "num_classes"), [(1, 1), (3, 7), (7, 3)])
def test_losses_match_an_explicit_loop(
    size: int, num_classes: int, temperature: float, epsilon: float
) -> None:
    generator = torch.Generator().manual_seed(size)
    scores = torch.rand(size, num_classes, generator=generator).double() * 2 - 1
    target = torch.randint(0, num_classes, (size,), generator=generator)

    losses = cluster_contrast_loss(scores, target, temperature=temperature, epsilon=epsilon)

    for sample, loss in enumerate(losses.tolist()):
        exponentials = [math.exp(score / temperature) for score in scores[sample].tolist()]
        probability = exponentials[int(target[sample])] / (sum(exponentials) + epsilon)
        assert loss == pytest.approx(-math.log(probability + epsilon), rel=1e-10)


def test_classes_without_members_are_as_if_they_were_not_there() -> None:
    scores = torch.randn(3, 5).double().requires_grad_()
    kept = [0, 2, 3]
    alone = scores.detach()[:, kept].requires_grad_()

    losses = cluster_contrast_loss(
        scores.masked_fill(torch.tensor([False, True, False, False, True]), -torch.inf),
        torch.tensor([0, 2, 3]),
    )
    losses.sum().backward()
    expected = cluster_contrast_loss(alone, torch.arange(3))
    expected.sum().backward()

    assert_close(losses, expected)
    assert scores.grad is not None
    assert_close(scores.grad[:, kept], alone.grad)
    assert not scores.grad[:, [1, 4]].any()


def test_a_sample_with_one_class_alone_has_no_loss() -> None:
    loss = cluster_contrast_loss(torch.tensor([[0.3]]).double(), torch.tensor([0]))

    assert loss.item() == pytest.approx(0.0, abs=2e-6)


def test_the_loss_of_a_hopeless_sample_is_bounded_and_it_has_no_gradient() -> None:
    scores = torch.tensor([[1.0, -1.0]], requires_grad=True)

    loss = cluster_contrast_loss(scores, torch.tensor([1]), temperature=0.01)
    loss.sum().backward()

    assert loss.item() == pytest.approx(-math.log(1e-6), rel=1e-6)
    assert scores.grad is not None
    assert scores.grad.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("temperature", "least_similar"),
    # below exp(-1000), nothing has a probability beside the constant
    [(0.05, -math.log(1 / (2 + 1e-6 * math.exp(20)) + 1e-6)), (0.001, -math.log(1e-6))],
)
def test_no_temperature_overflows_float32(temperature: float, least_similar: float) -> None:
    scores = torch.tensor([[-1.0, -1.0], [1.0, 1.0]], requires_grad=True)

    losses = cluster_contrast_loss(scores, torch.tensor([1, 1]), temperature=temperature)
    losses.sum().backward()

    assert losses.tolist() == pytest.approx([least_similar, math.log(2)], rel=1e-4)
    assert scores.grad is not None
    assert bool(scores.grad.isfinite().all())


def test_the_gradient_is_that_of_finite_differences() -> None:
    scores = torch.rand(4, 5, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(
        lambda x: cluster_contrast_loss(x, torch.tensor([0, 4, 2, 2]), temperature=0.3), scores
    )
