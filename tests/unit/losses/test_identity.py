import math

import pytest
import torch

from crosswalk.losses.identity import identity_loss


def test_it_is_the_negative_log_probability_of_the_person() -> None:
    logits = torch.tensor([[0.0, math.log(3), 0.0], [0.0, 0.0, math.log(2)]])

    losses = identity_loss(logits, torch.tensor([1, 0]))

    assert losses.tolist() == pytest.approx([-math.log(3 / 5), -math.log(1 / 4)], abs=1e-6)


def test_label_smoothing_spreads_a_share_of_the_target_over_all_persons() -> None:
    logits = torch.tensor([[0.0, math.log(3), 0.0]])

    (loss,) = identity_loss(logits, torch.tensor([1]), label_smoothing=0.3).tolist()

    # probabilities 0.2, 0.6, 0.2; targets 0.1, 0.8, 0.1
    assert loss == pytest.approx(-0.8 * math.log(0.6) - 2 * 0.1 * math.log(0.2), abs=1e-6)
