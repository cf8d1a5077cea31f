import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from crosswalk.losses.projection_matching import soft_projection_matching_loss


def relations(num_pairs: int) -> Tensor:
    """Symmetric, 1 on the diagonal, many zeros elsewhere."""
    generator = torch.Generator().manual_seed(num_pairs)
    half = torch.rand(num_pairs, num_pairs, generator=generator, dtype=torch.float64)
    half = half * (half < 0.6)
    return (half.triu(1) + half.triu(1).T).fill_diagonal_(1)


@pytest.mark.parametrize("epsilon", [1e-8, 1e-3])
@pytest.mark.parametrize("num_pairs", [1, 3, 7])
def test_soft_labels_match_an_explicit_loop(num_pairs: int, epsilon: float) -> None:
    generator = torch.Generator().manual_seed(num_pairs)
    projection = 3 * torch.randn(num_pairs, num_pairs, generator=generator, dtype=torch.float64)
    relation = relations(num_pairs)

    losses = soft_projection_matching_loss(projection, relation, epsilon=epsilon)

    for anchor, loss in enumerate(losses):
        exponentials = [math.exp(value) for value in projection[anchor].tolist()]
        related = relation[anchor].tolist()
        expected = 0.0
        for exponential, weight in zip(exponentials, related, strict=True):
            probability, label = exponential / sum(exponentials), weight / sum(related)
            expected += probability * (math.log(probability) - math.log(label + epsilon))
        assert loss.item() == pytest.approx(expected, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize(
    ("relation", "anchors", "expected"),
    [(0.0, "text", 3.1012), (0.0, "image", 0.3829), (0.5, "text", 0.0662)],
)
def test_two_pairs_have_the_loss_found_by_hand(
    relation: float, anchors: str, expected: float
) -> None:
    text = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    image = torch.tensor([[3.0, 0.0], [0.0, 5.0]], dtype=torch.float64)
    anchor, candidate = (text, image) if anchors == "text" else (image, text)

    losses = soft_projection_matching_loss(
        anchor @ normalize(candidate).T, torch.full((2, 2), relation).fill_diagonal_(1)
    )

    assert losses.mean().item() == pytest.approx(expected, abs=5e-5)


def test_only_the_ratios_within_a_row_count() -> None:
    projection, relation = torch.randn(5, 5).double(), relations(5)
    scale = torch.tensor([0.1, 1.0, 7.0, 0.5, 3.0]).double()

    losses = soft_projection_matching_loss(projection, scale[:, None] * relation)

    assert_close(losses, soft_projection_matching_loss(projection, relation))


def test_the_gradient_of_soft_matching_is_that_of_finite_differences() -> None:
    projection = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(
        lambda x: soft_projection_matching_loss(x, relations(4)), projection
    )


def test_long_features_overflow_nothing() -> None:
    projection = torch.tensor([[900.0, -900.0], [-900.0, 900.0]], requires_grad=True)

    losses = soft_projection_matching_loss(projection, torch.eye(2).flip(0) + 1e-30)
    losses.sum().backward()

    assert losses.tolist() == pytest.approx([18.4207, 18.4207], abs=1e-3)  # -log(1e-8)
    assert projection.grad is not None
    assert bool(projection.grad.isfinite().all())
