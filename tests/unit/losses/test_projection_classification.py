import math

import pytest
import torch
from torch import Tensor

from crosswalk.losses.projection_classification import (
    projection_classification_loss,
    projection_logits,
)


def random_pairs(num_pairs: int, size: int, num_persons: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num_pairs)
    image, text = torch.randn(2, num_pairs, size, generator=generator, dtype=torch.float64)
    weight = torch.randn(size, num_persons, generator=generator, dtype=torch.float64)
    return image, text, weight


def explicit_logits(embedding: Tensor, partner: Tensor, weight: Tensor) -> list[list[float]]:
    logits = []
    for own, other in zip(embedding.tolist(), partner.tolist(), strict=True):
        length = math.hypot(*other)
        along = sum(a * b / length for a, b in zip(own, other, strict=True))
        logits.append(
            [
                sum(along * o / length * w for o, w in zip(other, column, strict=True))
                / math.hypot(*column)
                for column in weight.T.tolist()
            ]
        )
    return logits


@pytest.mark.parametrize(("num_pairs", "size", "num_persons"), [(1, 3, 2), (5, 4, 3), (3, 2, 7)])
def test_logits_are_products_of_projections_and_directions(
    num_pairs: int, size: int, num_persons: int
) -> None:
    image, text, weight = random_pairs(num_pairs, size, num_persons)

    logits = projection_logits(image, text, weight)

    for row, expected in zip(logits.tolist(), explicit_logits(image, text, weight), strict=True):
        assert row == pytest.approx(expected, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
@pytest.mark.parametrize(("num_pairs", "num_persons"), [(1, 2), (5, 3), (3, 7)])
def test_it_is_the_cross_entropy_of_these_logits(
    num_pairs: int, num_persons: int, label_smoothing: float
) -> None:
    image, text, weight = random_pairs(num_pairs, 4, num_persons)
    person_id = torch.arange(num_pairs) % num_persons

    losses = projection_classification_loss(
        image, text, weight, person_id, label_smoothing=label_smoothing
    )

    for loss, logits, own in zip(
        losses.tolist(), explicit_logits(image, text, weight), person_id.tolist(), strict=True
    ):
        total = sum(math.exp(logit) for logit in logits)
        expected = 0.0
        for person, logit in enumerate(logits):
            share = label_smoothing / num_persons + (1 - label_smoothing) * (person == own)
            expected -= share * math.log(math.exp(logit) / total)
        assert loss == pytest.approx(expected, rel=1e-10)


def test_the_part_of_an_embedding_across_its_partner_does_not_count() -> None:
    partner = torch.tensor([[2.0, 0.0]])

    near = projection_logits(torch.tensor([[3.0, 4.0]]), partner, torch.eye(2))
    far = projection_logits(torch.tensor([[3.0, -9.0]]), partner, torch.eye(2))

    assert near.tolist() == far.tolist() == [[3.0, 0.0]]
