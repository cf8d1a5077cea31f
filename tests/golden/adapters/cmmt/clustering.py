"""k-reciprocal Jaccard distances and the clusters made of them."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from crosswalk.labels.clustering import clusters_of, dbscan_clusters, reliable_members
from crosswalk.neighbours import k_reciprocal_jaccard
from tests.golden.harness import Case, golden


def dense(distance: csr_array) -> NDArray[np.float32]:
    """Return all distances: 1 where none is stored."""
    full = np.ones(distance.shape, np.float32)
    rows = np.repeat(np.arange(len(full)), np.diff(distance.indptr))
    full[rows, distance.indices] = distance.data
    return full


def stored(distance: NDArray[np.float32]) -> csr_array:
    """Return a matrix with every distance stored, those of 0 included."""
    count = len(distance)
    columns = np.tile(np.arange(count), count)
    return csr_array(
        (distance.ravel(), columns, np.arange(0, count**2 + 1, count)), shape=distance.shape
    )


def numbered(labels: NDArray[np.int64], *outliers: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return labels in which the outliers are classes after the clusters, group by group."""
    labels = labels.copy()
    count = labels.max(initial=-1) + 1
    for group in outliers:
        labels[group] = count + np.arange(group.sum())
        count += group.sum()
    return labels


def centers(features: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean of each class."""
    one_hot = np.eye(labels.max() + 1)[labels]
    return one_hot.T @ features / one_hot.sum(axis=0)[:, None]


@golden("cmmt", "jaccard")
def jaccard(case: Case) -> None:
    distance = k_reciprocal_jaccard(case.tensor("features"), k1=case.item("k1"), k2=case.item("k2"))

    case.close("out_dist", dense(distance), rtol=0, atol=2e-6)  # float32, neighbours summed


@golden("cmmt", "dbscan")
def dbscan(case: Case) -> None:
    case.unused("eps_gap", reason="how far all distances are from eps")
    features = case.tensor("features")
    distance = k_reciprocal_jaccard(features, k1=case.item("k1"), k2=case.item("k2"))
    same = np.allclose(dense(distance), case["dist"], rtol=0, atol=2e-6)
    case.check(same, "the distances are the recorded ones")
    found, _ = dbscan_clusters(
        features,
        torch.tensor(torch.nan),
        k1=case.item("k1"),
        k2=case.item("k2"),
        eps=case.item("eps"),
        min_samples=case.item("min_samples"),
    )
    raw = found.numpy()
    labels = numbered(raw, raw == -1)

    case.equal("out_labels_raw", raw)
    case.equal("out_labels", labels)
    case.equal("out_num_classes", labels.max() + 1)
    case.close("out_centers", centers(case["features"], labels), rtol=1e-5, atol=1e-6)


@golden("cmmt", "spcl_reliability")
def spcl_reliability(case: Case) -> None:
    distance = stored(case["dist"])
    tight, usual, loose = (
        clusters_of(distance, eps=radius, min_samples=case.item("min_samples"))
        for radius in case["eps"].tolist()
    )
    for prefix, given in (("out_", np.nan), ("out_fixed_", case.item("indep_thres_fixed"))):
        reliable, threshold = reliable_members(tight, usual, loose, threshold=given)
        labels = numbered(reliable, usual == -1, (reliable == -1) & (usual != -1))
        case.equal(f"{prefix}labels", labels)
        case.equal(f"{prefix}num_classes", labels.max() + 1)
        if prefix == "out_":
            case.close("out_indep_thres", threshold)
            case.close("out_centers", centers(case["features"], labels), rtol=1e-5, atol=1e-6)
