"""How well the clusters of a training set agree with its true identities."""

from __future__ import annotations

from typing import Any, Protocol, cast

import lightning.pytorch as L
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import (  # type: ignore[import-untyped,unused-ignore]
    adjusted_rand_score,
    normalized_mutual_info_score,
)
from torch import Tensor

from crosswalk.methods.base import Method


class ClusterQualityData(Protocol):
    """What `ClusterQuality` needs of a data module."""

    @property
    def train_person_id(self) -> Tensor | None:
        """``[num_samples]`` true person of every training pair; None where nobody knows."""

    @property
    def train_image_person_id(self) -> Tensor | None:
        """``[num_images]`` true person of every training image; None where nobody knows."""


def cluster_counts(labels: Tensor) -> dict[str, float]:
    """Return the number of clusters and the share of outliers.

    Args:
        labels: ``[N]`` int64 clusters, -1 = outlier.

    Returns:
        ``clusters``, which outliers are none of, and ``outliers``, in [0, 1].

    Example:
        >>> cluster_counts(torch.tensor([0, 0, 7, -1]))
        {'clusters': 2.0, 'outliers': 0.25}
    """
    clusters = torch.unique(labels)
    return {
        "clusters": float((clusters >= 0).sum()),
        "outliers": float((labels < 0).float().mean()),
    }


def cluster_agreement(labels: Tensor, person_id: Tensor) -> dict[str, float]:
    """Return how well clusters agree with identities.

    Args:
        labels: ``[N]`` int64 clusters, -1 = outlier.
        person_id: ``[N]`` int64 true person.

    Returns:
        ``purity``: share of the clustered instances that belong to the commonest person of their
        cluster, left out if there is none; ``ari`` and ``nmi``: adjusted Rand index and normalised
        mutual information (arithmetic mean) of all instances, every outlier a cluster of its own.

    Example:
        >>> person_id = torch.tensor([4, 4, 5, 5])
        >>> agreement = cluster_agreement(torch.tensor([0, 0, 0, -1]), person_id)
        >>> {name: round(value, 4) for name, value in agreement.items()}
        {'purity': 0.6667, 'ari': 0.0, 'nmi': 0.3437}
    """
    cluster, person = labels.numpy(force=True), person_id.numpy(force=True)
    outlier = cluster < 0
    alone = np.where(outlier, cluster.max(initial=-1) + np.cumsum(outlier), cluster)
    quality = {
        "ari": float(adjusted_rand_score(person, alone)),
        "nmi": float(normalized_mutual_info_score(person, alone)),
    }
    if outlier.all():
        return quality
    return {"purity": _purity(cluster[~outlier], person[~outlier]), **quality}


def _purity(cluster: NDArray[np.int64], person: NDArray[np.int64]) -> float:
    pairs, counts = np.unique(np.stack([cluster, person]), axis=1, return_counts=True)
    largest = np.zeros(cluster.max() + 1, dtype=np.int64)
    np.maximum.at(largest, pairs[0], counts)
    return float(largest.sum() / len(cluster))


class ClusterQuality(L.Callback):
    """Logs the clusters of an epoch, and how well they agree with the true identities.

    Looks at `pseudo_labels` of the method, which come from its buffers, so a resumed run logs the
    same. Names are ``train/<labels>_<what>``. The truth is only logged, never trained on; where
    nobody knows it, the number of clusters and the share of outliers are logged alone.
    """

    def __init__(self, data: ClusterQualityData) -> None:
        self.data = data

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the clusters this epoch was trained with."""
        for name, labels in cast(Method[Any], pl_module).pseudo_labels().items():
            quality = cluster_counts(labels)
            person_id = self._truth(name, len(labels))
            if person_id is not None:
                quality |= cluster_agreement(labels, person_id)
            pl_module.log_dict({f"train/{name}_{what}": value for what, value in quality.items()})

    def _truth(self, name: str, num_labels: int) -> Tensor | None:
        """Return the persons of what was labelled: images, captions, or captions by image."""
        of_images = self.data.train_image_person_id
        if of_images is None or name.startswith("image") or num_labels == len(of_images):
            return of_images
        return self.data.train_person_id
