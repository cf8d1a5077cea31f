import math

import pytest
import torch

from crosswalk.losses.identity import identity_loss


def test_it_is_the_negative_log_probability_of_the_person() -> None:
    logits = torch.tensor([[0.0, math.log(3), 0.0], [0.0, 0.0, math.log(2)]])

    losses = identity_loss(logits, torch.tensor([1, 0]))

    assert losses.tolist() == pytest.approx([-math.log(3 / 5), -math.log(1 / 4)], abs=1e-6)
