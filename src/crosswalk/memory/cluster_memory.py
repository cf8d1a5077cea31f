"""A memory of classes, each known by one vector."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from crosswalk.host import HostCopy, Values, on_host
from crosswalk.memory.hybrid_memory import HybridMemory, class_means
from crosswalk.memory.memory_bank import move_rows


class ClusterMemory(HybridMemory):
    """One unit vector per class, moved toward each new embedding of any of its members.

    All members of a class move its vector alike, so classes of any size keep up with the training
    at the same pace. The rows of the single slots stay as they were last filled; whoever clusters
    again has to fill them again. `fill` and `relabel` at the start of an epoch, in this order;
    `update` after backward of a step. At first every slot is a class.
    Source: Dai et al., Cluster Contrast, ACCV 2022, cluster-level memory.

    Args:
        num_slots: Rows: training images, or captions.
        embedding_size: Length of a row.

    Example:
        >>> memory = ClusterMemory(num_slots=3, embedding_size=2)
        >>> memory.fill(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
        >>> memory.relabel(torch.tensor([0, 0, 1]))
        >>> memory.scores(torch.tensor([[1.0, 0.0]]))
        tensor([[0.7071, 0.0000,   -inf]])
    """

    rows_move = False
    centroids: Tensor

    def __init__(self, num_slots: int, embedding_size: int) -> None:
        super().__init__(num_slots, embedding_size)
        self.register_buffer("centroids", torch.zeros(num_slots, embedding_size))
        self._labels = HostCopy()

    @torch.no_grad()
    def fill(self, rows: Tensor) -> None:
        """Take ``[num_slots, D]`` unit vectors as the rows, and the classes' vectors from them."""
        super().fill(rows)
        self.relabel(self.labels)

    @torch.no_grad()
    def relabel(self, labels: Tensor) -> None:
        """Take ``[num_slots]`` int64 classes, numbered from 0, and their vectors from the rows.

        Raises:
            ValueError: If a label is negative or not below ``num_slots``.
        """
        super().relabel(labels)
        self._labels(self.labels)  # read now, not in a step
        self.centroids.copy_(F.normalize(class_means(self.rows, self.labels)[0]))

    def scores(self, embedding: Tensor) -> Tensor:
        """Return the similarity to the vector of every class, with gradient.

        Args:
            embedding: ``[B, D]`` unit vectors.

        Returns:
            ``[B, num_slots]`` in [-1, 1]: a column per class, -inf where it has no member.
        """
        present = torch.zeros_like(self.labels, dtype=torch.bool)
        present[self.labels] = True
        return (embedding @ self.centroids.T).masked_fill(~present, -torch.inf)

    def update(self, embedding: Tensor, slot: Values, *, momentum: float) -> None:
        """Move the vectors of the slots' classes toward embeddings, in the given order.

        Args:
            embedding: ``[B, D]`` unit vectors.
            slot: ``[B]`` int64 rows, best an array; classes that occur twice are moved twice.
            momentum: Weight of the old vector, in [0, 1].
        """
        label = self._labels(self.labels)[on_host(slot)]
        move_rows(self.centroids, embedding, label, momentum=momentum)
