from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from crosswalk.labels import positive_labels
from crosswalk.labels.positive_labels import (
    cycle_consistent_rows,
    nearest_rows,
    own_row,
    same_person_rows,
    similar_rows,
    strictly_cycle_consistent_rows,
)


def clusters(num_people: int, images_each: int, size: int, *, spread: float, seed: int) -> Tensor:
    """Return unit rows in heaps."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(num_people, size, generator=generator, dtype=torch.float64)
    rows = centres.repeat_interleave(images_each, dim=0)
    return normalize(rows + spread * torch.randn(rows.shape, generator=generator).double())


def ranking(rows: Tensor, row: int) -> list[int]:
    similarity = (rows[row] @ rows.T).tolist()
    return sorted(range(len(rows)), key=lambda other: (-similarity[other], other))


def released_loop(rows: Tensor, index: Tensor, threshold: float) -> list[set[int]]:
    """The algorithm of the released code, one sample and one full ranking after the other."""
    positives = []
    for query in index.tolist():
        ranked = ranking(rows, query)
        num_similar = int((rows[query] @ rows.T > threshold).sum())
        num_candidates = min(max(num_similar, 10), len(rows))
        walked = num_candidates
        for place in range(num_candidates):
            # a row is the first of its own list by definition, whatever the last bit says
            own = ranked if ranked[place] == query else ranking(rows, ranked[place])
            if own.index(ranked[0]) > num_candidates:
                walked = place
                break
        positives.append({*ranked[: min(max(walked, 2), num_similar)], query})
    return positives


def paper_loop(rows: Tensor, index: Tensor, threshold: float) -> list[set[int]]:
    """The algorithm of the paper: no least number of candidates, none kept that failed."""
    positives = []
    for query in index.tolist():
        kept = {query}
        num_similar = int((rows[query] @ rows.T > threshold).sum())
        for candidate in ranking(rows, query)[:num_similar]:
            if candidate != query and query not in ranking(rows, candidate)[:num_similar]:
                break
            kept.add(candidate)
        positives.append(kept)
    return positives


def sets(labels: Tensor) -> list[set[int]]:
    return [set(row.nonzero().flatten().tolist()) for row in labels]


BANKS = {
    "one row": clusters(1, 1, 3, spread=0.0, seed=0),
    "three rows": clusters(3, 1, 3, spread=0.0, seed=1),
    "tight heaps": clusters(7, 5, 9, spread=0.3, seed=2),
    "loose heaps": clusters(6, 13, 5, spread=0.7, seed=3),
    "one crowd": clusters(1, 61, 4, spread=0.5, seed=4),
    "chain": torch.stack([torch.arange(40).mul(0.15).cos(), torch.arange(40).mul(0.15).sin()], 1),
}


@pytest.mark.parametrize("threshold", [-0.5, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("bank", BANKS)
def test_labels_are_those_of_a_loop_over_samples_and_full_rankings(
    bank: str, threshold: float
) -> None:
    rows = BANKS[bank].double()
    index = torch.arange(len(rows)).flip(0)

    released = cycle_consistent_rows(rows, index, threshold=threshold)
    paper = strictly_cycle_consistent_rows(rows, index, threshold=threshold)

    assert sets(released) == released_loop(rows, index, threshold)
    assert sets(paper) == paper_loop(rows, index, threshold)


def test_labels_are_the_same_however_the_work_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, index = BANKS["loose heaps"], torch.arange(0, 78, 3)
    labels = cycle_consistent_rows(rows, index, threshold=0.5)

    monkeypatch.setattr(positive_labels, "BLOCK", 5 * len(rows))
    monkeypatch.setattr(positive_labels, "FIRST_STRIDE", 1)

    assert torch.equal(cycle_consistent_rows(rows, index, threshold=0.5), labels)
    assert sets(labels) == released_loop(rows, index, 0.5)


def test_rows_that_are_no_unit_vectors_refer_to_the_first_of_their_list() -> None:
    length = torch.rand(40, 1, generator=torch.Generator().manual_seed(0)).double() + 0.2
    rows, index = length * clusters(8, 5, 6, spread=0.4, seed=5), torch.arange(40)

    labels = cycle_consistent_rows(rows, index, threshold=0.3)

    first = [ranking(rows, query)[0] for query in index.tolist()]
    assert sum(a != b for a, b in zip(first, index.tolist(), strict=True)) > 5
    assert sets(labels) == released_loop(rows, index, 0.3)


@pytest.mark.parametrize("predict", [cycle_consistent_rows, strictly_cycle_consistent_rows])
def test_a_row_never_seen_is_positive_to_itself_alone(predict: Callable[..., Tensor]) -> None:
    rows = clusters(4, 4, 6, spread=0.1, seed=6)
    rows[[0, 5]] = 0.0

    labels = predict(rows, torch.tensor([0, 5, 1]), threshold=0.6)

    assert sets(labels) == [{0}, {5}, {1, 2, 3}]


@pytest.mark.parametrize(
    ("order", "kept"),
    [
        ("qcd" + 12 * "r", "qcd"),  # the sample comes first among equals in the list of c
        (12 * "r" + "cdq", "qc"),  # twelve strangers come before it there; the floor keeps c
        (12 * "r" + "dcq", "qd"),  # of two equally similar rows d comes first, and c is next
    ],
)
def test_equal_similarities_are_ranked_by_the_number_of_the_row(order: str, kept: str) -> None:
    kinds = {
        "q": [1.0, 0.0, 0.0, 0.0],
        "c": [0.5, 0.5, 0.5, 0.5],  # as similar to the sample as to the strangers and to d
        "d": [0.5, -0.5, 0.5, 0.5],
        "r": [0.0, 1.0, 0.0, 0.0],
    }
    rows = torch.tensor([kinds[kind] for kind in order], dtype=torch.float64)
    sample = torch.tensor([order.index("q")])

    labels = cycle_consistent_rows(rows, sample, threshold=0.4)

    assert sets(labels) == [{order.index(kind) for kind in kept}]
    assert sets(labels) == released_loop(rows, sample, 0.4)


def test_the_positions_of_the_example_give_the_number_kept_by_hand() -> None:
    # The sample is row 0. Rows 1 to 3 are like it and alone; row 4 is like it as well, and has
    # twelve rows of its own nearer than the sample, more than the ten it is allowed.
    angle = torch.tensor([0.0, 0.1, -0.1, 0.15, 0.5] + [0.52 + 0.01 * i for i in range(12)])
    rows = torch.stack([angle.cos(), angle.sin()], dim=1).double()

    labels = cycle_consistent_rows(rows, torch.tensor([0]), threshold=0.877)  # cos 0.5 = 0.8776

    assert sets(labels) == [{0, 1, 2, 3}]


def test_a_second_row_is_kept_although_it_has_nearer_neighbours() -> None:
    angle = torch.tensor([0.0, 0.5] + [0.52 + 0.01 * i for i in range(12)])
    rows = torch.stack([angle.cos(), angle.sin()], dim=1).double()
    sample = torch.tensor([0])

    assert sets(cycle_consistent_rows(rows, sample, threshold=0.867)) == [{0, 1}]
    assert sets(strictly_cycle_consistent_rows(rows, sample, threshold=0.867)) == [{0}]


def test_a_similarity_equal_to_the_threshold_is_no_positive() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.5, 0.75**0.5]], dtype=torch.float64)
    sample = torch.tensor([0])

    assert sets(similar_rows(rows, sample, threshold=0.5)) == [{0}]
    assert sets(cycle_consistent_rows(rows, sample, threshold=0.5)) == [{0}]
    assert sets(similar_rows(rows, sample, threshold=0.49)) == [{0, 1}]


@pytest.mark.parametrize("count", [0, 1, 3, 99])
def test_the_nearest_rows_are_the_first_of_a_full_ranking(count: int) -> None:
    rows = BANKS["tight heaps"]
    index = torch.tensor([34, 0, 17])

    labels = nearest_rows(rows, index, count=count)

    expected = [{*ranking(rows, query)[: count + 1]} for query in index.tolist()]
    assert sets(labels) == expected


def test_a_row_of_zeros_has_its_own_label_beside_its_neighbours() -> None:
    labels = nearest_rows(torch.zeros(5, 2), torch.tensor([3]), count=2)

    assert sets(labels) == [{0, 1, 3}]


def test_identities_and_single_labels() -> None:
    person_id = torch.tensor([4, 0, 4, 4, 9])
    index = torch.tensor([3, 1])

    assert sets(same_person_rows(torch.zeros(5, 1), index, person_id=person_id)) == [{0, 2, 3}, {1}]
    assert sets(own_row(torch.zeros(5, 1), index)) == [{3}, {1}]


@pytest.mark.parametrize("predict", [cycle_consistent_rows, strictly_cycle_consistent_rows])
def test_no_samples_have_no_labels(predict: Callable[..., Tensor]) -> None:
    labels = predict(torch.zeros(5, 2), torch.zeros(0, dtype=torch.int64), threshold=0.6)

    assert labels.shape == (0, 5)
