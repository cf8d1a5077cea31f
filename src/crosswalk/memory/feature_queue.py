"""Queues of the keys of the last batches, one per modality, row by row the same pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FeatureQueue(nn.Module):
    """The image key, the text key and the person of the last ``size`` pairs, oldest out first.

    A batch enters only after backward of its step: it is no negative of itself, and the gradient
    still reads the old rows. Rows that nothing has entered yet are random unit vectors of nobody,
    negatives of everybody. Enter the gathered batch in rank order, and all processes hold the
    same queues.
    The start follows torch's seed, whatever was drawn since it was set.
    Source: Han et al., CM-MoCo, BMVC 2021; there ``size`` has to be a multiple of the batch.

    Args:
        size: Pairs that are kept.
        embedding_size: Length of a key.

    Raises:
        ValueError: If the queue has no place.

    Example:
        >>> queue = FeatureQueue(2, 1)
        >>> for person in range(3):
        ...     queue.enqueue(torch.ones(1, 1), torch.ones(1, 1), torch.tensor([person]))
        >>> queue.person_id, queue.negatives_of(torch.tensor([2, 7]))
        (tensor([2, 1]), tensor([False,  True]))
    """

    image: Tensor
    text: Tensor
    person_id: Tensor
    pointer: Tensor

    def __init__(self, size: int, embedding_size: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"method.queue_size={size} must be at least 1.")
        # by the run's seed alone: DDP sends no buffers at the start, and processes may have drawn
        # different numbers before
        generator = torch.Generator().manual_seed(torch.initial_seed())
        # uniform in [0, 1) as in the released code: all rows lie in one orthant
        image, text = torch.rand(2, size, embedding_size, generator=generator)
        self.register_buffer("image", F.normalize(image))
        self.register_buffer("text", F.normalize(text))
        self.register_buffer("person_id", torch.full((size,), -1))
        self.register_buffer("pointer", torch.tensor(0))

    def negatives_of(self, person_id: Tensor) -> Tensor:
        """Return ``[size]`` bool, true for rows of nobody in the batch.

        Args:
            person_id: ``[B]`` int64 >= 0, persons of the global batch.
        """
        # not `torch.isin`, which sorts out doubles of a large batch, and waits for their number
        return ~(self.person_id[:, None] == person_id).any(dim=1)

    @torch.no_grad()
    def enqueue(self, image: Tensor, text: Tensor, person_id: Tensor) -> None:
        """Write a batch over the oldest rows; of a batch larger than the queue, its last rows.

        Args:
            image: ``[B, D]`` unit vectors.
            text: ``[B, D]`` unit vectors of the same pairs.
            person_id: ``[B]`` int64 persons >= 0 of the pairs.
        """
        size, num_rows = len(self.person_id), len(person_id)
        kept = min(size, num_rows)
        # the pointer stays a tensor: reading it would wait for the device
        place = torch.arange(num_rows - kept, num_rows, device=self.pointer.device)
        place = (self.pointer + place) % size
        for queue, rows in ((self.image, image), (self.text, text), (self.person_id, person_id)):
            queue[place] = rows[num_rows - kept :].to(queue.dtype)
        self.pointer.add_(num_rows).remainder_(size)

    def extra_repr(self) -> str:
        """Return the sizes shown in a printed model."""
        return f"size={self.image.shape[0]}, embedding_size={self.image.shape[1]}"
