"""Batch-hard triplet loss on Euclidean distances."""

from __future__ import annotations

import torch
from torch import Tensor


def batch_hard_triplet_loss(features: Tensor, person_id: Tensor, *, margin: float) -> Tensor:
    """Return the triplet loss of every anchor with its farthest positive and nearest negative.

    An anchor without a positive beside itself, or without a negative, has no triplet and a loss
    of 0. The gradient of the distance of two equal vectors is taken as 0.
    Source: Hermans et al., In defense of the triplet loss, 2017; on features before the neck as
    in Luo et al., Bag of tricks, CVPRW 2019.

    Args:
        features: ``[B, D]`` vectors of any length.
        person_id: ``[B]`` int64.
        margin: Least lead of the positive over the negative, in units of the features' distance.

    Returns:
        ``[B]`` losses >= 0, not reduced.

    Example:
        >>> features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 4.0]])
        >>> batch_hard_triplet_loss(features, torch.tensor([1, 1, 2]), margin=0.5)
        tensor([1.5000, 2.5000, 0.0000])
    """
    # not by a matrix product, whose rounding would part equal vectors
    distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    same = person_id[:, None] == person_id
    itself = torch.eye(len(person_id), dtype=torch.bool, device=person_id.device)
    has_triplet = (same & ~itself).any(dim=1) & (~same).any(dim=1)
    farthest = distance.masked_fill(~same, -torch.inf).amax(dim=1)
    nearest = distance.masked_fill(same, torch.inf).amin(dim=1)
    lead = torch.where(has_triplet, margin + farthest - nearest, 0.0)
    return lead.clamp_min(0)
