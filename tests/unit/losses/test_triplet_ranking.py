import pytest
import torch
from torch.testing import assert_close

from crosswalk.losses.triplet_ranking import triplet_ranking_loss, triplet_ranking_sum_loss
from tests.unit.losses.batches import hand_example, random_batch


def test_the_hardest_negative_loss_has_the_values_calculated_by_hand() -> None:
    similarity, positive = hand_example()

    text = triplet_ranking_loss(similarity, positive, margin=0.2, temperature=0.1)
    image = triplet_ranking_loss(similarity.T, positive, margin=0.2, temperature=0.1)

    assert (text + image).tolist() == pytest.approx([0.176894, 0.196241, 0.650000], abs=1e-6)


def test_a_negative_below_zero_counts_as_zero_and_gets_no_gradient() -> None:
    similarity = torch.tensor([[0.25, -0.5]], dtype=torch.float64, requires_grad=True)

    loss = triplet_ranking_loss(
        similarity, torch.tensor([[True, False]]), margin=0.5, temperature=0.1
    )
    loss.sum().backward()

    assert loss.tolist() == [0.25]
    assert_close(similarity.grad, torch.tensor([[-1.0, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize(("num_pairs", "num_persons"), [(1, 1), (3, 2), (7, 7)])
def test_the_sum_is_over_the_losses_of_single_negatives(num_pairs: int, num_persons: int) -> None:
    similarity, positive = random_batch(num_pairs, num_persons, seed=num_pairs)
    options = {"margin": 0.3, "temperature": 0.1}

    losses = triplet_ranking_sum_loss(similarity, positive, **options)

    for anchor in range(num_pairs):
        weight = (similarity[anchor][positive[anchor]] / 0.1).exp()
        lead = (weight * similarity[anchor][positive[anchor]]).sum() / weight.sum()
        rivals = similarity[anchor][~positive[anchor]]
        expected = sum(max(0.0, (0.3 - lead + rival).item()) for rival in rivals)
        assert losses[anchor].item() == pytest.approx(expected, abs=1e-12)


def test_only_negatives_inside_the_margin_get_a_gradient_from_the_sum() -> None:
    similarity = torch.tensor([[0.5, 0.4, 0.3, -0.5]], dtype=torch.float64, requires_grad=True)
    positive = torch.tensor([[True, False, False, False]])

    triplet_ranking_sum_loss(similarity, positive, margin=0.25, temperature=0.1).sum().backward()

    expected = torch.tensor([[-2.0, 1.0, 1.0, 0.0]], dtype=torch.float64)
    assert_close(similarity.grad, expected)
