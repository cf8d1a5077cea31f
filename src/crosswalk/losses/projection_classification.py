"""Cross-modal projection classification: name the person by what both modalities agree on."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from crosswalk.losses.identity import identity_loss


def projection_logits(embedding: Tensor, partner: Tensor, weight: Tensor) -> Tensor:
    """Return every person's score for embeddings projected on their partners.

    Args:
        embedding: ``[B, D]`` embeddings of one modality, as they are.
        partner: ``[B, D]`` embeddings of the same pairs in the other modality; of any length > 0.
        weight: ``[D, persons]`` one column per person; of any length > 0.

    Returns:
        ``[B, persons]`` scalar products of the projections with the columns' directions.

    Example:
        >>> import torch
        >>> embedding, partner = torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0]])
        >>> projection_logits(embedding, partner, torch.tensor([[5.0, 0.0], [0.0, 1.0]]))
        tensor([[3., 0.]])
    """
    direction = F.normalize(partner)
    projected = (embedding * direction).sum(dim=1, keepdim=True) * direction
    return projected @ F.normalize(weight, dim=0)


def projection_classification_loss(
    embedding: Tensor,
    partner: Tensor,
    weight: Tensor,
    person_id: Tensor,
    *,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the cross-modal projection classification loss of every sample, in one direction.

    An identity loss that sees of an embedding only the part along its partner's, so that pairs
    have to agree before they can be named. No method uses it as published; it can replace an
    identity loss, with one ``weight`` for both directions.
    Source: Zhang and Lu, ECCV 2018, as in the released code of CM-MoCo and CMMT, where it is
    unused too.

    Args:
        embedding: ``[B, D]`` embeddings of one modality, as they are.
        partner: ``[B, D]`` embeddings of the same pairs in the other modality; of any length > 0.
        weight: ``[D, persons]`` one column per person; of any length > 0.
        person_id: ``[B]`` int64, below ``persons``.
        label_smoothing: Share of the target spread evenly over all persons, in [0, 1].

    Returns:
        ``[B]`` losses >= 0, not reduced.

    Example:
        >>> import torch
        >>> embedding, partner = torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0]])
        >>> projection_classification_loss(
        ...     embedding, partner, torch.eye(2), torch.tensor([0])
        ... )
        tensor([0.0486])
    """
    logits = projection_logits(embedding, partner, weight)
    return identity_loss(logits, person_id, label_smoothing=label_smoothing)
