"""Hard positives and negatives that a relation finds among the samples that look alike."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from crosswalk.ranges import Count, Margin


class HardSamples(NamedTuple):
    """The pool's entry that each anchor is drawn to, and the one it is driven from.

    Attributes:
        positive: ``[B]`` int64.
        negative: ``[B]`` int64.
    """

    positive: Tensor
    negative: Tensor


def nearest_in_batch(similarity: Tensor, *, num_nearest: int) -> Tensor:
    """Return the candidates of every anchor: its nearest entries of the pool.

    Args:
        similarity: ``[B, B]`` of anchors (rows) and pool.
        num_nearest: Candidates of an anchor; all of the pool where it is smaller; >= 1.

    Returns:
        ``[B, min(num_nearest, B)]`` int64, by falling similarity; ties: the lower index first.

    Example:
        >>> nearest_in_batch(torch.tensor([[0.5, 0.9], [0.2, 0.2]]), num_nearest=20)
        tensor([[1, 0],
                [0, 1]])
    """
    return similarity.sort(dim=1, descending=True, stable=True).indices[:, :num_nearest]


def hard_samples(candidate: Tensor, relation: Tensor) -> HardSamples:
    """Return the candidates of every anchor that its relation speaks most for and most against.

    All candidates look like the anchor. The least related one is a hard negative, the most related
    one, the own pair aside, a positive. Ties: the earlier candidate. An anchor whose candidates
    are all unrelated has its first candidate as positive.
    Source: CMMT's released code (the function is there, its call is commented out).

    Args:
        candidate: ``[B, K]`` int64 entries of the pool, the most similar one first.
        relation: ``[B, B]`` in [0, 1], of anchors (rows) and pool; entry i of the pool belongs to
            anchor i.

    Example:
        >>> relation = torch.tensor([[1.0, 0.2, 0.6], [0.2, 1.0, 0.0], [0.6, 0.0, 1.0]])
        >>> found = hard_samples(torch.tensor([[0, 1, 2], [2, 0, 1], [2, 1, 0]]), relation)
        >>> found.positive.tolist(), found.negative.tolist()
        ([2, 0, 0], [1, 2, 1])
    """
    related = relation.gather(1, candidate)
    other = related.masked_fill(candidate == _own(candidate), 0.0)
    positive = candidate.gather(1, other.argmax(dim=1, keepdim=True))
    negative = candidate.gather(1, related.argmin(dim=1, keepdim=True))
    return HardSamples(positive.squeeze(1), negative.squeeze(1))


def hard_sample_loss(
    anchor: Tensor,
    pool: Tensor,
    relation: Tensor,
    *,
    num_nearest: Count = 20,
    margin: Margin = 0.0,
) -> Tensor:
    """Return how much nearer than its hard positive the hard negative of every anchor is.

    Within a modality, anchor and pool are the same vectors; across modalities, the images mine
    for the captions or the captions for the images.
    Source: Zhao et al., CMMT, ICCV 2021, hard sample mining, in the form of the released code:
    the score of two vectors is their product over the length of both together, which makes the
    difference of cosines one over the square root of 2. The code sums over the anchors.

    Args:
        anchor: ``[B, D]`` vectors of any length; made unit vectors here.
        pool: ``[B, D]`` vectors of any length; made unit vectors here.
        relation: ``[B, B]`` in [0, 1], a constant, of anchors (rows) and pool; the diagonal
            belongs to the own pairs.
        num_nearest: Entries of the pool, by similarity, that are looked at for an anchor; >= 1.
        margin: Least lead of the positive, in cosine units; 0 <= margin <= 2.

    Returns:
        ``[B]`` losses >= 0, not reduced; the method sums them.

    Example:
        >>> image = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 2.0]])
        >>> relation = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.0], [0.5, 0.0, 1.0]])
        >>> hard_sample_loss(image, image, relation)  # 0.6 / sqrt(2) for the first
        tensor([0.4243, 0.0000, 0.5657])
    """
    similarity = F.normalize(anchor) @ F.normalize(pool).T
    candidate = nearest_in_batch(similarity.detach(), num_nearest=num_nearest)
    positive, negative = hard_samples(candidate, relation)
    drawn = similarity.gather(1, positive[:, None])
    driven = similarity.gather(1, negative[:, None])
    return ((driven - drawn + margin) / math.sqrt(2)).clamp_min(0).squeeze(1)


def threshold_sample_loss(
    anchor: Tensor,
    pool: Tensor,
    relation: Tensor,
    *,
    threshold: float,
    num_nearest: Count = 20,
    margin: Margin = 0.0,
) -> Tensor:
    """Return how much nearer the hardest unrelated neighbour is than the hardest related one.

    The alternative to `hard_sample_loss` that is nearer to the paper's words: similar pairs whose
    captions overlap enough form a set of positives, the other similar pairs one of negatives.
    Source: Zhao et al., CMMT, ICCV 2021, hard sample mining; the sets are the paper's, what is
    done with them is ours, since neither threshold nor formula could be read.

    Args:
        anchor: ``[B, D]`` vectors of any length; made unit vectors here.
        pool: ``[B, D]`` vectors of any length; made unit vectors here.
        relation: ``[B, B]`` in [0, 1], a constant, of anchors (rows) and pool; the diagonal
            belongs to the own pairs, which are neither positives nor negatives.
        threshold: Least relation of a positive; in [0, 1].
        num_nearest: Entries of the pool, by similarity, that are looked at for an anchor; >= 1.
        margin: Least lead of the positives, in cosine units; 0 <= margin <= 2.

    Returns:
        ``[B]`` losses >= 0, not reduced; 0 for an anchor without positive or negative.

    Example:
        >>> image = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 2.0]])
        >>> relation = torch.tensor([[1.0, 0.1, 0.5], [0.1, 1.0, 0.2], [0.5, 0.2, 1.0]])
        >>> threshold_sample_loss(image, image, relation, threshold=0.3)
        tensor([0.4243, 0.0000, 0.5657])
    """
    similarity = F.normalize(anchor) @ F.normalize(pool).T
    candidate = nearest_in_batch(similarity.detach(), num_nearest=num_nearest)
    near, related = similarity.gather(1, candidate), relation.gather(1, candidate) >= threshold
    other = candidate != _own(candidate)
    positive, negative = related & other, ~related & other
    drawn = near.masked_fill(~positive, torch.inf).amin(dim=1)
    driven = near.masked_fill(~negative, -torch.inf).amax(dim=1)
    both = positive.any(dim=1) & negative.any(dim=1)
    lead = torch.where(both, driven - drawn + margin, 0.0)
    return (lead / math.sqrt(2)).clamp_min(0)


def _own(candidate: Tensor) -> Tensor:
    return torch.arange(len(candidate), device=candidate.device)[:, None]
