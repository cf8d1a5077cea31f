import pytest
import torch
from torch.testing import assert_close

from crosswalk.losses.pair_losses import (
    PairLoss,
    info_nce_of_pairs,
    similarity_distribution_of_pairs,
    triplet_alignment_of_pairs,
    triplet_ranking_of_pairs,
    triplet_ranking_sum_of_pairs,
    weighted_mean,
    weighted_sum,
)
from tests.unit.losses.batches import hand_example, random_batch

OPTIONS = {"margin": 0.2, "temperature": 0.1}
TRIPLET: dict[str, PairLoss] = {
    "alignment": triplet_alignment_of_pairs(**OPTIONS),
    "ranking": triplet_ranking_of_pairs(**OPTIONS),
    "ranking sum": triplet_ranking_sum_of_pairs(**OPTIONS),
}
SOFTMAX: dict[str, PairLoss] = {
    "InfoNCE": info_nce_of_pairs(temperature=0.1),
    "similarity distribution": similarity_distribution_of_pairs(temperature=0.1),
}
LOSSES = TRIPLET | SOFTMAX


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("alignment", [0.176894, 0.196241, 0.662748]),
        ("ranking", [0.176894, 0.196241, 0.650000]),
        # text: .2 - S+ + s of each negative, image likewise, summed where above 0
        ("ranking sum", [0.176894, 0.068877 + 0.127364, 0.3 + 0.35 + 0.1]),
        ("InfoNCE", [1.014641, 1.284250, 1.557690]),
        ("similarity distribution", [5.720636, 5.788459, 27.518306]),
    ],
)
def test_a_pair_loss_covers_both_directions(loss: str, expected: list[float]) -> None:
    similarity, positive = hand_example()

    assert LOSSES[loss].of_pairs(similarity, positive).tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("loss", TRIPLET.values(), ids=TRIPLET)
def test_triplet_losses_are_summed(loss: PairLoss) -> None:
    losses, weight = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.0, 1.0])

    assert loss.reduce(losses, weight).item() == 5.0


@pytest.mark.parametrize("loss", SOFTMAX.values(), ids=SOFTMAX)
def test_softmax_losses_are_averaged_over_the_pairs_kept(loss: PairLoss) -> None:
    losses, weight = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.0, 1.0])

    assert loss.reduce(losses, weight).item() == 2.5


@pytest.mark.parametrize("reduce", [weighted_sum, weighted_mean])
def test_without_a_pair_kept_loss_and_gradient_are_zero(reduce: object) -> None:
    assert callable(reduce)
    losses = torch.tensor([1.0, 2.0], requires_grad=True)

    total = reduce(losses, torch.zeros(2))
    total.backward()

    assert total.item() == 0.0
    assert losses.grad is not None
    assert losses.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_similarities_are_computed_in_float32(
    loss: PairLoss, dtype: torch.dtype
) -> None:
    similarity, positive = random_batch(5, 3, seed=0)
    rounded = similarity.to(dtype)

    with torch.autocast("cpu", dtype=dtype):
        losses = loss.of_pairs(rounded, positive)

    assert losses.dtype == torch.float32
    assert_close(losses, loss.of_pairs(rounded.double(), positive).float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_gradients_are_those_of_finite_differences(loss: PairLoss) -> None:
    # One pair per person: with several, the soft positive treats its weights as constants.
    similarity, positive = random_batch(3, 3, seed=4)

    assert torch.autograd.gradcheck(
        lambda s: loss.of_pairs(s, positive), (similarity.requires_grad_(),), atol=1e-5
    )
