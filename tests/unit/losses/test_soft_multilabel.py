import math
import statistics as stdlib

import pytest
import torch
from torch import Tensor

from crosswalk.losses.soft_multilabel import (
    CameraStatistics,
    camera_statistics,
    consistency_loss,
    discriminative_loss,
    initial_centers,
)


def random_rows(number: int, size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("cameras", [[4], [0, 0], [7, 2, 7, 7, 2, 0, 1], [1, 1, 1], [3, 2, 1]])
def test_statistics_are_those_of_each_cameras_own_rows(cameras: list[int]) -> None:
    values = random_rows(len(cameras), 3, seed=len(cameras))

    found = camera_statistics(values, torch.tensor(cameras))

    assert found.size.tolist() == [cameras.count(camera) for camera in sorted(set(cameras))]
    for place, camera in enumerate(sorted(set(cameras))):
        for column in range(3):
            own = [values[i, column].item() for i, c in enumerate(cameras) if c == camera]
            assert found.mean[place, column].item() == pytest.approx(stdlib.mean(own), rel=1e-12)
            std = stdlib.stdev(own) if len(own) > 1 else 0.0
            assert found.std[place, column].item() == pytest.approx(std, rel=1e-12)


def test_cameras_with_too_few_rows_are_left_out() -> None:
    found = camera_statistics(random_rows(4, 2, seed=0), torch.tensor([5, 1, 5, 3]), min_size=2)

    assert found.size.tolist() == [2]
    assert camera_statistics(random_rows(2, 2, 0), torch.tensor([0, 1]), min_size=2).mean.shape == (
        0,
        2,
    )


def test_gradients_of_the_statistics_match_torch() -> None:
    values = random_rows(6, 4, seed=1).requires_grad_()
    camera = torch.tensor([0, 1, 0, 1, 1, 0])

    found = camera_statistics(values, camera)
    (ours,) = torch.autograd.grad((found.mean * 2 + found.std.square()).sum(), values)
    parts = [values[camera == one] for one in (0, 1)]
    expected = sum((part.mean(dim=0) * 2 + part.var(dim=0)).sum() for part in parts)
    (wanted,) = torch.autograd.grad(expected, values)

    torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("copies", [2, 3, 7])
def test_equal_rows_have_no_deviation_and_give_it_no_gradient(
    copies: int, dtype: torch.dtype
) -> None:
    # thirds of 0.1 are no binary fractions: a plain mean of equal numbers is off by a rounding
    same = torch.tensor([[-0.1 / 3, -7.3, -30.7]], dtype=dtype).repeat(copies, 1).requires_grad_()
    other = torch.tensor([[0.0, -1.0, -2.0], [-1.0, -4.0, -2.5]], dtype=dtype)
    camera = torch.tensor([0] * copies + [1, 1])

    found = camera_statistics(torch.cat([same, other]), camera)
    (found.std - 5).square().sum().backward()

    assert found.std[0].tolist() == [0.0, 0.0, 0.0]
    assert same.grad is not None
    assert not same.grad.any()


def test_the_hand_example_of_the_consistency_loss() -> None:
    values = torch.tensor([[0, 0], [2, 4], [2, 0], [4, 2]], dtype=torch.float64)
    cameras = camera_statistics(values, torch.tensor([1, 1, 2, 2]))
    mean = 0.1 * cameras.mean.mean(dim=0)
    std = 0.1 * cameras.std.mean(dim=0)

    terms = consistency_loss(cameras, mean, std, use_std=True)

    assert terms.tolist() == pytest.approx([4.0625, 8.5625, 8.465, 3.065], abs=1e-9)
    assert terms.mean().item() == pytest.approx(6.03875)
    without = consistency_loss(cameras, mean, std, use_std=False)
    assert without.tolist() == pytest.approx([4.0625, 8.5625], abs=1e-12)


def test_no_camera_means_no_term() -> None:
    nobody = CameraStatistics(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0))

    assert consistency_loss(nobody, torch.zeros(3), torch.zeros(3), use_std=True).shape == (0,)


@pytest.mark.parametrize("num_columns", [1, 2, 256])
def test_initial_centers_weigh_cameras_alike_and_skip_the_deviation_of_one_image(
    num_columns: int,
) -> None:
    values = random_rows(7, 5, seed=3)
    cameras = [2, 2, 2, 2, 4, 6, 6]

    mean, std = initial_centers(values, torch.tensor(cameras), num_columns=num_columns)

    rows = {c: values[[place for place, own in enumerate(cameras) if own == c]] for c in (2, 4, 6)}
    expected = sum(rows[camera].mean(dim=0) for camera in (2, 4, 6)) / 3
    torch.testing.assert_close(mean, expected, rtol=1e-12, atol=1e-14)
    deviations = (rows[2].std(dim=0) + rows[6].std(dim=0)) / 2
    torch.testing.assert_close(std, deviations, rtol=1e-12, atol=1e-14)


def test_cameras_with_one_image_each_have_a_mean_and_deviation_zero() -> None:
    mean, std = initial_centers(torch.tensor([[1.0, 3.0], [3.0, 5.0]]), torch.tensor([0, 1]))

    assert (mean.tolist(), std.tolist()) == ([2.0, 4.0], [0.0, 0.0])


@pytest.mark.parametrize(
    ("distances", "positive"),
    [
        ([0.4, 0.8], [True, False]),
        ([0.1, 0.2, 1.9], [True, True, False]),
        ([0.3, 0.5], [False, False]),
        ([0.3, 3.9, 0.0], [True, True, True]),
        ([], []),
    ],
)
def test_the_discriminative_loss_matches_a_calculation_by_hand(
    distances: list[float], positive: list[bool]
) -> None:
    loss = discriminative_loss(
        torch.tensor(distances, dtype=torch.float64), torch.tensor(positive, dtype=torch.bool)
    )

    def mean(chosen: bool, if_none: float) -> float:
        near = [math.exp(-d) for d, p in zip(distances, positive, strict=True) if p == chosen]
        return sum(near) / len(near) if near else if_none

    drawn, apart = mean(True, 1.0), mean(False, 0.5)
    assert loss.item() == pytest.approx(-math.log(drawn / (drawn + apart)), rel=1e-12)


def test_a_loss_without_positives_still_pushes_and_one_without_pairs_does_nothing() -> None:
    distance = torch.tensor([0.3, 0.5], dtype=torch.float64, requires_grad=True)
    nothing = torch.zeros(0, requires_grad=True)

    discriminative_loss(distance, torch.tensor([False, False])).backward()
    discriminative_loss(nothing, torch.zeros(0, dtype=torch.bool)).backward()

    apart = (math.exp(-0.3) + math.exp(-0.5)) / 2
    expected = [-math.exp(-d) / 2 / (1 + apart) for d in (0.3, 0.5)]
    assert distance.grad is not None
    assert distance.grad.tolist() == pytest.approx(expected, rel=1e-12)
    assert nothing.grad is not None
    assert nothing.grad.shape == (0,)
