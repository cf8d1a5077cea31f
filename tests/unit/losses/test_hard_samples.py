from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from crosswalk.losses.hard_samples import (
    hard_sample_loss,
    hard_samples,
    nearest_in_batch,
    threshold_sample_loss,
)


def vectors(size: int, seed: int) -> Tensor:
    return torch.randn(size, 4, generator=torch.Generator().manual_seed(seed)).double()


def relations(size: int, seed: int) -> Tensor:
    """Overlaps of up to three units: many are equal, many 0; 1 on the diagonal."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.randint(0, 4, (size, size), generator=generator).double() / 3
    return (half.triu(1) + half.triu(1).T).fill_diagonal_(1)


def cosine(a: Tensor, b: Tensor) -> float:
    product = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
    return product / (math.hypot(*a.tolist()) * math.hypot(*b.tolist()))


def nearest_first(anchor: Tensor, pool: Tensor, count: int) -> list[int]:
    return sorted(range(len(pool)), key=lambda place: (-cosine(anchor, pool[place]), place))[:count]


def explicit(
    anchor: Tensor, pool: Tensor, relation: Tensor, num_nearest: int, margin: float
) -> tuple[list[int], list[int], list[float]]:
    positives, negatives, losses = [], [], []
    for i in range(len(anchor)):
        near = nearest_first(anchor[i], pool, num_nearest)
        negative = min(near, key=lambda place: (relation[i, place].item(), near.index(place)))
        related = {place: 0.0 if place == i else relation[i, place].item() for place in near}
        positive = max(near, key=lambda place: (related[place], -near.index(place)))
        lead = cosine(anchor[i], pool[negative]) - cosine(anchor[i], pool[positive]) + margin
        positives.append(positive)
        negatives.append(negative)
        losses.append(max(0.0, lead / math.sqrt(2)))
    return positives, negatives, losses


@pytest.mark.parametrize("margin", [0.0, 0.3])
@pytest.mark.parametrize(("size", "num_nearest"), [(1, 20), (3, 20), (7, 20), (7, 3), (7, 1)])
@pytest.mark.parametrize("across", [False, True])
def test_losses_match_an_explicit_loop(
    across: bool, size: int, num_nearest: int, margin: float
) -> None:
    anchor, relation = vectors(size, seed=1), relations(size, seed=size)
    pool = vectors(size, seed=2) if across else anchor

    losses = hard_sample_loss(anchor, pool, relation, num_nearest=num_nearest, margin=margin)
    similarity = normalize(anchor) @ normalize(pool).T
    found = hard_samples(nearest_in_batch(similarity, num_nearest=num_nearest), relation)

    positives, negatives, expected = explicit(anchor, pool, relation, num_nearest, margin)
    assert found.positive.tolist() == positives
    assert found.negative.tolist() == negatives
    assert losses.tolist() == pytest.approx(expected, abs=1e-12)


def test_equally_similar_entries_are_candidates_in_the_order_of_the_pool() -> None:
    similarity = torch.tensor([[0.5, 0.9, 0.5, 0.9, 0.5]] * 5)

    assert nearest_in_batch(similarity, num_nearest=4).tolist() == [[1, 3, 0, 2]] * 5


def test_equally_related_candidates_are_taken_by_similarity() -> None:
    candidate = torch.tensor([[0, 2, 1, 3]] * 4)
    relation = torch.tensor([[1.0, 0.4, 0.4, 0.4]] + [[1.0] * 4] * 3)

    found = hard_samples(candidate, relation)

    assert (found.positive[0], found.negative[0]) == (2, 2)


def test_without_related_candidates_the_positive_is_the_first_one() -> None:
    found = hard_samples(torch.tensor([[0, 1], [1, 0]]), torch.eye(2))

    assert found.positive.tolist() == [0, 1]
    assert found.negative.tolist() == [1, 0]


def test_the_length_of_vectors_does_not_count() -> None:
    anchor, pool, relation = vectors(7, 1), vectors(7, 2), relations(7, 3)
    lengths = torch.arange(1, 8).double()[:, None]

    losses = hard_sample_loss(anchor * lengths, pool * lengths.flip(0), relation)

    assert_close(losses, hard_sample_loss(anchor, pool, relation), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loss", [hard_sample_loss, threshold_sample_loss])
def test_anchor_positive_and_negative_have_the_gradient_of_finite_differences(
    loss: Callable[..., Tensor],
) -> None:
    anchor, pool = vectors(5, 1).requires_grad_(), vectors(5, 2).requires_grad_()
    relation = relations(5, 4)
    options = {"threshold": 0.5} if loss is threshold_sample_loss else {}

    assert torch.autograd.gradcheck(
        lambda x, y: loss(x, y, relation, num_nearest=4, margin=0.5, **options), (anchor, pool)
    )


def test_the_loss_is_that_of_the_released_score() -> None:
    image, relation = normalize(vectors(6, 1)), relations(6, 2)
    found = hard_samples(nearest_in_batch(image @ image.T, num_nearest=20), relation)

    def score(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(1) / (a.square().sum(1) + b.square().sum(1)).sqrt()

    expected = score(image, image[found.negative]) - score(image, image[found.positive])
    assert_close(hard_sample_loss(image, image, relation), expected.clamp_min(0))


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("size", "num_nearest"), [(1, 20), (3, 20), (7, 20), (7, 4)])
def test_thresholded_losses_match_an_explicit_loop(
    size: int, num_nearest: int, threshold: float
) -> None:
    anchor, pool, relation = vectors(size, 1), vectors(size, 2), relations(size, 3)

    losses = threshold_sample_loss(
        anchor, pool, relation, threshold=threshold, num_nearest=num_nearest, margin=0.1
    )

    for i, loss in enumerate(losses.tolist()):
        near = [j for j in nearest_first(anchor[i], pool, num_nearest) if j != i]
        drawn = [cosine(anchor[i], pool[j]) for j in near if relation[i, j] >= threshold]
        driven = [cosine(anchor[i], pool[j]) for j in near if relation[i, j] < threshold]
        lead = max(driven) - min(drawn) + 0.1 if drawn and driven else 0.0
        assert loss == pytest.approx(max(0.0, lead) / math.sqrt(2), abs=1e-12)


def test_an_anchor_without_positives_or_negatives_has_no_gradient() -> None:
    anchor = vectors(3, 1).requires_grad_()

    threshold_sample_loss(anchor, anchor, torch.ones(3, 3), threshold=0.5).sum().backward()

    assert anchor.grad is not None
    assert not anchor.grad.any()
