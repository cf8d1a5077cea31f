import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from crosswalk.losses.queue_contrast import contrast_loss, queue_contrast_loss


def unit_rows(num: int, size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(num, size, generator=generator, dtype=torch.float64))


def test_one_query_has_the_loss_of_a_calculation_by_hand() -> None:
    positive = torch.tensor([0.5], dtype=torch.float64)
    negative = torch.tensor([[0.2, -0.1]], dtype=torch.float64)

    (loss,) = contrast_loss(positive, negative, temperature=0.07).tolist()

    assert loss == pytest.approx(0.0138568, abs=1e-7)  # ln(1 + e^-4.285714 + e^-8.571429)


def test_there_may_be_no_key_to_tell_the_positive_from() -> None:
    positive = torch.tensor([0.3, -0.9], requires_grad=True)

    losses = contrast_loss(positive, torch.zeros(2, 0), temperature=0.07)
    losses.sum().backward()

    assert losses.tolist() == [0, 0]
    assert positive.grad is not None
    assert positive.grad.tolist() == [0, 0]


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize(
    ("batch_size", "is_negative"),
    [
        (1, [True]),
        (3, [True] * 7),
        (5, [True, False, True, True, False, False, True]),
        (3, [False] * 4),
    ],
)
def test_it_matches_an_explicit_loop(
    batch_size: int, is_negative: list[bool], temperature: float
) -> None:
    query, key = unit_rows(batch_size, 4, 1), unit_rows(batch_size, 4, 2)
    queue = unit_rows(len(is_negative), 4, 3)

    losses = queue_contrast_loss(
        query, key, queue, torch.tensor(is_negative), temperature=temperature
    )

    for row, loss in enumerate(losses.tolist()):
        own = math.exp(float(query[row] @ key[row]) / temperature)
        rivals = sum(
            math.exp(float(query[row] @ other) / temperature)
            for other, used in zip(queue, is_negative, strict=True)
            if used
        )
        assert loss == pytest.approx(-math.log(own / (own + rivals)), rel=1e-9, abs=1e-12)


def test_the_gradient_ignores_rows_that_are_left_out() -> None:
    key, queue = unit_rows(3, 4, 2), unit_rows(5, 4, 3)
    used = torch.tensor([True, False, True, False, True])
    masked, cut = (unit_rows(3, 4, 1).requires_grad_() for _ in range(2))

    queue_contrast_loss(masked, key, queue, used, temperature=0.07).sum().backward()
    everyone = torch.ones(3, dtype=torch.bool)
    queue_contrast_loss(cut, key, queue[used], everyone, temperature=0.07).sum().backward()

    assert_close(masked.grad, cut.grad, rtol=1e-12, atol=1e-12)


def test_a_batch_whose_people_fill_the_queue_has_no_loss_and_no_gradient() -> None:
    query = unit_rows(3, 4, 1).requires_grad_()

    losses = queue_contrast_loss(
        query, unit_rows(3, 4, 2), unit_rows(5, 4, 3), torch.zeros(5).bool(), temperature=0.07
    )
    losses.sum().backward()

    assert losses.tolist() == [0, 0, 0]
    assert query.grad is not None
    assert not query.grad.any()
