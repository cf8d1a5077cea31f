import math

import pytest
import torch
from torch.testing import assert_close

from crosswalk.losses.triplet_alignment import triplet_alignment_loss
from tests.unit.losses.batches import hand_example, random_batch


@pytest.mark.parametrize(("num_pairs", "num_persons"), [(3, 2), (3, 3), (7, 3), (7, 7)])
def test_it_matches_an_explicit_loop(num_pairs: int, num_persons: int) -> None:
    similarity, positive = random_batch(num_pairs, num_persons, seed=num_pairs)

    losses = triplet_alignment_loss(similarity, positive, margin=0.2, temperature=0.1)

    for anchor, loss in enumerate(losses):
        row = similarity[anchor].tolist()
        own = [s for s, p in zip(row, positive[anchor], strict=True) if p]
        other = [s for s, p in zip(row, positive[anchor], strict=True) if not p]
        weight = [math.exp(s / 0.1) for s in own]
        lead = sum(w * s for w, s in zip(weight, own, strict=True)) / sum(weight)
        rival = 0.1 * math.log(sum(math.exp(s / 0.1) for s in other))
        assert loss.item() == pytest.approx(max(0.0, 0.2 + rival - lead), abs=1e-12)


def test_it_gives_the_values_calculated_by_hand() -> None:
    similarity, positive = hand_example()

    text = triplet_alignment_loss(similarity, positive, margin=0.2, temperature=0.1)
    image = triplet_alignment_loss(similarity.T, positive, margin=0.2, temperature=0.1)

    assert text.tolist() == pytest.approx([0.176894, 0.068877, 0.304859], abs=1e-6)
    assert image.tolist() == pytest.approx([0.0, 0.127364, 0.357889], abs=1e-6)


@pytest.mark.parametrize("num_pairs", [1, 3])
def test_without_negatives_loss_and_gradient_are_zero(num_pairs: int) -> None:
    similarity = torch.full((num_pairs, num_pairs), 0.3, requires_grad=True)
    positive = torch.ones(num_pairs, num_pairs, dtype=torch.bool)

    losses = triplet_alignment_loss(similarity, positive, margin=0.1, temperature=0.015)
    losses.sum().backward()

    assert losses.tolist() == [0.0] * num_pairs
    assert_close(similarity.grad, torch.zeros(num_pairs, num_pairs), rtol=0, atol=0)


def test_one_anchor_without_negatives_does_not_disturb_the_others() -> None:
    similarity = torch.tensor([[0.5, 0.4], [0.2, 0.3]], dtype=torch.float64, requires_grad=True)
    positive = torch.tensor([[True, True], [False, True]])

    losses = triplet_alignment_loss(similarity, positive, margin=0.25, temperature=0.1)
    losses.sum().backward()

    assert losses.tolist() == pytest.approx([0.0, 0.15], abs=1e-12)
    expected = torch.tensor([[0.0, 0.0], [1.0, -1.0]], dtype=torch.float64)
    assert_close(similarity.grad, expected, rtol=0, atol=1e-12)


def test_the_capped_negative_is_constant_and_has_no_gradient() -> None:
    # exp(1 / 0.01) = 2.7e43 is above the cap of 1e36: the rival counts as 0.01 * log(1e36).
    similarity = torch.tensor([[0.5, 1.0]], dtype=torch.float64, requires_grad=True)

    loss = triplet_alignment_loss(
        similarity, torch.tensor([[True, False]]), margin=0.1, temperature=0.01
    )
    loss.sum().backward()

    assert loss.item() == pytest.approx(0.1 + 0.01 * 36 * math.log(10) - 0.5, abs=1e-12)
    expected = torch.tensor([[-1.0, 0.0]], dtype=torch.float64)
    assert_close(similarity.grad, expected, rtol=0, atol=0)


def test_it_does_not_overflow_in_float32() -> None:
    similarity = torch.tensor([[1.0, -1.0]], requires_grad=True)

    loss = triplet_alignment_loss(
        similarity, torch.tensor([[True, False]]), margin=2.5, temperature=0.001
    )
    loss.sum().backward()

    assert loss.item() == pytest.approx(2.5 - 1.0 - 1.0, abs=1e-6)
    assert_close(similarity.grad, torch.tensor([[-1.0, 1.0]]), rtol=0, atol=1e-6)


def test_an_anchor_without_a_positive_is_named() -> None:
    with pytest.raises(ValueError, match=r"anchors \[0\] have no positive"):
        triplet_alignment_loss(
            torch.zeros(1, 2), torch.tensor([[False, False]]), margin=0.1, temperature=0.015
        )
