import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from crosswalk.losses.alignment import alignment_loss
from tests.unit.losses.batches import random_batch

PUBLISHED = {"alpha": 0.6, "beta": 0.4, "scale_pos": 10.0, "scale_neg": 40.0}
OTHERS = {"alpha": 0.7, "beta": 0.2, "scale_pos": 5.0, "scale_neg": 20.0}


def explicit_loss(similarity: Tensor, positive: Tensor, settings: dict[str, float]) -> list[float]:
    losses = []
    for row, row_positive in zip(similarity.tolist(), positive.tolist(), strict=True):
        total = 0.0
        for value, same in zip(row, row_positive, strict=True):
            if same:
                total += math.log(
                    1 + math.exp(-settings["scale_pos"] * (value - settings["alpha"]))
                )
            else:
                total += math.log(1 + math.exp(settings["scale_neg"] * (value - settings["beta"])))
        losses.append(2 * total)
    return losses


def test_the_mean_of_two_pairs_is_what_a_calculation_by_hand_gives() -> None:
    similarity = torch.tensor([[0.6, 0.0], [0.8, 1.0]], dtype=torch.float64)

    losses = alignment_loss(similarity, torch.eye(2, dtype=torch.bool), **PUBLISHED)

    # ln 2 + ln(1 + e^-16), ln(1 + e^16) + ln(1 + e^-4); twice their sum over 2 images
    assert losses.mean().item() == pytest.approx(16.7112973, abs=1e-7)


@pytest.mark.parametrize("settings", [PUBLISHED, OTHERS], ids=["published", "others"])
@pytest.mark.parametrize(("num_pairs", "num_persons"), [(1, 1), (3, 1), (7, 3), (5, 5)])
def test_it_matches_an_explicit_loop(
    num_pairs: int, num_persons: int, settings: dict[str, float]
) -> None:
    similarity, positive = random_batch(num_pairs, num_persons, seed=num_pairs)

    losses = alignment_loss(similarity, positive, **settings)

    # softplus is linear above 20, where it is short by less than exp(-20) per pair
    expected = explicit_loss(similarity, positive, settings)
    assert losses.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-8)


def test_every_pair_counts_once_and_images_and_captions_may_change_places() -> None:
    similarity, positive = random_batch(6, 4, seed=3)

    loss = alignment_loss(similarity, positive, **PUBLISHED).sum()

    assert_close(loss, alignment_loss(similarity.T, positive.T, **PUBLISHED).sum())


def test_the_worst_pairs_are_finite_in_single_precision_and_pull_with_full_slope() -> None:
    similarity = torch.tensor([[-1.0, 1.0], [1.0, -1.0]], requires_grad=True)

    losses = alignment_loss(similarity, torch.eye(2, dtype=torch.bool), **PUBLISHED)
    losses.sum().backward()

    assert losses.tolist() == pytest.approx([2 * (16 + 24)] * 2, abs=1e-4)
    slopes = torch.tensor([[-20.0, 80.0], [80.0, -20.0]])
    assert_close(similarity.grad, slopes, rtol=1e-5, atol=0)
