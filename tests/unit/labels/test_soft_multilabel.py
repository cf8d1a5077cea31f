import math
from itertools import combinations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from crosswalk.labels import soft_multilabel
from crosswalk.labels.soft_multilabel import (
    agreeing_pairs,
    initial_threshold,
    kth_largest,
    log_soft_multilabel,
    mine_pairs,
    nearest_pairs,
    num_mined_pairs,
    num_pairs,
    pair_agreements,
    pair_members,
)


def random_multilabels(number: int, num_agents: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(number, num_agents, generator=generator, dtype=torch.float64)
    return (2 * logits).softmax(dim=1)


def agreement_of(one: Tensor, other: Tensor) -> float:
    return sum(min(a, b) for a, b in zip(one.tolist(), other.tolist(), strict=True))


def test_multilabels_are_shares_of_the_exponentials() -> None:
    similarity = torch.tensor([[0.2, -0.4, 0.9]], dtype=torch.float64)

    multilabel = log_soft_multilabel(similarity, scale=3.0).exp()

    powers = [math.exp(3 * value) for value in similarity[0].tolist()]
    assert multilabel[0].tolist() == pytest.approx([p / sum(powers) for p in powers], rel=1e-12)


def test_no_multilabel_underflows_in_float32() -> None:
    log_multilabel = log_soft_multilabel(torch.tensor([[1.0, -1.0]]), scale=300.0)

    assert log_multilabel.tolist() == [[0.0, -600.0]]


@pytest.mark.parametrize("number", [1, 2, 3, 7])
def test_agreements_of_all_pairs_are_sums_of_minima_in_the_order_of_pairs(number: int) -> None:
    multilabel = random_multilabels(number, 5, seed=number)

    agreement = pair_agreements(multilabel)

    expected = [agreement_of(a, b) for a, b in combinations(multilabel, 2)]
    assert agreement.tolist() == pytest.approx(expected, rel=1e-12)
    assert num_pairs(number) == len(expected)


@pytest.mark.parametrize("number", [2, 3, 8])
def test_numbers_of_pairs_count_them_in_order(number: int) -> None:
    first, second = pair_members(number, torch.arange(num_pairs(number)))

    assert list(zip(first.tolist(), second.tolist(), strict=True)) == list(
        combinations(range(number), 2)
    )


def test_the_number_of_mined_pairs_is_rounded_down() -> None:
    mined = [num_mined_pairs(size, mining_ratio=0.005) for size in (2, 20, 21, 184, 12_880)]

    assert mined == [0, 0, 1, 84, 414_703]
    # 10 * 0.3 is 3 in double precision, 10 * 0.29 is 2.9
    assert [num_mined_pairs(5, mining_ratio=ratio) for ratio in (0.3, 0.29)] == [3, 2]


def test_the_most_similar_pairs_are_divided_by_agreement() -> None:
    embedding = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    multilabel = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])

    first, second, positive = mine_pairs(
        embedding,
        pair_agreements(multilabel),
        torch.tensor(0.5),
        mining_ratio=0.7,
        mining=agreeing_pairs,
    )

    assert (first.tolist(), second.tolist()) == ([0, 1], [1, 2])
    assert positive.tolist() == [True, False]


@pytest.mark.parametrize(("number", "ratio"), [(2, 0.5), (5, 0.3), (9, 0.2), (9, 0.99)])
def test_mined_pairs_come_nearest_first(number: int, ratio: float) -> None:
    generator = torch.Generator().manual_seed(number)
    embedding = normalize(torch.randn(number, 4, generator=generator, dtype=torch.float64))
    agreement = torch.rand(num_pairs(number), generator=generator, dtype=torch.float64)

    first, second, positive = mine_pairs(
        embedding, agreement, torch.tensor(0.5), mining_ratio=ratio, mining=agreeing_pairs
    )

    by_distance = sorted(
        (math.dist(embedding[i].tolist(), embedding[j].tolist()), i, j, place)
        for place, (i, j) in enumerate(combinations(range(number), 2))
    )[: int(num_pairs(number) * ratio)]
    assert [(i, j) for _, i, j, _ in by_distance] == list(
        zip(first.tolist(), second.tolist(), strict=True)
    )
    assert positive.tolist() == [bool(agreement[place] > 0.5) for *_, place in by_distance]


def test_the_function_for_mining_sees_the_similar_pairs_nearest_first() -> None:
    embedding = torch.tensor([[0.0], [3.0], [4.0]])
    seen = []

    def take_none(agreement: Tensor, threshold: Tensor) -> Tensor:
        seen.append((agreement.tolist(), threshold.item()))
        return agreement < 0

    *_, positive = mine_pairs(
        embedding,
        torch.tensor([0.25, 0.5, 0.75]),
        torch.tensor(0.125),
        mining_ratio=0.7,
        mining=take_none,
    )

    assert seen == [([0.75, 0.25], 0.125)]
    assert positive.tolist() == [False, False]


def test_an_agreement_at_the_threshold_is_no_agreement() -> None:
    positive = agreeing_pairs(torch.tensor([0.25, 0.5, 0.75]), torch.tensor(0.5))

    assert positive.tolist() == [False, False, True]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.5, 3), (0.6, 3), (0.61, 4), (1.0, 5)])
def test_feature_guided_mining_takes_the_nearest_share(share: float, expected: int) -> None:
    agreement = torch.tensor([0.0, 0.9, 0.1, 0.8, 0.2])

    positive = nearest_pairs(agreement, torch.tensor(0.5), positive_share=share)

    assert positive.tolist() == [place < expected for place in range(5)]


def test_the_kth_largest_value_counts_equal_values() -> None:
    values = torch.tensor([0.5, 0.25, 0.5, 0.75])

    assert [kth_largest(values, rank).item() for rank in (1, 2, 3, 4)] == [0.75, 0.5, 0.5, 0.25]


@pytest.mark.parametrize("tile", [1, 2, 5, 64])
@pytest.mark.parametrize(("number", "ratio"), [(2, 0.6), (3, 0.4), (14, 0.05), (23, 0.3)])
def test_the_initial_threshold_is_the_kth_largest_of_all_agreements(
    number: int, ratio: float, tile: int
) -> None:
    multilabel = random_multilabels(number, 6, seed=number)

    threshold = initial_threshold(multilabel, mining_ratio=ratio, official_compat=False, tile=tile)

    agreements = sorted(agreement_of(a, b) for a, b in combinations(multilabel, 2))
    rank = max(1, int(len(agreements) * ratio))
    assert threshold.item() == pytest.approx(agreements[-rank], rel=1e-12)


def test_the_initial_threshold_of_many_equal_agreements_is_exact() -> None:
    # multiples of 1/4, so every agreement is exact and most are tied
    generator = torch.Generator().manual_seed(0)
    multilabel = torch.eye(4)[torch.randint(0, 4, (4, 30), generator=generator)].mean(dim=0)

    for ratio in (0.01, 0.1, 0.5, 0.9):
        threshold = initial_threshold(multilabel, mining_ratio=ratio, official_compat=False, tile=3)
        agreements = sorted(agreement_of(a, b) for a, b in combinations(multilabel, 2))
        assert threshold.item() == agreements[-int(len(agreements) * ratio)]


def test_too_few_pairs_give_the_largest_agreement_or_officially_the_least() -> None:
    multilabel = random_multilabels(6, 4, seed=2)
    agreements = [agreement_of(a, b) for a, b in combinations(multilabel, 2)]

    ours, official = (
        initial_threshold(multilabel, mining_ratio=0.02, official_compat=compat, tile=2).item()
        for compat in (False, True)
    )

    assert ours == pytest.approx(max(agreements), rel=1e-12)
    assert official == pytest.approx(min(agreements), rel=1e-12)


def test_the_initial_threshold_never_holds_all_agreements(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    largest = 0
    tiles = soft_multilabel._agreement_tiles

    def watched(multilabel: Tensor, tile: int) -> object:
        nonlocal largest
        for agreement in tiles(multilabel, tile):
            largest = max(largest, len(agreement))
            yield agreement

    monkeypatch.setattr(soft_multilabel, "_agreement_tiles", watched)

    initial_threshold(
        random_multilabels(60, 3, seed=0), mining_ratio=0.005, official_compat=False, tile=10
    )

    assert largest <= 100  # of 1,770


def test_a_target_without_a_pair_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1 training images.*data\.target\.root"):
        initial_threshold(torch.ones(1, 1), mining_ratio=0.5, official_compat=False)


def test_broken_multilabels_are_refused() -> None:
    multilabel = random_multilabels(4, 3, seed=0)
    multilabel[2, 1] = torch.nan

    with pytest.raises(ValueError, match="not finite"):
        initial_threshold(multilabel, mining_ratio=0.5, official_compat=False)
