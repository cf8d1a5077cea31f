"""Clusters of sparse distances, against the same on full matrices and against loops."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.cluster import DBSCAN
from torch import Tensor

from crosswalk.labels.clustering import (
    clusters_of,
    dbscan_clusters,
    reliable_members,
    self_paced_clusters,
)
from crosswalk.neighbours import k_reciprocal_jaccard

UNSET = torch.tensor(torch.nan)


def heaps(count: int, *, seed: int, centers: int, spread: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(centers, 8, generator=generator)
    heap = torch.randint(0, centers, (count,), generator=generator)
    rows = means[heap] + spread * torch.randn(count, 8, generator=generator)
    return torch.nn.functional.normalize(rows)


def full_distances(rows: Tensor, k1: int, k2: int) -> NDArray[np.float32]:
    sparse = k_reciprocal_jaccard(rows, k1=k1, k2=k2)
    full = np.ones(sparse.shape, np.float32)
    full[np.repeat(np.arange(len(full)), np.diff(sparse.indptr)), sparse.indices] = sparse.data
    return full


def random_graph(count: int, share: float, seed: int) -> NDArray[np.float32]:
    """Return symmetric distances of which a share is below 1, many of them 0 or equal."""
    rng = np.random.default_rng(seed)
    distance = np.where(
        rng.random((count, count)) < share, rng.integers(0, 10, (count, count)) / 10, 1
    )
    distance = np.minimum(distance, distance.T)
    np.fill_diagonal(distance, 0)
    return distance.astype(np.float32)


def stored(distance: NDArray[np.float32]) -> csr_array:
    """Return the distances below 1, zeros included."""
    rows, columns = np.nonzero(distance < 1)
    pointers = np.searchsorted(rows, np.arange(len(distance) + 1))
    return csr_array((distance[rows, columns], columns, pointers), shape=distance.shape)


@pytest.mark.parametrize("seed", range(40))
def test_clusters_of_a_sparse_graph_are_those_of_the_full_matrix(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.choice([1, 2, 7, 40, 90]))
    distance = random_graph(count, share=float(rng.choice([0, 0.02, 0.06, 0.1, 0.5])), seed=seed)
    eps, min_samples = float(rng.choice([0.1, 0.3, 0.6, 0.95])), int(rng.integers(1, 6))

    labels = clusters_of(stored(distance), eps=eps, min_samples=min_samples)

    expected = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(distance)
    assert labels.tolist() == expected.tolist()


def test_random_graphs_hold_noise_borders_and_single_clusters() -> None:
    shares = {0.003: -1, 0.03: None, 0.5: 0}
    for share, only in shares.items():
        distance = random_graph(90, share, seed=2)
        labels = clusters_of(stored(distance), eps=0.6, min_samples=5)
        near = (distance <= np.float32(0.6)).sum(axis=1)
        if only is None:
            assert {-1, 0} <= set(labels.tolist())
            assert ((labels >= 0) & (near < 5)).any()
        else:
            assert set(labels.tolist()) == {only}


def test_a_point_between_two_clusters_gets_the_lower_label() -> None:
    distance = np.ones((7, 7), np.float32)
    for group in ([0, 1, 2], [4, 5, 6]):
        distance[np.ix_(group, group)] = 0.5
    for neighbour in (2, 4):
        distance[3, neighbour] = distance[neighbour, 3] = 0.6
    np.fill_diagonal(distance, 0)

    assert clusters_of(stored(distance), eps=0.6, min_samples=3).tolist() == [0] * 7
    assert clusters_of(stored(distance), eps=0.6, min_samples=4).tolist() == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(("count", "centers", "spread"), [(30, 3, 0.2), (91, 9, 0.5), (150, 12, 1)])
@pytest.mark.parametrize("eps", [0.3, 0.6, 0.9])
def test_clusters_of_points_are_those_of_the_full_matrix(
    count: int, centers: int, spread: float, eps: float
) -> None:
    rows = heaps(count, seed=count, centers=centers, spread=spread)

    labels, threshold = dbscan_clusters(rows, torch.tensor(0.25), k1=10, k2=3, eps=eps)

    full = full_distances(rows, 10, 3)
    expected = DBSCAN(eps=eps, min_samples=4, metric="precomputed").fit_predict(full)
    assert labels.tolist() == expected.tolist()
    assert labels.dtype == torch.int64
    assert threshold == 0.25


def test_points_far_from_each_other_are_outliers() -> None:
    labels, _ = dbscan_clusters(torch.eye(9), UNSET, k1=2, k2=1)

    assert labels.tolist() == [-1] * 9


def test_equal_points_are_one_cluster() -> None:
    labels, _ = dbscan_clusters(torch.ones(9, 3), UNSET, k1=9, k2=6)

    assert labels.tolist() == [0] * 9


@pytest.mark.parametrize("clusters", [dbscan_clusters, self_paced_clusters])
def test_too_few_points_are_an_error_that_names_the_setting(clusters) -> None:  # noqa: ANN001
    with pytest.raises(ValueError, match=r"29 points have no 30 neighbours.*clustering\.k1"):
        clusters(torch.ones(29, 3), UNSET)


@pytest.mark.parametrize("eps", [-0.1, 0.0, 1.0, 1.5])
def test_a_radius_without_meaning_is_an_error(eps: float) -> None:
    with pytest.raises(ValueError, match=r"not between 0 and 1.*clustering\.eps"):
        dbscan_clusters(torch.eye(5), UNSET, k1=2, eps=eps)
    with pytest.raises(ValueError, match=r"radius of 1.*clustering\.eps"):
        self_paced_clusters(torch.eye(5), UNSET, k1=2, eps=0.99)


def looped_reliability(
    tight: list[int], usual: list[int], loose: list[int], threshold: float | None
) -> tuple[list[int], float | None]:
    """Return labels with -1 for unreliable points, visiting point after point."""

    def cluster_of(labels: list[int], point: int) -> set[int]:
        if labels[point] == -1:
            return {point}
        return {other for other, label in enumerate(labels) if label == labels[point]}

    def apart(labels: list[int], point: int) -> float:
        own, other = cluster_of(usual, point), cluster_of(labels, point)
        return 1 - len(own & other) / len(own | other)

    points = range(len(usual))
    best = {
        name: {
            label: min(apart(labels, point) for point in points if usual[point] == label)
            for label in set(usual) - {-1}
        }
        for name, labels in (("compact", tight), ("independent", loose))
    }
    left = {label: usual.count(label) for label in best["compact"]}
    several = sorted(best["independent"][label] for label in left if left[label] > 1)
    if not several:
        return list(usual), threshold
    if threshold is None:
        threshold = several[min(len(several) - 1, round(0.9 * len(several)))]
    result = list(usual)
    for point in points:
        label = usual[point]
        if label == -1 or left[label] == 1:
            continue
        if (
            best["independent"][label] > threshold + 1e-7
            or apart(tight, point) > best["compact"][label] + 1e-7
        ):
            result[point] = -1
            left[label] -= 1
    return result, threshold


@pytest.mark.parametrize("threshold", [None, 0.0, 0.4, 1.0])
@pytest.mark.parametrize("seed", range(12))
def test_reliable_members_are_those_of_a_loop(seed: int, threshold: float | None) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.choice([1, 5, 30, 77]))
    usual = rng.integers(-1, 6, count)
    usual = np.unique(np.append(usual, -1), return_inverse=True)[1][:-1] - 1
    tight = np.where(rng.random(count) < 0.2, -1, usual)
    loose = np.where((usual == 1) & (rng.random(count) < 0.7), 0, usual)

    labels, found = reliable_members(
        tight, usual, loose, threshold=np.nan if threshold is None else threshold
    )

    expected, derived = looped_reliability(
        tight.tolist(), usual.tolist(), loose.tolist(), threshold
    )
    assert labels.tolist() == expected
    if derived is None:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(derived, abs=1e-7)


def test_a_cluster_that_is_given_up_keeps_its_last_member() -> None:
    usual = np.array([0, 0, 1, 1, 0])

    labels, _ = reliable_members(usual, usual, np.zeros(5, np.int64), threshold=0.5)

    # 2 of 5 are their own: cluster 1 is given up; 3 of 5: cluster 0 is not.
    assert labels.tolist() == [0, 0, -1, 1, 0]


@pytest.mark.parametrize("usual", [[-1, -1, -1], [0, 1, 2], [0, -1, 1]])
def test_without_a_cluster_of_two_nothing_changes(usual: list[int]) -> None:
    labels, threshold = reliable_members(
        np.full(3, -1), np.array(usual), np.zeros(3, np.int64), threshold=np.nan
    )

    assert labels.tolist() == usual
    assert np.isnan(threshold)


def test_self_paced_clusters_are_the_reliable_members_of_three_radii() -> None:
    rows = heaps(150, seed=3, centers=12, spread=0.8)

    labels, threshold = self_paced_clusters(rows, UNSET, k1=10, k2=3, eps_step=0.1)

    full = full_distances(rows, 10, 3)
    tight, usual, loose = (
        DBSCAN(eps=eps, min_samples=4, metric="precomputed").fit_predict(full).tolist()
        for eps in (0.5, 0.6, 0.7)
    )
    expected, derived = looped_reliability(tight, usual, loose, None)
    assert labels.tolist() == expected
    assert labels.tolist() != usual
    assert threshold.shape == ()
    assert float(threshold) == pytest.approx(derived, abs=1e-7)


def test_the_threshold_of_the_first_call_is_kept() -> None:
    first, second = (heaps(150, seed=seed, centers=12, spread=0.8) for seed in (3, 4))
    options = {"k1": 10, "k2": 3, "eps_step": 0.1}
    _, threshold = self_paced_clusters(first, UNSET, **options)
    _, own = self_paced_clusters(second, UNSET, **options)

    _, kept = self_paced_clusters(second, threshold, **options)

    assert kept == threshold
    assert own != threshold
