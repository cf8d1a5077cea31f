"""Losses that the released codes ship without calling them, made of those that we train with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from crosswalk.losses.batch_hard_triplet import TripletDistances
from crosswalk.losses.identity import identity_loss
from crosswalk.losses.similarity_distribution import LABEL_FLOOR, label_divergence


def projection_logits(embedding: Tensor, partner: Tensor, weight: Tensor) -> Tensor:
    """Return ``[B, persons]`` scores of embeddings projected on their partners' directions."""
    direction = F.normalize(partner)
    projected = (embedding * direction).sum(dim=1, keepdim=True) * direction
    return projected @ F.normalize(weight, dim=0)


def projection_classification_loss(
    embedding: Tensor, partner: Tensor, weight: Tensor, person_id: Tensor
) -> Tensor:
    """Return ``[B]`` cross-modal projection classification losses of one direction."""
    return identity_loss(projection_logits(embedding, partner, weight), person_id)


def projection_matching_loss(
    projection: Tensor, positive: Tensor, *, epsilon: float = LABEL_FLOOR
) -> Tensor:
    """Return ``[anchors]`` projection matching losses; labels have length 1, as in IRRA."""
    label = positive.float()
    label = label / label.norm(dim=1, keepdim=True)
    # the divergence adds its own floor
    return label_divergence(projection, label + (epsilon - LABEL_FLOOR))


def image_id_labels(person_id: Tensor, image_id: Tensor, *, factor: float) -> Tensor:
    """Return ``[B, B]`` soft labels: own image 1, another image of the person ``factor``.

    IRRA divides column j by the sum of row j.
    """
    same_person = (person_id[:, None] == person_id).float()
    same_image = (image_id[:, None] == image_id).float()
    label = (same_person - same_image) * factor + same_image
    return label / label.sum(dim=1)


def positive_pair_distances(features: Tensor, person_id: Tensor) -> TripletDistances:
    """Return ``[pairs]`` distances of each pair of a person, and of its nearest negatives."""
    distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    same = person_id[:, None] == person_id
    anchor, positive = same.triu(1).nonzero().unbind(1)
    nearest = distance.masked_fill(same, torch.inf).amin(dim=1)
    return TripletDistances(distance[anchor, positive], nearest[anchor])
