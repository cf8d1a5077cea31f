import math
import sys

import pytest
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.testing import assert_close

from crosswalk.labels.consensus_division import (
    clean_probability,
    coin_tosses,
    divide,
    min_max_normalised,
    predict_clean,
    resolve_votes,
)

SHORT = {"max_iter": 10, "tol": 1e-2, "reg_covar": 5e-4}
LONG = {"max_iter": 100, "tol": 1e-4, "reg_covar": 1e-6}


def two_heaps(num_clean: int, num_noisy: int, *, seed: int) -> Tensor:
    """Return losses around 0.5 of clean pairs, then around 4 of noisy ones."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.randn(num_clean + num_noisy, generator=generator) * 0.3
    centre = torch.tensor([0.5] * num_clean + [4.0] * num_noisy)
    return (centre + spread).clamp_min(0)


def fitted_by_hand(losses: list[float], *, max_iter: int, tol: float, reg_covar: float) -> Tensor:
    """Return the clean probabilities of a mixture fitted with plain loops."""
    means = [min(losses), max(losses)]
    for _ in range(100):  # Lloyd's algorithm to convergence
        near = [min((0, 1), key=lambda k: abs(x - means[k])) for x in losses]
        heaps = [[x for x, k in zip(losses, near, strict=True) if k == heap] for heap in (0, 1)]
        means = [sum(heap) / len(heap) for heap in heaps]
    share = [[float(k == heap) for heap in (0, 1)] for k in near]

    def maximised() -> list[tuple[float, float, float]]:
        components = []
        for heap in (0, 1):
            count = sum(row[heap] for row in share) + 10 * sys.float_info.epsilon
            mean = sum(row[heap] * x for row, x in zip(share, losses, strict=True)) / count
            squares = [row[heap] * (x - mean) ** 2 for row, x in zip(share, losses, strict=True)]
            components.append((count / len(losses), mean, sum(squares) / count + reg_covar))
        return components

    components, previous = maximised(), -math.inf
    for _ in range(max_iter + 1):
        densities = [
            [
                w * math.exp(-((x - m) ** 2) / (2 * v)) / math.sqrt(2 * math.pi * v)
                for w, m, v in components
            ]
            for x in losses
        ]
        share = [[d / sum(row) for d in row] for row in densities]
        likelihood = sum(math.log(sum(row)) for row in densities) / len(losses)
        if abs(likelihood - previous) < tol:
            break
        components, previous = maximised(), likelihood
    return torch.tensor([row[0] for row in share], dtype=torch.float64)


@pytest.mark.parametrize("settings", [SHORT, LONG], ids=["short", "long"])
@pytest.mark.parametrize(("num_clean", "num_noisy"), [(30, 7), (20, 20), (3, 2)])
def test_the_probability_is_that_of_a_mixture_fitted_with_loops(
    settings: dict[str, float], num_clean: int, num_noisy: int
) -> None:
    losses = min_max_normalised(two_heaps(num_clean, num_noisy, seed=num_clean).double())

    probability = clean_probability(losses, seed=0, **settings)

    expected = fitted_by_hand(losses.tolist(), **settings)
    assert_close(probability, expected, rtol=0, atol=5e-3)


def test_the_low_heap_is_the_clean_one_whichever_component_it_is() -> None:
    losses = two_heaps(15, 6, seed=1)
    order = torch.randperm(21, generator=torch.Generator().manual_seed(2))

    for seed in range(5):
        clean = divide(losses[order], seed=seed, **SHORT).clean
        assert clean.tolist() == [float(index < 15) for index in order.tolist()]


def test_min_max_normalisation_keeps_the_order_and_reaches_both_ends() -> None:
    losses = torch.tensor([3.0, -1.0, 1.0])

    assert min_max_normalised(losses).tolist() == [1.0, 0.0, 0.5]


def test_the_threshold_is_strict() -> None:
    assert predict_clean(torch.tensor([0.5, 0.50001])).tolist() == [False, True]


@pytest.mark.parametrize(
    ("num_pairs", "num_noisy"), [(1, 1), (7, 1), (99, 1), (100, 2), (250, 3), (1000, 11)]
)
def test_of_all_clean_pairs_the_lowest_hundredth_and_one_are_called_noisy(
    num_pairs: int, num_noisy: int
) -> None:
    probability = torch.linspace(0.6, 0.9, num_pairs, dtype=torch.float64).flip(0)

    prediction = predict_clean(probability)

    assert prediction.tolist() == [True] * (num_pairs - num_noisy) + [False] * num_noisy


def test_ties_with_the_lowest_hundredth_are_noisy_too() -> None:
    assert predict_clean(torch.tensor([0.7, 0.9, 0.7])).tolist() == [False, True, False]


def test_tosses_decide_pairs_without_consensus_in_their_order() -> None:
    votes = torch.tensor([1, 2, 0, 1, 1])

    assert resolve_votes(votes, torch.tensor([1, 0, 1]), num_views=2).tolist() == [1, 1, 0, 0, 1]


def test_the_coin_is_fair_and_depends_on_the_seed_only() -> None:
    tosses = coin_tosses(10_000, seed=3)

    torch.manual_seed(17)
    assert torch.equal(tosses, coin_tosses(10_000, seed=3))
    assert not torch.equal(tosses, coin_tosses(10_000, seed=4))
    assert abs(tosses.float().mean().item() - 0.5) < 0.02


def test_two_views_keep_what_both_call_clean_and_toss_for_the_rest() -> None:
    #            both clean, only the first, only the second, neither
    first = torch.tensor([0.1, 0.2, 0.15, 0.1, 0.2, 3.0, 3.1, 3.0, 3.2])
    second = torch.tensor([0.2, 0.1, 0.20, 3.0, 3.1, 0.1, 0.2, 3.0, 3.1])

    kept = []
    for seed in range(30):
        division = divide(first, second, seed=seed, **SHORT)
        assert division.votes.tolist() == [2, 2, 2, 1, 1, 1, 1, 0, 0]
        assert division.clean[3:7].tolist() == coin_tosses(4, seed=seed).tolist()
        kept.append(division.clean)

    share = torch.stack(kept).mean(dim=0)
    assert share[:3].tolist() == [1, 1, 1]
    assert share[7:].tolist() == [0, 0]
    assert bool(((share[3:7] > 0.2) & (share[3:7] < 0.8)).all())


def test_one_view_decides_alone() -> None:
    division = divide(torch.tensor([0.1, 3.0, 0.2]), seed=0, **SHORT)

    assert division.clean.tolist() == [1, 0, 1]
    assert division.probability.shape == (1, 3)


@pytest.mark.parametrize("num_pairs", [1, 5])
def test_losses_that_are_all_equal_leave_every_pair_clean(num_pairs: int) -> None:
    losses = torch.full((num_pairs,), 0.7)

    clean = divide(losses, losses, seed=0, **SHORT).clean

    assert clean.tolist() == [1.0] * num_pairs


def test_a_division_is_repeated_exactly() -> None:
    views = [two_heaps(150, 40, seed=seed) for seed in (1, 2)]

    first = divide(*views, seed=5, **LONG)
    torch.manual_seed(0)
    second = divide(*views, seed=5, **LONG)

    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_division_does_not_depend_on_the_number_of_threads() -> None:
    losses = torch.rand(20_000, generator=torch.Generator().manual_seed(0)) ** 3

    divisions = []
    for num_threads in (1, 2):
        with threadpool_limits(num_threads):
            divisions.append(divide(losses, seed=1, **LONG))

    assert torch.equal(divisions[0].probability, divisions[1].probability)


def test_a_loss_that_is_not_finite_is_named() -> None:
    losses = torch.tensor([0.1, math.nan, 0.3, math.inf])

    with pytest.raises(ValueError, match=r"view 1 .* samples \[1, 3\] \(2 in all\)"):
        divide(torch.rand(4), losses, seed=0, **SHORT)
