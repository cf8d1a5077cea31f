"""A memory of instances that are grouped into classes, clusters and single instances alike."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.host import Values
from crosswalk.memory.memory_bank import move_rows
from crosswalk.ranges import Count, Width


def class_means(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean row of every class, and which classes have a member.

    Args:
        rows: ``[N, D]``.
        labels: ``[N]`` int64 class of each row, in [0, N - 1]; classes without a row may lie in
            between.

    Returns:
        ``[N, D]`` mean rows, zeros where a class is empty, and ``[N]`` bool. There can be no more
        classes than rows; sizes that do not depend on the labels let the device run ahead.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> class_means(rows, torch.tensor([2, 0, 2]))
        (tensor([[0.0000, 1.0000],
                [0.0000, 0.0000],
                [1.0000, 0.5000]]), tensor([ True, False,  True]))
    """
    member = labels.argsort(stable=True)
    number = torch.arange(len(labels) + 1, device=labels.device)
    start = torch.searchsorted(labels[member], number)
    # unlike index_add_, adds in the order of the rows on every device
    means = F.embedding_bag(member, rows, start[:-1], mode="mean")
    return means, start[1:] > start[:-1]


class HybridMemory(nn.Module):
    """One unit vector per slot and the class it belongs to; a class is known by all its members.

    An instance that belongs to no cluster is a class of its own, so nothing is thrown away. At
    first every slot is a class. `fill` before the first step and `relabel` at the start of an
    epoch; `update` after backward of a step. Rows move during an epoch, labels do not.
    Source: Ge et al., SpCL, NeurIPS 2020, hybrid memory, as CMMT took it over (its momentum
    weights the old row).

    Args:
        num_slots: Rows: training images, or captions.
        embedding_size: Length of a row.

    Example:
        >>> memory = HybridMemory(num_slots=3, embedding_size=2)
        >>> memory.fill(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]))
        >>> memory.relabel(torch.tensor([0, 0, 1]))
        >>> memory.scores(torch.tensor([[1.0, 0.0]]))
        tensor([[0.8000, 0.0000,   -inf]])
    """

    rows_move = True
    """Whether `update` moves the rows of single slots."""
    rows: Tensor
    labels: Tensor

    def __init__(self, num_slots: Count, embedding_size: Width) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(num_slots, embedding_size))
        self.register_buffer("labels", torch.arange(num_slots))

    @torch.no_grad()
    def fill(self, rows: Tensor) -> None:
        """Take ``[num_slots, D]`` unit vectors as the rows."""
        self.rows.copy_(rows)

    @torch.no_grad()
    def relabel(self, labels: Tensor) -> None:
        """Take ``[num_slots]`` int64 classes, numbered from 0.

        Raises:
            ValueError: If there is not one class per slot, or one is not in [0, num_slots - 1].
        """
        num_slots = len(self.labels)
        if labels.shape != (num_slots,):
            raise ValueError(f"{num_slots} slots were given labels of shape {tuple(labels.shape)}.")
        wrong = labels[(labels < 0) | (labels >= num_slots)]
        if len(wrong):
            raise ValueError(
                f"label {int(wrong[0])} of {num_slots} slots is not in [0, {num_slots - 1}]. "
                "Make outliers classes of their own first (outliers_as_singletons)."
            )
        self.labels.copy_(labels)

    def scores(self, embedding: Tensor) -> Tensor:
        """Return the mean similarity to the members of every class, with gradient.

        Args:
            embedding: ``[B, D]`` unit vectors.

        Returns:
            ``[B, num_slots]`` in [-1, 1]: a column per class, -inf where it has no member.
        """
        means, present = class_means(self.rows, self.labels)
        return (embedding @ means.T).masked_fill(~present, -torch.inf)

    def update(self, embedding: Tensor, slot: Values, *, momentum: float) -> None:
        """Move rows toward embeddings, in the given order, and make them unit vectors again.

        Args:
            embedding: ``[B, D]`` unit vectors.
            slot: ``[B]`` int64 rows, best an array; one that occurs twice is moved twice.
            momentum: Weight of the old row, in [0, 1].
        """
        move_rows(self.rows, embedding, slot, momentum=momentum)

    def extra_repr(self) -> str:
        """Return the sizes shown in a printed model."""
        return f"num_slots={self.rows.shape[0]}, embedding_size={self.rows.shape[1]}"
