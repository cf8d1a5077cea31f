"""Triplet loss on Euclidean distances that mines within the batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class TripletDistances(NamedTuple):
    """Distances of triplets, in units of the features.

    Attributes:
        positive: ``[triplets]`` from the anchor to its positive.
        negative: ``[triplets]`` from the anchor to its negative; inf where there is none.
    """

    positive: Tensor
    negative: Tensor


def batch_hard_triplet_loss(features: Tensor, person_id: Tensor, *, margin: float | None) -> Tensor:
    """Return the triplet loss of every anchor with its farthest positive and nearest negative.

    An anchor without a positive beside itself, or without a negative, has no triplet and a loss
    of 0. The gradient of the distance of two equal vectors is taken as 0.
    Source: Hermans et al., In defense of the triplet loss, 2017; on features before the neck as
    in Luo et al., Bag of tricks, CVPRW 2019.

    Args:
        features: ``[B, D]`` vectors of any length.
        person_id: ``[B]`` int64.
        margin: Least lead of the positive over the negative, in units of the features' distance;
            None is the soft margin, ``log(1 + exp(farthest - nearest))``.

    Returns:
        ``[B]`` losses >= 0, not reduced.

    Example:
        >>> features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 4.0]])
        >>> batch_hard_triplet_loss(features, torch.tensor([1, 1, 2]), margin=0.5)
        tensor([1.5000, 2.5000, 0.0000])
    """
    same = person_id[:, None] == person_id
    itself = torch.eye(len(person_id), dtype=torch.bool, device=person_id.device)
    has_triplet = (same & ~itself).any(dim=1) & (~same).any(dim=1)
    farthest, nearest = hardest_distances(features, person_id)
    lead = farthest - nearest
    losses = F.softplus(lead) if margin is None else (lead + margin).clamp_min(0)
    return torch.where(has_triplet, losses, 0.0)


def hardest_distances(features: Tensor, person_id: Tensor) -> TripletDistances:
    """Return the distances of every anchor from its farthest positive and nearest negative.

    Args:
        features: ``[B, D]`` vectors of any length.
        person_id: ``[B]`` int64.

    Returns:
        ``[B]`` each; an anchor alone with its person is its own positive, at distance 0.

    Example:
        >>> features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 4.0]])
        >>> hardest_distances(features, torch.tensor([1, 1, 2]))
        TripletDistances(positive=tensor([5., 5., 0.]), negative=tensor([4., 3., 3.]))
    """
    # not by a matrix product, whose rounding would part equal vectors
    distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    same = person_id[:, None] == person_id
    return TripletDistances(
        distance.masked_fill(~same, -torch.inf).amax(dim=1),
        distance.masked_fill(same, torch.inf).amin(dim=1),
    )
