"""Identity loss: name the person."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def identity_loss(logits: Tensor, person_id: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy of every sample's person.

    Makes each modality separate the training identities by itself. With one classifier for both
    modalities, the mean of the two losses is IRRA's identity loss.
    Source: Zheng et al., Dual-path, 2017; in IRRA's official code the loss named ID.

    Args:
        logits: ``[B, persons]`` scores of a classifier.
        person_id: ``[B]`` int64, below ``persons``.
        label_smoothing: Share of the target spread evenly over all persons, in [0, 1].

    Returns:
        ``[B]`` losses >= 0, not reduced.

    Example:
        >>> import torch
        >>> identity_loss(torch.zeros(1, 4), torch.tensor([2]))
        tensor([1.3863])
    """
    return F.cross_entropy(logits, person_id, reduction="none", label_smoothing=label_smoothing)
