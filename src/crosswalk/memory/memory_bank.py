"""A memory with one row per training sample: a classifier in which every sample is a class."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from crosswalk.host import Values, on_host, to_device
from crosswalk.ranges import Share


@torch.no_grad()
def move_rows(rows: Tensor, embedding: Tensor, index: Values, *, momentum: Share) -> None:
    """Move rows toward embeddings, in the given order, and make them unit vectors again.

    Args:
        rows: ``[N, D]``, written in place.
        embedding: ``[B, D]`` unit vectors.
        index: ``[B]`` int64 rows, best an array; one that occurs twice is moved twice.
        momentum: Weight of the old row, in [0, 1].

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> move_rows(rows, torch.tensor([[0.6, 0.8]]), torch.tensor([1]), momentum=0.0)
        >>> rows
        tensor([[1.0000, 0.0000],
                [0.6000, 0.8000]])
    """
    # Rows are independent of each other, so all first occurrences move together, then all
    # second ones, and the result is that of moving one after the other.
    index = on_host(index)
    order = np.argsort(index, kind="stable")
    grouped = index[order]
    turn = np.empty_like(order)
    turn[order] = np.arange(len(index)) - np.searchsorted(grouped, grouped)
    by_turn = np.argsort(turn, kind="stable")
    sizes = np.bincount(turn).tolist()
    members = torch.split(to_device(by_turn, rows.device), sizes)
    places = torch.split(to_device(index[by_turn], rows.device), sizes)
    for member, place in zip(members, places, strict=True):
        moved = momentum * rows[place] + (1 - momentum) * embedding[member].to(rows.dtype)
        length = moved.norm(dim=1, keepdim=True)
        rows[place] = moved / length.where(length > 0, 1.0)


class MemoryBank(nn.Module):
    """One unit vector per training sample, moved toward each new embedding of it.

    Rows start at zero: a sample that was never seen neither attracts nor repels. Read the bank
    whole as often as you like, and write it only after backward of the step.
    Source: Wang and Zhang, MMCL, CVPR 2020, memory update; as in the released code the momentum
    weights the old row (the paper's formula gives it to the new embedding).

    Args:
        num_samples: Rows, one per training sample.
        embedding_size: Length of a row.

    Example:
        >>> bank = MemoryBank(num_samples=2, embedding_size=2)
        >>> bank.update(torch.tensor([[0.6, 0.8]]), torch.tensor([1]), momentum=0.0)
        >>> bank.scores(torch.tensor([[1.0, 0.0]]))
        tensor([[0.0000, 0.6000]])
    """

    rows: Tensor

    def __init__(self, num_samples: int, embedding_size: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(num_samples, embedding_size))

    def scores(self, embedding: Tensor) -> Tensor:
        """Return ``[B, num_samples]`` similarities of ``[B, D]`` embeddings, with gradient."""
        return embedding @ self.rows.T

    @torch.no_grad()
    def update(self, embedding: Tensor, sample_index: Values, *, momentum: float) -> None:
        """Move rows toward embeddings, in the given order, and make them unit vectors again.

        Args:
            embedding: ``[B, D]`` unit vectors.
            sample_index: ``[B]`` int64 rows, best an array; one that occurs twice is moved twice.
            momentum: Weight of the old row, in [0, 1].
        """
        move_rows(self.rows, embedding, sample_index, momentum=momentum)

    def extra_repr(self) -> str:
        """Return the sizes shown in a printed model."""
        return f"num_samples={self.rows.shape[0]}, embedding_size={self.rows.shape[1]}"
