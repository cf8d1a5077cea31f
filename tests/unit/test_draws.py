import math

import pytest
import torch

from crosswalk.draws import keyed_uniform, sample_key

MASK = (1 << 64) - 1


def splitmix_finaliser(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


@pytest.mark.parametrize("key", [0, 1, -1, 2**62 + 12345, -(2**63)])
@pytest.mark.parametrize("stream", [0, 3])
def test_draws_follow_the_hash_in_python_integers(key: int, stream: int) -> None:
    draws = keyed_uniform(torch.tensor([key]), 5, stream=stream)

    start = splitmix_finaliser((key & MASK) ^ ((stream + 1) * 0xBF58476D1CE4E5B9 & MASK))
    for place, draw in enumerate(draws[0].tolist()):
        bits = splitmix_finaliser((start + (place + 1) * 0x9E3779B97F4A7C15) & MASK)
        assert draw == (bits >> 11) / 2**53


def test_keys_follow_the_hash_in_python_integers() -> None:
    keys = sample_key(3, 7, 1, torch.tensor([0, 68_125]))

    state = 0
    for word in (3, 7, 1):
        state = splitmix_finaliser((state + (word + 1) * 0x9E3779B97F4A7C15) & MASK)
    for key, index in zip(keys.tolist(), (0, 68_125), strict=True):
        expected = splitmix_finaliser((state + (index + 1) * 0x9E3779B97F4A7C15) & MASK)
        assert key & MASK == expected


def test_keys_of_all_runs_epochs_passes_and_samples_differ() -> None:
    index = torch.arange(1000)

    keys = torch.cat(
        [
            sample_key(seed, epoch, pass_, index)
            for seed in range(4)
            for epoch in range(10)
            for pass_ in range(3)
        ]
    )

    assert keys.unique().numel() == 4 * 10 * 3 * 1000


@pytest.fixture(scope="module")
def draws() -> torch.Tensor:
    return keyed_uniform(sample_key(0, 0, 0, torch.arange(200_000)), 8)


def test_draws_lie_in_the_unit_interval_and_have_its_moments(draws: torch.Tensor) -> None:
    count = draws.numel()

    assert draws.min().item() >= 0
    assert draws.max().item() < 1
    # five standard errors of the mean and of the variance of a uniform number
    assert draws.mean().item() == pytest.approx(0.5, abs=5 * math.sqrt(1 / 12 / count))
    assert draws.var().item() == pytest.approx(1 / 12, abs=5 * math.sqrt(1 / 180 / count))


def test_draws_fill_256_bins_evenly(draws: torch.Tensor) -> None:
    expected = len(draws) / 256

    for place in range(draws.shape[1]):
        histogram = torch.histc(draws[:, place], bins=256, min=0, max=1)
        chi_square = ((histogram - expected) ** 2 / expected).sum().item()
        assert abs(chi_square - 255) < 5 * math.sqrt(2 * 255)


def test_draws_of_different_places_and_neighbouring_keys_are_uncorrelated(
    draws: torch.Tensor,
) -> None:
    neighbours = torch.cat([draws[:-1], draws[1:]], dim=1)

    correlation = torch.corrcoef(neighbours.T) - torch.eye(16, dtype=torch.float64)

    assert correlation.abs().max().item() < 6 / math.sqrt(len(draws))


def test_consecutive_plain_integers_may_serve_as_keys() -> None:
    draws = keyed_uniform(torch.arange(100_000), 2)

    correlation = torch.corrcoef(torch.cat([draws[:-1], draws[1:]], dim=1).T)

    assert (correlation - torch.eye(4)).abs().max().item() < 6 / math.sqrt(len(draws))


def test_no_two_draws_are_equal(draws: torch.Tensor) -> None:
    assert draws.unique().numel() == draws.numel()


def test_streams_of_a_key_are_uncorrelated() -> None:
    key = sample_key(0, 0, 0, torch.arange(100_000))

    correlation = torch.corrcoef(
        torch.cat([keyed_uniform(key, 2, stream=stream) for stream in range(3)], dim=1).T
    )

    assert (correlation - torch.eye(6)).abs().max().item() < 6 / math.sqrt(len(key))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_draws_are_the_same_on_a_gpu() -> None:
    index = torch.arange(1000)

    draws = keyed_uniform(sample_key(5, 2, 1, index.cuda()), 26, stream=1)

    assert torch.equal(draws.cpu(), keyed_uniform(sample_key(5, 2, 1, index), 26, stream=1))
