"""Pseudo labels of embeddings: clusters of their k-reciprocal Jaccard distances.

Both functions have the form ``(rows [N, D], threshold, ...) -> (labels [N], threshold)``; labels
are 0 to K - 1, and -1 for an outlier. The threshold is what a run has to remember between calls:
the caller keeps it, NaN before the first call.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Gt, Lt
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from crosswalk.labels.mutual_refinement import outliers_as_singletons
from crosswalk.nearest import EXACT
from crosswalk.neighbours import k_reciprocal_jaccard
from crosswalk.ranges import Count

OUTLIER = -1


def dbscan_clusters(
    rows: Tensor,
    threshold: Tensor,
    *,
    k1: Count = 30,
    k2: Count = 6,
    eps: Annotated[float, Gt(0), Lt(1)] = 0.6,
    min_samples: Count = 4,
    index: str = EXACT,
) -> tuple[Tensor, Tensor]:
    """Return the DBSCAN clusters of the Jaccard distances, and the threshold as it came.

    Source: Ester et al., KDD 1996; numbers as papers that follow CMMT give them.

    Args:
        rows: ``[N, D]`` points, as a rule unit vectors; computed in float32.
        threshold: 0-d; not used, see `self_paced_clusters`.
        k1: Neighbours of a point, itself among them; 1 <= k1 <= N.
        k2: Neighbours over which neighbourhoods are averaged, the point itself among them; >= 1.
        eps: Largest Jaccard distance of two neighbouring points; in (0, 1).
        min_samples: Points within ``eps``, itself among them, that make a point the core of a
            cluster; >= 1.
        index: How neighbours are searched, see `crosswalk.nearest.nearest`; exactly unless
            told.

    Returns:
        ``[N]`` int64 labels, in the order of the clusters' first core points, and ``threshold``.

    Raises:
        ValueError: If there are fewer than ``k1`` points, or ``eps`` is not in (0, 1).

    Example:
        >>> angle = torch.tensor([0.0, 0.1, 0.2, 2.0, 2.1, 2.2, 4.0])
        >>> rows = torch.stack([angle.cos(), angle.sin()], dim=1)
        >>> labels, _ = dbscan_clusters(rows, torch.tensor(torch.nan), k1=3, k2=1, min_samples=3)
        >>> labels
        tensor([ 0,  0,  0,  1,  1,  1, -1])
    """
    _check_radius(eps)
    distance = k_reciprocal_jaccard(rows, k1=k1, k2=k2, largest=eps, index=index)
    labels = clusters_of(distance, eps=eps, min_samples=min_samples)
    return torch.from_numpy(labels).to(rows.device), threshold


def self_paced_clusters(
    rows: Tensor,
    threshold: Tensor,
    *,
    k1: Count = 30,
    k2: Count = 6,
    eps: Annotated[float, Gt(0), Lt(1)] = 0.6,
    min_samples: Count = 4,
    eps_step: float = 0.02,
    index: str = EXACT,
) -> tuple[Tensor, Tensor]:
    """Return DBSCAN clusters without the members that a slightly other radius would move.

    A cluster is reliable if it stays apart when the radius grows, and a member if it stays when
    the radius shrinks. Members of clusters that are less independent than a threshold, and
    members that are less compact than the best of their cluster, become outliers.
    Source: Ge et al., SpCL, NeurIPS 2020, section 3.2, in the form of the released code.

    Args:
        rows: ``[N, D]`` points, as a rule unit vectors; computed in float32.
        threshold: 0-d, largest share of a cluster's members of the larger radius that are not its
            own; NaN: derive it, as is done at the first call of a run.
        k1: Neighbours of a point, itself among them; 1 <= k1 <= N.
        k2: Neighbours over which neighbourhoods are averaged, the point itself among them; >= 1.
        eps: Largest Jaccard distance of two neighbouring points; in (0, 1).
        min_samples: Points within ``eps``, itself among them, that make a point the core of a
            cluster; >= 1.
        eps_step: By how much the smaller and the larger radius differ from ``eps``.
        index: How neighbours are searched, see `crosswalk.nearest.nearest`.

    Returns:
        ``[N]`` int64 labels, and the threshold for the next call; it stays NaN if no cluster had
        two members.

    Raises:
        ValueError: If there are fewer than ``k1`` points, or a radius is not in (0, 1).

    Example:
        >>> angle = torch.tensor([0.0, 0.1, 0.2, 2.0, 2.1, 2.2, 4.0])
        >>> rows = torch.stack([angle.cos(), angle.sin()], dim=1)
        >>> self_paced_clusters(rows, torch.tensor(torch.nan), k1=3, k2=1, min_samples=3)
        (tensor([ 0,  0,  0,  1,  1,  1, -1]), tensor(0.))
    """
    radii = (eps - eps_step, eps, eps + eps_step)
    for radius in radii:
        _check_radius(radius)
    distance = k_reciprocal_jaccard(rows, k1=k1, k2=k2, largest=max(radii), index=index)
    tight, usual, loose = (
        clusters_of(distance, eps=radius, min_samples=min_samples) for radius in radii
    )
    labels, found = reliable_members(tight, usual, loose, threshold=float(threshold))
    return torch.from_numpy(labels).to(rows.device), torch.full_like(threshold, found)


def clusters_of(distance: csr_array[Any], *, eps: float, min_samples: int) -> NDArray[np.int64]:
    """Return the DBSCAN clusters of a sparse matrix of distances.

    Args:
        distance: ``[N, N]`` sparse float32, symmetric, with every distance up to ``eps`` stored.
        eps: Largest distance of two neighbouring points, in units of ``distance``.
        min_samples: Points within ``eps``, itself among them, that make a point a core.

    Returns:
        ``[N]`` labels; -1 for outliers. A point between two clusters gets the lower label.

    Example:
        >>> distance = csr_array(np.array([[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]], np.float32))
        >>> clusters_of(distance, eps=0.6, min_samples=2)
        array([ 0,  0, -1])
    """
    # late: a model in use clusters nothing, and waits for its imports
    from sklearn.cluster import DBSCAN
    from sklearn.neighbors import sort_graph_by_row_values

    near = distance.data <= eps
    pointers = np.concatenate([[0], np.cumsum(near)])[distance.indptr]
    graph = csr_array((distance.data[near], distance.indices[near], pointers), shape=distance.shape)
    graph = sort_graph_by_row_values(graph, warn_when_not_sorted=False)
    labels = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(graph)
    return np.asarray(labels, np.int64)


def reliable_members(
    tight: NDArray[np.int64],
    usual: NDArray[np.int64],
    loose: NDArray[np.int64],
    *,
    threshold: float,
) -> tuple[NDArray[np.int64], float]:
    """Return the usual labels with the unreliable ones -1, and the threshold of independence.

    With c the usual cluster of a point, t and l those of the smaller and of the larger radius, the
    point is the less compact the larger ``1 - |c & t| / |c | t|``, and the less independent the
    larger ``1 - |c & l| / |c | l|``; of a cluster the best value of its members counts. A cluster
    keeps at least one member, the last. Outliers are clusters of their own.
    Source: Ge et al., SpCL, NeurIPS 2020, eqs. 6 and 7, in the form of the released code.

    Args:
        tight: ``[N]`` labels of the smaller radius; -1 for outliers.
        usual: ``[N]`` labels that are returned where they are reliable.
        loose: ``[N]`` labels of the larger radius.
        threshold: Clusters that are less independent are given up; in [0, 1]. NaN: nine tenths of
            the clusters with two members or more are independent enough.

    Returns:
        ``[N]`` labels, and the threshold, or the new one for NaN; NaN if no cluster has two
        members, where nothing changes.

    Example:
        >>> tight, usual = np.array([0, 0, -1, 1, 1]), np.array([0, 0, 0, 1, 1])
        >>> reliable_members(tight, usual, usual, threshold=0.5)
        (array([ 0,  0, -1,  1,  1]), 0.5)
    """
    usual = np.asarray(usual, np.int64)
    own, *others = (
        outliers_as_singletons(torch.from_numpy(labels)).numpy() for labels in (usual, tight, loose)
    )
    size = np.bincount(own)
    changed = [_change(own, other) for other in others]
    best = [np.full(len(size), np.inf, np.float32) for _ in changed]
    for least, change in zip(best, changed, strict=True):
        np.minimum.at(least, own, change)
    compactness, independence = best

    several = np.sort(independence[size > 1])
    if not len(several):
        return usual, threshold
    if math.isnan(threshold):
        # nine tenths: SpCL, released code
        threshold = float(several[min(len(several) - 1, round(0.9 * len(several)))])
    given_up = (independence.astype(np.float64) > threshold)[own]
    unreliable = given_up | (changed[0] > compactness[own])
    last = np.zeros(len(size), np.int64)
    np.maximum.at(last, own, np.arange(len(own)))
    spared = given_up & (last[own] == np.arange(len(own)))
    return np.where(unreliable & ~spared, OUTLIER, usual), threshold


def _check_radius(radius: float) -> None:
    if not 0 < radius < 1:
        raise ValueError(
            f"a radius of {radius:g} is not between 0 and 1: points without a common neighbour "
            "have the Jaccard distance 1. Change method.clustering.eps."
        )


def _change(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return ``[N]`` one minus the overlap of each point's clusters in two partitions."""
    _, pair, shared = np.unique(
        np.stack([first, second]), axis=1, return_inverse=True, return_counts=True
    )
    common = shared[pair.ravel()]
    union = np.bincount(first)[first] + np.bincount(second)[second] - common
    # float32, as released: thresholds and distances compare alike
    return np.subtract(1, common.astype(np.float32) / union.astype(np.float32), dtype=np.float32)
