"""A memory of the clusters of an epoch, each known by one vector; outliers are in none."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from crosswalk.host import HostCopy, Values, on_host, to_device
from crosswalk.memory.hybrid_memory import class_means
from crosswalk.memory.memory_bank import move_rows
from crosswalk.ranges import Count, Share, Width


@torch.no_grad()
def move_by_hardest(rows: Tensor, embedding: Tensor, index: Values, *, momentum: Share) -> None:
    """Move each row once, toward the embedding of it that it is least similar to.

    Similarities are those to the rows as they come; of equal ones the first counts.
    Source: Dai et al., Cluster Contrast, arXiv version 1 (2021), "hard" memory update.

    Args:
        rows: ``[K, D]``, written in place.
        embedding: ``[B, D]`` unit vectors.
        index: ``[B]`` int64 row of each embedding, best an array.
        momentum: Weight of the old row, in [0, 1].

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> embedding = torch.tensor([[0.6, 0.8], [1.0, 0.0]])
        >>> move_by_hardest(rows, embedding, torch.tensor([0, 0]), momentum=0.1)
        >>> rows
        tensor([[0.6644, 0.7474],
                [0.0000, 1.0000]])
    """
    embedding = embedding.to(rows.dtype)
    each_row, counts = np.unique(on_host(index), return_counts=True)
    row = to_device(on_host(index), rows.device)
    similarity = (embedding * rows[row]).sum(dim=1)
    order = similarity.argsort(stable=True)  # nearest to the end; the first of equals first
    by_row = order[row[order].argsort(stable=True)]
    hardest = by_row[to_device(counts.cumsum() - counts, rows.device)]
    move_rows(rows, embedding[hardest], each_row, momentum=momentum)


class ClusterCenters(nn.Module):
    """One unit vector per cluster: at first the mean of its members, then moved by a training step.

    All clusters keep pace with the training, whatever their size. `fill` at the start of an epoch,
    and whoever moves ``centers`` does it after backward, once a step. There is room for as many
    clusters as samples, so that the memory of any epoch is loaded from a checkpoint.
    Source: Dai et al., Cluster Contrast, ACCV 2022, cluster-level memory.

    Args:
        num_samples: Training samples.
        embedding_size: Length of a vector.

    Example:
        >>> memory = ClusterCenters(num_samples=3, embedding_size=2)
        >>> rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> memory.fill(rows, torch.tensor([0, 0, -1]))
        >>> memory.scores(torch.tensor([[1.0, 0.0]]))
        tensor([[0.7071]])
    """

    rows: Tensor
    labels: Tensor
    num_clusters: Tensor

    def __init__(self, num_samples: Count, embedding_size: Width) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(num_samples, embedding_size))
        self.register_buffer("labels", torch.full((num_samples,), -1))
        self.register_buffer("num_clusters", torch.tensor(0))
        self._num_clusters, self._labels = HostCopy(), HostCopy()

    @property
    def centers(self) -> Tensor:
        """``[K, D]`` the vectors of the clusters; a view, so that writes reach the memory."""
        return self.rows[: int(self._num_clusters(self.num_clusters))]

    def clusters_of(self, sample_index: Values) -> NDArray[Any]:
        """Return the ``[B]`` clusters of samples on the host, -1 = outlier.

        Args:
            sample_index: ``[B]`` int64, best an array.
        """
        clusters: NDArray[Any] = self._labels(self.labels)[on_host(sample_index)]
        return clusters

    @torch.no_grad()
    def fill(self, rows: Tensor, labels: Tensor) -> None:
        """Take the clusters of an epoch, and their vectors from the members' mean rows.

        Args:
            rows: ``[num_samples, D]`` unit vectors.
            labels: ``[num_samples]`` int64 clusters, numbered from 0 without a gap; -1 = outlier.
        """
        self.labels.copy_(labels)
        self._labels(self.labels)  # read now, not in a step
        self.num_clusters.copy_(labels.amax() + 1)
        self.rows.zero_()
        kept = labels >= 0
        means, _ = class_means(rows[kept].to(self.rows.dtype), labels[kept])
        self.centers.copy_(F.normalize(means[: len(self.centers)]))

    def scores(self, embedding: Tensor) -> Tensor:
        """Return ``[B, K]`` similarities of ``[B, D]`` unit vectors, with gradient."""
        return embedding @ self.centers.T

    def extra_repr(self) -> str:
        """Return the sizes shown in a printed model."""
        return f"num_samples={self.rows.shape[0]}, embedding_size={self.rows.shape[1]}"
