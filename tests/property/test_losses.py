import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from crosswalk.losses.info_nce import info_nce
from crosswalk.losses.pair_losses import (
    PairLoss,
    info_nce_of_pairs,
    similarity_distribution_of_pairs,
    triplet_alignment_of_pairs,
    triplet_ranking_of_pairs,
    triplet_ranking_sum_of_pairs,
)
from crosswalk.losses.similarity_distribution import similarity_distribution_loss
from crosswalk.losses.triplet_alignment import triplet_alignment_loss
from crosswalk.losses.triplet_ranking import triplet_ranking_loss, triplet_ranking_sum_loss

TRIPLET = {"margin": 0.1, "temperature": 0.05}
LOSSES: dict[str, PairLoss] = {
    "triplet alignment": triplet_alignment_of_pairs(**TRIPLET),
    "triplet ranking": triplet_ranking_of_pairs(**TRIPLET),
    "triplet ranking sum": triplet_ranking_sum_of_pairs(**TRIPLET),
    "InfoNCE": info_nce_of_pairs(temperature=0.05),
    "similarity distribution": similarity_distribution_of_pairs(temperature=0.05),
}


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Similarities of up to 6 pairs of up to 4 persons, equal values and one person included."""
    num_pairs = draw(st.integers(1, 6))
    values = st.integers(-8, 8).map(lambda eighths: eighths / 8)
    row = st.lists(values, min_size=num_pairs, max_size=num_pairs)
    similarity = draw(st.lists(row, min_size=num_pairs, max_size=num_pairs))
    persons = draw(st.lists(st.integers(0, 3), min_size=num_pairs, max_size=num_pairs))
    person_id = torch.tensor(persons)
    return torch.tensor(similarity, dtype=torch.float64), person_id[:, None] == person_id


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@settings(max_examples=50, deadline=None)
@given(batch=batches(), random=st.randoms(use_true_random=False))
def test_the_losses_of_a_permuted_batch_are_the_permuted_losses(
    loss: PairLoss, batch: tuple[Tensor, Tensor], random: object
) -> None:
    similarity, positive = batch
    order = list(range(len(similarity)))
    random.shuffle(order)

    permuted = loss.of_pairs(similarity[order][:, order], positive[order][:, order])

    assert_close(permuted, loss.of_pairs(similarity, positive)[order], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@settings(max_examples=50, deadline=None)
@given(batch=batches())
def test_both_directions_together_do_not_care_which_is_the_query(
    loss: PairLoss, batch: tuple[Tensor, Tensor]
) -> None:
    similarity, positive = batch

    assert_close(
        loss.of_pairs(similarity.T, positive.T),
        loss.of_pairs(similarity, positive),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@settings(max_examples=50, deadline=None)
@given(batch=batches())
def test_losses_and_gradients_are_finite(loss: PairLoss, batch: tuple[Tensor, Tensor]) -> None:
    similarity, positive = batch[0].float().requires_grad_(), batch[1]

    losses = loss.of_pairs(similarity, positive)
    losses.sum().backward()

    assert similarity.grad is not None
    assert bool(losses.isfinite().all())
    assert bool(similarity.grad.isfinite().all())


@settings(max_examples=50, deadline=None)
@given(batch=batches(), shift=st.floats(-0.5, 0.5))
def test_losses_that_compare_candidates_ignore_a_shift_of_all_similarities(
    batch: tuple[Tensor, Tensor], shift: float
) -> None:
    # Not the hardest-negative loss, which is floored at 0.
    similarity, positive = batch
    moved = similarity + shift
    triplet = {"margin": 0.1, "temperature": 0.05}

    for one, other in [
        (
            triplet_alignment_loss(moved, positive, **triplet),
            triplet_alignment_loss(similarity, positive, **triplet),
        ),
        (
            triplet_ranking_sum_loss(moved, positive, **triplet),
            triplet_ranking_sum_loss(similarity, positive, **triplet),
        ),
        (
            info_nce(moved, positive, temperature=0.05),
            info_nce(similarity, positive, temperature=0.05),
        ),
        (
            similarity_distribution_loss(moved, positive, temperature=0.05),
            similarity_distribution_loss(similarity, positive, temperature=0.05),
        ),
    ]:
        assert_close(one, other, rtol=1e-6, atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(batch=batches())
def test_the_triplet_losses_are_ordered(batch: tuple[Tensor, Tensor]) -> None:
    # The soft maximum bounds the hardest negative from above, and so does the sum over all.
    similarity, positive = (batch[0] + 1) / 2, batch[1]  # at least 0: the floor has no effect
    options = {"margin": 0.1, "temperature": 0.05}
    has_negative = ~positive.all(dim=1)

    hardest = triplet_ranking_loss(similarity, positive, **options)[has_negative]
    soft = triplet_alignment_loss(similarity, positive, **options)[has_negative]
    summed = triplet_ranking_sum_loss(similarity, positive, **options)[has_negative]

    assert bool((soft >= hardest - 1e-12).all())
    assert bool((summed >= hardest - 1e-12).all())
