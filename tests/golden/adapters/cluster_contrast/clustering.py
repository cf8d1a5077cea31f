"""From features to clusters: k-reciprocal distances and DBSCAN, links and Infomap."""

import numpy as np
import torch
from torch.nn.functional import normalize

from crosswalk.labels.clustering import clusters_of, dbscan_clusters
from crosswalk.labels.infomap import infomap_clusters, large_modules, neighbour_links
from crosswalk.memory.cluster_centers import ClusterCenters
from crosswalk.memory.hybrid_memory import class_means
from crosswalk.nearest import nearest
from crosswalk.neighbours import k_reciprocal_jaccard
from tests.golden.adapters.cmmt.clustering import dense, stored
from tests.golden.harness import Case, golden

DISTANCE = {"rtol": 0.0, "atol": 5e-6}  # float32
SINGLE = {"rtol": 2e-5, "atol": 2e-5}


@golden("cluster_contrast", "cluster_epoch")
def cluster_epoch(case: Case) -> None:
    case.unused("neighbour_gap", "eps_gap", reason="how far everything is from a tie")
    features = case.tensor("features")
    sizes = {"k1": case.item("k1"), "k2": case.item("k2")}
    distance = k_reciprocal_jaccard(features, **sizes)
    labels, _ = dbscan_clusters(
        features,
        torch.tensor(torch.nan),
        **sizes,
        eps=case.item("eps"),
        min_samples=case.item("min_samples"),
    )
    memory = ClusterCenters(*features.shape)
    memory.fill(features, labels)
    kept = labels >= 0

    case.close("out_distance", dense(distance), **DISTANCE)
    case.equal("out_labels", labels)
    case.equal("out_num_clusters", memory.num_clusters)
    case.equal("out_kept", kept.nonzero().flatten())
    case.equal("out_kept_label", labels[kept])
    case.equal("out_kept_camera", case.tensor("camera")[kept])
    if "out_centers" in case:
        means, present = class_means(features[kept], labels[kept])
        case.close("out_centers", means[present], **SINGLE)
    if "out_memory" in case:
        case.close("out_memory", memory.centers, **SINGLE)


@golden("cluster_contrast", "dbscan_matrix")
def dbscan_matrix(case: Case) -> None:
    labels = clusters_of(
        stored(case["distance"]), eps=case.item("eps"), min_samples=case.item("min_samples")
    )

    case.equal("out_labels", labels)
    case.equal("out_num_clusters", labels.max(initial=-1) + 1)


def numbered_by_first(labels: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """Return a partition whose numbers carry no meaning in the order of first members."""
    _, first, own = np.unique(labels, return_index=True, return_inverse=True)
    return np.where(labels < 0, -1, first[own])


@golden("cluster_contrast", "infomap")
def infomap(case: Case) -> None:
    case.unused("similarity_gap", reason="how far everything is from the limit")
    features, k1 = case.tensor("features"), case.item("k1")
    unit = normalize(features.float())
    neighbours, squared_distance = nearest(unit, k1)
    links = neighbour_links(features, k1=k1, min_similarity=case.item("min_similarity"))
    modules = dict(zip(case["module_node"].tolist(), case["module_id"].tolist(), strict=True))
    labels = large_modules(modules, num_points=len(features), largest_outlier=case.item("k2"))
    found, _ = infomap_clusters(
        features,
        torch.tensor(torch.nan),
        k1=k1,
        k2=case.item("k2"),
        min_similarity=case.item("min_similarity"),
    )
    linked = np.union1d(links.start, links.end)

    case.equal("out_neighbours", neighbours)
    case.close("out_distance", squared_distance / 2, **DISTANCE)
    case.equal("out_link_from", links.start)
    case.equal("out_link_to", links.end)
    case.close("out_link_weight", links.weight, **DISTANCE)
    case.equal("out_isolated", np.setdiff1d(np.arange(len(features)), linked))
    expected = numbered_by_first(case["out_labels"])
    for each, what in ((labels, "large recorded modules"), (found.numpy(), "what Infomap finds")):
        case.check(bool((numbered_by_first(each) == expected).all()), f"{what} are the clusters")
    case.documented("out_labels", "compared as a partition: its numbers carry no meaning")
