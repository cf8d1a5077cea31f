"""A memory of soft multilabels, one row per training sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MultilabelMemory(nn.Module):
    """The moving average of each sample's multilabel over the times it was seen.

    Steadier than the multilabel of one augmented view. Rows are copied when they are read and
    carry no gradient, so a step may write them before it reads them. Rows stay normalised.
    Source: Yu et al., MAR, CVPR 2019, official code.

    Args:
        num_samples: Rows, one per training sample.
        num_agents: Length of a row.

    Example:
        >>> memory = MultilabelMemory(num_samples=2, num_agents=2)
        >>> for seen in ([[0.5, 0.5]], [[1.0, 0.0]]):
        ...     memory.update(torch.tensor(seen), torch.tensor([1]), momentum=0.75)
        >>> memory.read(torch.tensor([1, 0]))
        tensor([[0.6250, 0.3750],
                [0.0000, 0.0000]])
    """

    rows: Tensor
    written: Tensor

    def __init__(self, num_samples: int, num_agents: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(num_samples, num_agents))
        self.register_buffer("written", torch.zeros(num_samples, dtype=torch.bool))

    def read(self, sample_index: Tensor) -> Tensor:
        """Return a copy of the ``[B, agents]`` rows of samples; zeros where none was written."""
        return self.rows[sample_index]

    @torch.no_grad()
    def update(self, multilabel: Tensor, sample_index: Tensor, *, momentum: float) -> None:
        """Take a sample's first multilabel as it is, and move its row toward later ones.

        Args:
            multilabel: ``[B, agents]`` rows that sum to 1.
            sample_index: ``[B]`` int64 rows, no sample twice.
            momentum: Weight of the old row, in [0, 1].
        """
        new = multilabel.to(self.rows.dtype)
        moved = momentum * self.rows[sample_index] + (1 - momentum) * new
        self.rows[sample_index] = torch.where(self.written[sample_index, None], moved, new)
        self.written[sample_index] = True

    def extra_repr(self) -> str:
        """Return the sizes shown in a printed model."""
        return f"num_samples={self.rows.shape[0]}, num_agents={self.rows.shape[1]}"
