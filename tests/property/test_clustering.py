"""What holds for the clusters of any points."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from crosswalk.labels.clustering import dbscan_clusters, self_paced_clusters

UNSET = torch.tensor(torch.nan)
CLUSTERINGS = [dbscan_clusters, self_paced_clusters]


@st.composite
def point_sets(draw: st.DrawFn) -> Tensor:
    """Between 8 and 50 unit vectors in up to 6 heaps, no two distances equal."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    count, centers = draw(st.integers(8, 50)), draw(st.integers(1, 6))
    spread = draw(st.sampled_from([0.05, 0.3, 1.0]))
    means = torch.randn(centers, 7, generator=generator)
    heap = torch.randint(0, centers, (count,), generator=generator)
    return torch.nn.functional.normalize(
        means[heap] + spread * torch.randn(count, 7, generator=generator)
    )


def partition(labels: Tensor) -> tuple[set[frozenset[int]], set[int]]:
    """Return the clusters whatever their names, and the outliers."""
    clusters = {
        frozenset((labels == label).nonzero().flatten().tolist())
        for label in labels.unique().tolist()
        if label >= 0
    }
    return clusters, set((labels == -1).nonzero().flatten().tolist())


def core_partition(rows: Tensor, min_samples: int) -> Tensor:
    return dbscan_clusters(rows, UNSET, k1=7, k2=2, eps=0.6, min_samples=min_samples)[0]


@settings(max_examples=60, deadline=None)
@given(rows=point_sets(), seed=st.integers(0, 2**31))
def test_clusters_of_permuted_points_are_the_permuted_clusters(rows: Tensor, seed: int) -> None:
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))

    # With 2 for a core there is no border point, whose cluster may depend on the order.
    labels, permuted = (core_partition(points, min_samples=2) for points in (rows, rows[order]))

    restored = torch.empty_like(permuted)
    restored[order] = permuted
    assert partition(restored) == partition(labels)


@settings(max_examples=60, deadline=None)
@given(rows=point_sets(), seed=st.integers(0, 2**31))
def test_outliers_of_permuted_points_are_the_permuted_outliers(rows: Tensor, seed: int) -> None:
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))

    labels, permuted = (core_partition(points, min_samples=4) for points in (rows, rows[order]))

    assert torch.equal(permuted == -1, labels[order] == -1)


@pytest.mark.parametrize("clusters", CLUSTERINGS)
@settings(max_examples=40, deadline=None)
@given(rows=point_sets(), copies=st.integers(4, 7))
def test_copies_of_a_point_share_a_cluster(clusters, rows: Tensor, copies: int) -> None:  # noqa: ANN001
    copied = rows.repeat_interleave(copies, dim=0)

    labels, _ = clusters(copied, UNSET, k1=copies, k2=2)

    groups = labels.view(len(rows), copies)
    assert bool((groups == groups[:, :1]).all())
    assert bool((labels >= 0).all())


@pytest.mark.parametrize("clusters", CLUSTERINGS)
@settings(max_examples=40, deadline=None)
@given(rows=point_sets())
def test_labels_count_from_0_and_outliers_are_minus_1(clusters, rows: Tensor) -> None:  # noqa: ANN001
    labels, _ = clusters(rows, UNSET, k1=7, k2=2)

    named = set(labels.tolist()) - {-1}
    assert named == set(range(len(named)))
    assert labels.dtype == torch.int64


@settings(max_examples=40, deadline=None)
@given(rows=point_sets())
def test_outliers_stay_outliers_where_only_reliable_members_stay(rows: Tensor) -> None:
    plain, _ = dbscan_clusters(rows, UNSET, k1=7, k2=2)

    labels, _ = self_paced_clusters(rows, UNSET, k1=7, k2=2)

    assert bool((labels[plain == -1] == -1).all())
    kept = labels >= 0
    assert torch.equal(labels[kept], plain[kept])
