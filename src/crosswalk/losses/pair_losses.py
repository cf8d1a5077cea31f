"""Losses of image-caption pairs: both retrieval directions, and how a batch is reduced.

Each class is one choice of ``loss`` in a config. The reduction belongs to the choice because
the published learning rates were found with it (Adam's eps of 1e-3 makes a step depend on the
scale of the loss).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from crosswalk.losses.info_nce import info_nce
from crosswalk.losses.similarity_distribution import similarity_distribution_loss
from crosswalk.losses.triplet_alignment import triplet_alignment_loss
from crosswalk.losses.triplet_ranking import triplet_ranking_loss, triplet_ranking_sum_loss


class PairLoss(Protocol):
    """Turns the similarities of a batch into a loss of each of its pairs."""

    def __call__(self, similarity: Tensor, positive: Tensor) -> Tensor:
        """Return ``[B]`` losses of the pairs on the diagonal.

        Args:
            similarity: ``[B, B]`` cosine similarities, captions x images.
            positive: ``[B, B]`` bool, true where both belong to one person.
        """

    def reduce(self, losses: Tensor, weight: Tensor) -> Tensor:
        """Return the scalar loss of the batch from ``[B]`` losses and weights."""


def weighted_sum(losses: Tensor, weight: Tensor) -> Tensor:
    """Return the sum of ``[B]`` losses times their weights.

    Example:
        >>> weighted_sum(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.0, 1.0]))
        tensor(5.)
    """
    return (losses * weight).sum()


def weighted_mean(losses: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of ``[B]`` losses by their weights; 0 if all weights are 0.

    Example:
        >>> weighted_mean(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.0, 1.0]))
        tensor(2.5000)
        >>> weighted_mean(torch.tensor([1.0]), torch.tensor([0.0]))
        tensor(0.)
    """
    total = weight.sum()
    return (losses * weight).sum() / torch.where(total == 0, 1.0, total)


def _both_directions(
    loss: Callable[[Tensor, Tensor], Tensor], similarity: Tensor, positive: Tensor
) -> Tensor:
    with torch.autocast(similarity.device.type, enabled=False):
        # float32: exp(1 / 0.015) overflows float16
        similarity = similarity.to(torch.promote_types(similarity.dtype, torch.float32))
        return loss(similarity, positive) + loss(similarity.T, positive.T)


@dataclass(frozen=True)
class TripletAlignment:
    """RDE's loss: `triplet_alignment_loss` of both directions, summed over the batch.

    Args:
        margin: Least lead over the negatives, in cosine units; 0 <= margin <= 2.
        temperature: Softness of the maximum over negatives, in cosine units; > 0.

    Example:
        >>> similarity = torch.tensor([[0.9, 0.1], [0.2, 0.3]])
        >>> TripletAlignment(margin=0.2, temperature=0.1)(similarity, torch.eye(2).bool())
        tensor([0.0000, 0.1000])
    """

    margin: float
    temperature: float
    reduce = staticmethod(weighted_sum)

    def __call__(self, similarity: Tensor, positive: Tensor) -> Tensor:
        """Return ``[B]`` losses of the pairs on the diagonal."""
        return _both_directions(
            lambda s, p: triplet_alignment_loss(
                s, p, margin=self.margin, temperature=self.temperature
            ),
            similarity,
            positive,
        )


@dataclass(frozen=True)
class TripletRanking:
    """`triplet_ranking_loss` (hardest negative) of both directions, summed over the batch.

    Args:
        margin: Least lead over the hardest negative, in cosine units; 0 <= margin <= 2.
        temperature: Softness of the weights of several positives, in cosine units; > 0.

    Example:
        >>> similarity = torch.tensor([[0.75, 0.25], [0.5, 0.5]])
        >>> TripletRanking(margin=0.25, temperature=0.1)(similarity, torch.eye(2).bool())
        tensor([0.0000, 0.2500])
    """

    margin: float
    temperature: float
    reduce = staticmethod(weighted_sum)

    def __call__(self, similarity: Tensor, positive: Tensor) -> Tensor:
        """Return ``[B]`` losses of the pairs on the diagonal."""
        return _both_directions(
            lambda s, p: triplet_ranking_loss(
                s, p, margin=self.margin, temperature=self.temperature
            ),
            similarity,
            positive,
        )


@dataclass(frozen=True)
class TripletRankingSum:
    """`triplet_ranking_sum_loss` (all negatives) of both directions, summed over the batch.

    Args:
        margin: Least lead over each negative, in cosine units; 0 <= margin <= 2.
        temperature: Softness of the weights of several positives, in cosine units; > 0.

    Example:
        >>> similarity = torch.tensor([[0.75, 0.25], [0.5, 0.5]])
        >>> TripletRankingSum(margin=0.25, temperature=0.1)(similarity, torch.eye(2).bool())
        tensor([0.0000, 0.2500])
    """

    margin: float
    temperature: float
    reduce = staticmethod(weighted_sum)

    def __call__(self, similarity: Tensor, positive: Tensor) -> Tensor:
        """Return ``[B]`` losses of the pairs on the diagonal."""
        return _both_directions(
            lambda s, p: triplet_ranking_sum_loss(
                s, p, margin=self.margin, temperature=self.temperature
            ),
            similarity,
            positive,
        )


@dataclass(frozen=True)
class InfoNCE:
    """Mean of `info_nce` of both directions, averaged over the pairs that are kept.

    Args:
        temperature: Scale of the softmax, in cosine units; > 0.

    Example:
        >>> InfoNCE(temperature=0.02)(torch.zeros(2, 2), torch.eye(2).bool())
        tensor([0.6931, 0.6931])
    """

    temperature: float
    reduce = staticmethod(weighted_mean)

    def __call__(self, similarity: Tensor, positive: Tensor) -> Tensor:
        """Return ``[B]`` losses of the pairs on the diagonal."""
        return 0.5 * _both_directions(
            lambda s, p: info_nce(s, p, temperature=self.temperature), similarity, positive
        )


@dataclass(frozen=True)
class SimilarityDistribution:
    """Sum of `similarity_distribution_loss` of both directions, averaged over the pairs kept.

    Args:
        temperature: Scale of the softmax, in cosine units; > 0.

    Example:
        >>> similarity = torch.full((2, 2), 0.5)
        >>> loss = SimilarityDistribution(temperature=0.02)(similarity, torch.ones(2, 2).bool())
        >>> loss.abs() < 1e-6
        tensor([True, True])
    """

    temperature: float
    reduce = staticmethod(weighted_mean)

    def __call__(self, similarity: Tensor, positive: Tensor) -> Tensor:
        """Return ``[B]`` losses of the pairs on the diagonal."""
        return _both_directions(
            lambda s, p: similarity_distribution_loss(s, p, temperature=self.temperature),
            similarity,
            positive,
        )
