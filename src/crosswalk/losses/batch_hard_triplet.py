"""Triplet losses on Euclidean distances that mine within the batch."""

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
    losses = _losses(hardest_distances(features, person_id), margin)
    return torch.where(has_triplet, losses, 0.0)


def all_positives_triplet_loss(
    features: Tensor, person_id: Tensor, *, margin: float | None
) -> Tensor:
    """Return the triplet loss of every positive pair with the nearest negative of its anchor.

    Source: CMMT's released code, which does not call it.

    Args:
        features: ``[B, D]`` vectors of any length.
        person_id: ``[B]`` int64.
        margin: Least lead of the positive over the negative, in units of the features' distance;
            None is the soft margin.

    Returns:
        ``[pairs]`` losses >= 0, not reduced: those of `positive_pair_distances`.

    Example:
        >>> features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 4.0]])
        >>> all_positives_triplet_loss(features, torch.tensor([1, 1, 2]), margin=0.5)
        tensor([1.5000])
    """
    return _losses(positive_pair_distances(features, person_id), margin)


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
    distance, same = _distances(features), person_id[:, None] == person_id
    return TripletDistances(
        distance.masked_fill(~same, -torch.inf).amax(dim=1), _nearest_negative(distance, same)
    )


def positive_pair_distances(features: Tensor, person_id: Tensor) -> TripletDistances:
    """Return the distances of all pairs of one person, and those of the nearest negatives.

    Every pair counts once; its anchor is the earlier of the two.

    Args:
        features: ``[B, D]`` vectors of any length.
        person_id: ``[B]`` int64.

    Returns:
        ``[pairs]`` each, by anchor and then by positive.

    Example:
        >>> features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 4.0]])
        >>> positive_pair_distances(features, torch.tensor([1, 1, 2]))
        TripletDistances(positive=tensor([5.]), negative=tensor([4.]))
    """
    distance, same = _distances(features), person_id[:, None] == person_id
    anchor, positive = same.triu(1).nonzero().unbind(1)
    return TripletDistances(distance[anchor, positive], _nearest_negative(distance, same)[anchor])


def _distances(features: Tensor) -> Tensor:
    # not by a matrix product, whose rounding would part equal vectors
    return torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")


def _nearest_negative(distance: Tensor, same: Tensor) -> Tensor:
    return distance.masked_fill(same, torch.inf).amin(dim=1)


def _losses(distances: TripletDistances, margin: float | None) -> Tensor:
    lead = distances.positive - distances.negative
    return F.softplus(lead) if margin is None else (lead + margin).clamp_min(0)
