"""The k-reciprocal Jaccard distance, against plain loops."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

import crosswalk.nearest as search
import crosswalk.neighbours as module
from crosswalk.nearest import nearest
from crosswalk.neighbours import (
    averaged_memberships,
    entry_distances,
    expanded_sets,
    jaccard_distances,
    k_reciprocal_jaccard,
    memberships,
    reciprocal_sets,
)
from tests.unit.heaps import all_distances, points


def dense(distance: csr_array) -> NDArray[np.float32]:
    """Return all distances: 1 where none is stored."""
    full = np.ones(distance.shape, np.float32)
    rows = np.repeat(np.arange(len(full)), np.diff(distance.indptr))
    full[rows, distance.indices] = distance.data
    return full


def reciprocal(neighbours: NDArray[np.int64], point: int, k: int) -> set[int]:
    return {j for j in neighbours[point, : k + 1] if point in neighbours[j, : k + 1]}


def looped_sets(neighbours: NDArray[np.int64], k1: int) -> list[set[int]]:
    sets = []
    for point in range(len(neighbours)):
        own = reciprocal(neighbours, point, k1)
        expanded = set(own)
        for other in own:
            brought = reciprocal(neighbours, other, int(np.around(k1 / 2)))
            if len(brought & own) > 2 / 3 * len(brought):
                expanded |= brought
        sets.append(expanded)
    return sets


def looped_jaccard(rows: Tensor, k1: int, k2: int) -> NDArray[np.float64]:
    """Return the distances by loops over points, in float64."""
    squared = all_distances(rows)
    np.fill_diagonal(squared, -1)
    neighbours = squared.argsort(axis=1, kind="stable")[:, :k1]
    np.fill_diagonal(squared, 0)
    count = len(rows)
    membership = np.zeros((count, count))
    for point, members in enumerate(looped_sets(neighbours, k1)):
        chosen = sorted(members)
        weight = np.exp(-squared[point, chosen])
        membership[point, chosen] = weight / weight.sum()
    membership = np.stack([membership[neighbours[point, :k2]].mean(0) for point in range(count)])
    distance = np.empty((count, count))
    for point in range(count):
        shared = np.minimum(membership[point], membership).sum(axis=1)
        distance[point] = 1 - shared / (2 - shared)
    return distance


@pytest.mark.parametrize("k", [1, 2, 4, 8, 30])
def test_reciprocal_sets_hold_the_points_in_each_others_lists(k: int) -> None:
    neighbours = nearest(points(41, 6, seed=5), 8)[0].numpy()
    before = neighbours.copy()

    sets = reciprocal_sets(neighbours, k)

    for point in range(41):
        members = sets.indices[sets.indptr[point] : sets.indptr[point + 1]]
        assert members.tolist() == sorted(reciprocal(neighbours, point, k))
    assert (neighbours == before).all()


@pytest.mark.parametrize(("columns", "k1"), [(1, 1), (5, 5), (6, 5), (7, 7), (20, 20), (21, 20)])
def test_expanded_sets_are_those_of_a_loop(columns: int, k1: int) -> None:
    neighbours = nearest(points(60, 6, seed=columns), columns)[0].numpy()

    sets = expanded_sets(neighbours, k1)

    for point, expected in enumerate(looped_sets(neighbours, k1)):
        members = sets.indices[sets.indptr[point] : sets.indptr[point + 1]]
        assert members.tolist() == sorted(expected)
    assert set(sets.data.tolist()) == {1.0}


def test_exactly_two_thirds_in_common_are_not_enough() -> None:
    neighbours = np.array([[0, 1, 2], [1, 0, 3], [2, 0, 1], [3, 1, 2]])
    assert reciprocal(neighbours, 0, 3) == {0, 1, 2}
    assert reciprocal(neighbours, 1, 2) == {0, 1, 3}

    sets = expanded_sets(neighbours, 3)

    assert sets.indices[: sets.indptr[1]].tolist() == [0, 1, 2]


@pytest.mark.parametrize("at_once", [3, 4096])
@pytest.mark.parametrize("in_float64_from", [1, 4096])
def test_distances_of_entries_are_the_same_known_or_not(
    monkeypatch: pytest.MonkeyPatch, at_once: int, in_float64_from: int
) -> None:
    monkeypatch.setattr(search, "PAIRS_AT_ONCE", at_once)
    monkeypatch.setattr(search, "SCREENED_FROM", in_float64_from)
    rows = points(31, 6, seed=7)
    index, squared = nearest(rows, 6)
    sets = csr_array(np.random.default_rng(0).random((31, 31)) < 0.4)

    alone = entry_distances(rows, sets)
    helped = entry_distances(rows, sets, known=(index.numpy(), squared.numpy()))

    expected = all_distances(rows)[sets.toarray().nonzero()]
    np.testing.assert_allclose(alone, expected, rtol=0, atol=2e-6)
    np.testing.assert_allclose(helped, expected, rtol=0, atol=2e-6)


def test_known_distances_are_taken_as_they_are() -> None:
    sets = csr_array(np.ones((2, 2)))

    distance = entry_distances(
        torch.zeros(2, 1), sets, known=(np.array([[1], [0]]), np.float32([[5], [7]]))
    )

    assert distance.tolist() == [0.0, 5.0, 7.0, 0.0]


def test_memberships_are_a_softmax_of_each_row_at_any_distance() -> None:
    sets = csr_array(np.array([[1, 0, 1], [0, 1, 0], [1, 1, 1]]))
    distance = np.array([0, 1, 300, 200, 200, 201], np.float32)

    membership = memberships(sets, distance).toarray()

    e = np.exp(-1)
    expected = [[1 / (1 + e), 0, e / (1 + e)], [0, 1, 0], [1 / (2 + e), 1 / (2 + e), e / (2 + e)]]
    np.testing.assert_allclose(membership, expected, rtol=1e-6)


@pytest.mark.parametrize("k2", [1, 2, 5, 9])
def test_averaged_memberships_are_means_over_the_first_neighbours(k2: int) -> None:
    rng = np.random.default_rng(k2)
    membership = (rng.random((12, 12)) * (rng.random((12, 12)) < 0.3)).astype(np.float32)
    neighbours = nearest(points(12, 3, seed=k2), 6)[0].numpy()

    averaged = averaged_memberships(csr_array(membership), neighbours, k2).toarray()

    for point in range(12):
        expected = np.mean([membership[other] for other in neighbours[point, :k2]], axis=0)
        np.testing.assert_allclose(averaged[point], expected, rtol=1e-6)


@pytest.mark.parametrize("terms", [1, 40, 2**18])
@pytest.mark.parametrize("num_rows", [None, 1, 7, 23])
@pytest.mark.parametrize("largest", [1.0, 0.7])
def test_jaccard_distances_are_those_of_a_loop(
    monkeypatch: pytest.MonkeyPatch, num_rows: int | None, largest: float, terms: int
) -> None:
    monkeypatch.setattr(module, "TERMS_AT_ONCE", terms)
    rng = np.random.default_rng(0)
    # values that repeat, and rows that are equal
    full = rng.integers(0, 4, (23, 17)) * (rng.random((23, 17)) < 0.3)
    full[:, 0] += full.sum(axis=1) == 0
    full[4] = full[9]
    full = (full / full.sum(axis=1, keepdims=True)).astype(np.float32)

    distance = jaccard_distances(csr_array(full), num_rows=num_rows, largest=largest)

    count = 23 if num_rows is None else num_rows
    expected = np.ones((count, 23))
    for first in range(count):
        for second in range(23):
            shared = sum(min(a, b) for a, b in zip(full[first], full[second], strict=True))
            expected[first, second] = max(0, 1 - shared / (2 - shared))
    np.testing.assert_allclose(
        dense(distance), np.where(expected <= largest, expected, 1), rtol=0, atol=1e-6
    )
    assert distance.nnz == ((expected <= largest) & (expected < 1)).sum()
    assert distance.has_sorted_indices


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_jaccard_distances_are_the_same_on_any_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(module, "TERMS_AT_ONCE", 100)
    rows = points(80, 6, seed=0)
    expected = k_reciprocal_jaccard(rows, k1=9, k2=3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)

    distance = k_reciprocal_jaccard(rows, k1=9, k2=3)

    assert (distance.indices == expected.indices).all()
    assert (distance.data == expected.data).all()


@pytest.mark.parametrize(
    ("count", "k1", "k2"), [(1, 1, 1), (3, 3, 1), (7, 5, 2), (31, 6, 6), (90, 30, 6), (64, 9, 12)]
)
def test_k_reciprocal_distances_are_those_of_a_loop(count: int, k1: int, k2: int) -> None:
    rows = points(count, 8, seed=count)

    distance = k_reciprocal_jaccard(rows, k1=k1, k2=k2)

    np.testing.assert_allclose(dense(distance), looped_jaccard(rows, k1, k2), rtol=0, atol=2e-6)
    assert (dense(distance) == dense(distance).T).all()
    assert distance.dtype == np.float32


def test_copies_of_a_point_are_stored_at_distance_0() -> None:
    rows = torch.eye(3).repeat_interleave(4, dim=0)

    distance = k_reciprocal_jaccard(rows, k1=4, k2=2)

    assert distance.nnz == 3 * 4 * 4
    assert distance.data.max() < 1e-6
