import math

import pytest
import torch

from crosswalk.losses.projection_matching import projection_matching_loss


@pytest.mark.parametrize(("num_pairs", "num_persons"), [(1, 1), (3, 1), (7, 3), (3, 3)])
def test_it_matches_an_explicit_loop(num_pairs: int, num_persons: int) -> None:
    generator = torch.Generator().manual_seed(num_pairs)
    projection = torch.randn(num_pairs, num_pairs, generator=generator, dtype=torch.float64)
    person_id = torch.arange(num_pairs) % num_persons
    positive = person_id[:, None] == person_id

    losses = projection_matching_loss(projection, positive)

    for anchor, loss in enumerate(losses):
        exponentials = [math.exp(value) for value in projection[anchor].tolist()]
        length = math.sqrt(int(positive[anchor].sum()))
        expected = 0.0
        for exponential, own in zip(exponentials, positive[anchor].tolist(), strict=True):
            probability = exponential / sum(exponentials)
            label = 1 / length if own else 0.0
            expected += probability * (math.log(probability) - math.log(label + 1e-8))
        assert loss.item() == pytest.approx(expected, abs=1e-6)
