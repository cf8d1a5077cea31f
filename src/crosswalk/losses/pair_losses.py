"""Losses of image-caption pairs: both retrieval directions, and how a batch is reduced.

Each function is one choice of ``loss`` in a config. The reduction belongs to the choice because
the published learning rates were found with it (Adam's eps of 1e-3 makes a step depend on the
scale of the loss).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from crosswalk.losses.info_nce import info_nce
from crosswalk.losses.similarity_distribution import similarity_distribution_loss
from crosswalk.losses.triplet_alignment import triplet_alignment_loss
from crosswalk.losses.triplet_ranking import triplet_ranking_loss, triplet_ranking_sum_loss
from crosswalk.ranges import Margin, Positive


class PairLoss(NamedTuple):
    """Turns the similarities of a batch into a loss of each of its pairs.

    Attributes:
        of_anchors: ``(similarity [anchors, candidates], positive) -> [anchors]``, one direction.
        reduce: ``(losses [B], weight [B]) -> scalar`` loss of a batch.
        scale: Of the sum of both directions.
    """

    of_anchors: Callable[[Tensor, Tensor], Tensor]
    reduce: Callable[[Tensor, Tensor], Tensor]
    scale: float = 1.0

    def of_pairs(self, similarity: Tensor, positive: Tensor) -> Tensor:
        """Return ``[B]`` losses of the pairs on the diagonal.

        No ``__call__``: other methods take functions of two tensors, which this would pass for.

        Args:
            similarity: ``[B, B]`` cosine similarities, captions x images.
            positive: ``[B, B]`` bool, true where both belong to one person.
        """
        with torch.autocast(similarity.device.type, enabled=False):
            # float32: exp(1 / 0.015) overflows float16
            similarity = similarity.to(torch.promote_types(similarity.dtype, torch.float32))
            both = self.of_anchors(similarity, positive) + self.of_anchors(similarity.T, positive.T)
            return self.scale * both


def losses_of_pairs(similarity: Tensor, positive: Tensor, *, loss: PairLoss) -> Tensor:
    """Return ``[B]`` losses of the pairs on the diagonal, for methods that take a function.

    Args:
        similarity: ``[B, B]`` cosine similarities, either modality in rows.
        positive: ``[B, B]`` bool, true where both belong to one person.
        loss: Of which the losses are; its reduction is not used.

    Example:
        >>> losses_of_pairs(
        ...     torch.zeros(2, 2), torch.eye(2).bool(), loss=info_nce_of_pairs(temperature=0.02)
        ... )
        tensor([0.6931, 0.6931])
    """
    return loss.of_pairs(similarity, positive)


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


def triplet_alignment_of_pairs(*, margin: Margin, temperature: Positive) -> PairLoss:
    """Return RDE's loss: `triplet_alignment_loss` of both directions, summed over the batch.

    Args:
        margin: Least lead over the negatives, in cosine units; 0 <= margin <= 2.
        temperature: Softness of the maximum over negatives, in cosine units; > 0.

    Example:
        >>> loss = triplet_alignment_of_pairs(margin=0.2, temperature=0.1)
        >>> loss.of_pairs(torch.tensor([[0.9, 0.1], [0.2, 0.3]]), torch.eye(2).bool())
        tensor([0.0000, 0.1000])
    """
    loss = partial(triplet_alignment_loss, margin=margin, temperature=temperature)
    return PairLoss(loss, weighted_sum)


def triplet_ranking_of_pairs(*, margin: Margin, temperature: Positive) -> PairLoss:
    """Return `triplet_ranking_loss` (hardest negative) of both directions, summed over the batch.

    Args:
        margin: Least lead over the hardest negative, in cosine units; 0 <= margin <= 2.
        temperature: Softness of the weights of several positives, in cosine units; > 0.

    Example:
        >>> loss = triplet_ranking_of_pairs(margin=0.25, temperature=0.1)
        >>> loss.of_pairs(torch.tensor([[0.75, 0.25], [0.5, 0.5]]), torch.eye(2).bool())
        tensor([0.0000, 0.2500])
    """
    loss = partial(triplet_ranking_loss, margin=margin, temperature=temperature)
    return PairLoss(loss, weighted_sum)


def triplet_ranking_sum_of_pairs(*, margin: Margin, temperature: Positive) -> PairLoss:
    """Return `triplet_ranking_sum_loss` (all negatives) of both directions, summed over the batch.

    Args:
        margin: Least lead over each negative, in cosine units; 0 <= margin <= 2.
        temperature: Softness of the weights of several positives, in cosine units; > 0.

    Example:
        >>> loss = triplet_ranking_sum_of_pairs(margin=0.25, temperature=0.1)
        >>> loss.of_pairs(torch.tensor([[0.75, 0.25], [0.5, 0.5]]), torch.eye(2).bool())
        tensor([0.0000, 0.2500])
    """
    loss = partial(triplet_ranking_sum_loss, margin=margin, temperature=temperature)
    return PairLoss(loss, weighted_sum)


def info_nce_of_pairs(*, temperature: Positive) -> PairLoss:
    """Return the mean of `info_nce` of both directions, averaged over the pairs that are kept.

    Args:
        temperature: Scale of the softmax, in cosine units; > 0.

    Example:
        >>> info_nce_of_pairs(temperature=0.02).of_pairs(torch.zeros(2, 2), torch.eye(2).bool())
        tensor([0.6931, 0.6931])
    """
    return PairLoss(partial(info_nce, temperature=temperature), weighted_mean, scale=0.5)


def similarity_distribution_of_pairs(*, temperature: Positive) -> PairLoss:
    """Return the sum of `similarity_distribution_loss` both ways, averaged over the pairs kept.

    Args:
        temperature: Scale of the softmax, in cosine units; > 0.

    Example:
        >>> loss = similarity_distribution_of_pairs(temperature=0.02)
        >>> loss.of_pairs(torch.full((2, 2), 0.5), torch.ones(2, 2).bool()).abs() < 1e-6
        tensor([True, True])
    """
    return PairLoss(partial(similarity_distribution_loss, temperature=temperature), weighted_mean)
