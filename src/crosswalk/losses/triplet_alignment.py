"""Triplet alignment loss: every negative counts, the hardest most."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from crosswalk.losses.soft_positive import soft_positive_similarity

LARGEST_EXPONENT = math.log(1e36)
"""The official code caps the sum of exponentials at 1e36 to stay inside float32."""


def triplet_alignment_loss(
    similarity: Tensor, positive: Tensor, *, margin: float, temperature: float
) -> Tensor:
    """Return the triplet alignment loss of every anchor, in one retrieval direction.

    Replaces the hardest negative of the triplet ranking loss by a soft maximum over all
    negatives, so one mislabelled pair cannot dominate a batch.
    Source: Qin et al., RDE, CVPR 2024, triplet alignment loss. As in the official code the sum
    of exponentials is capped at 1e36, without gradient above; unlike it, this neither overflows
    at small temperatures nor gives NaN gradients without negatives.

    Args:
        similarity: ``[anchors, candidates]`` cosine similarities in [-1, 1].
        positive: ``[anchors, candidates]`` bool, true where both show one person.
        margin: Least lead of the positive over the soft-maximum negative, in cosine units;
            0 <= margin <= 2.
        temperature: Softness of both weightings, in cosine units; > 0.

    Returns:
        ``[anchors]`` losses >= 0, not reduced: the caller weights and sums them. 0, with zero
        gradient, for an anchor without negatives.

    Raises:
        ValueError: If an anchor has no positive.

    Example:
        >>> similarity = torch.tensor([[0.9, 0.1], [0.2, 0.3]])
        >>> triplet_alignment_loss(
        ...     similarity, torch.eye(2, dtype=torch.bool), margin=0.2, temperature=0.1
        ... )
        tensor([0.0000, 0.1000])
    """
    has_negative = ~positive.all(dim=1)
    # An anchor without negatives keeps its row, so that the discarded branch stays finite: a
    # log-sum-exp over nothing has NaN gradients, which `where` would not remove.
    ignored = positive & has_negative[:, None]
    exponent = (similarity / temperature).masked_fill(ignored, -torch.inf).logsumexp(dim=1)
    hardest_negative = temperature * exponent.clamp_max(LARGEST_EXPONENT)
    lead = soft_positive_similarity(similarity, positive, temperature=temperature)
    loss = (margin + hardest_negative - lead).clamp_min(0)
    return torch.where(has_negative, loss, 0.0)
