import math

import pytest
import torch

from crosswalk.losses.cross_modal_projection import cross_modal_projection_loss


@pytest.mark.parametrize("person_id", [[1, 2, 3], [4, 4, 5, 4], [7], [2, 2, 2]])
def test_it_is_the_divergence_from_labels_of_length_one(person_id: list[int]) -> None:
    size = len(person_id)
    projection = torch.randn(size, size, generator=torch.Generator().manual_seed(size)).double()
    people = torch.tensor(person_id)

    losses = cross_modal_projection_loss(projection, people[:, None] == people, epsilon=1e-6)

    for row, loss in enumerate(losses.tolist()):
        alike = [person_id[row] == other for other in person_id]
        weights = [math.exp(each) for each in projection[row].tolist()]
        expected = 0.0
        for weight, same in zip(weights, alike, strict=True):
            share = weight / sum(weights)
            label = same / math.sqrt(sum(alike))
            expected += share * (math.log(share) - math.log(label + 1e-6))
        assert loss == pytest.approx(expected, abs=2e-6)  # labels are float32
