"""Soft multilabels: an image's likeness to the people of another data set, and pairs that agree.

A pair is two different images of one set, i < j. Values of all pairs come in the order (0, 1),
(0, 2), ..., (1, 2), ...; the number of a pair is its place there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from crosswalk.ranges import Share


class MinedPairs(NamedTuple):
    """The most similar pairs of a set, nearest first.

    Attributes:
        first: ``[K]`` int64 sample, smaller than that of ``second``.
        second: ``[K]`` int64.
        positive: ``[K]`` bool; the others are hard negatives.
    """

    first: Tensor
    second: Tensor
    positive: Tensor


def log_soft_multilabel(similarity: Tensor, *, scale: float) -> Tensor:
    """Return the logarithm of each image's likeness to every agent; likenesses add up to 1.

    Source: Yu et al., MAR, CVPR 2019, eq. 1; the scale only in the official code.

    Args:
        similarity: ``[n, agents]`` cosine similarities to reference agents.
        scale: Inverse temperature of the softmax; > 0.

    Returns:
        ``[n, agents]`` < 0, with gradient.

    Example:
        >>> log_soft_multilabel(torch.tensor([[0.5, 0.4, 0.5]]), scale=10.0).exp()
        tensor([[0.4223, 0.1554, 0.4223]])
    """
    return F.log_softmax(scale * similarity, dim=1)


def pair_agreements(multilabel: Tensor) -> Tensor:
    """Return the agreement of all pairs: the sum over agents of the smaller of both entries.

    Source: Yu et al., MAR, CVPR 2019, eq. 2.

    Args:
        multilabel: ``[n, agents]`` rows that sum to 1.

    Returns:
        ``[pairs]`` in [0, 1], without gradient.

    Example:
        >>> multilabel = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
        >>> pair_agreements(multilabel)
        tensor([0.9000, 0.4000, 0.4000])
    """
    return 1 - F.pdist(multilabel.detach(), p=1) / 2


def num_pairs(num_samples: int) -> int:
    """Return how many pairs there are.

    Example:
        >>> num_pairs(184)
        16836
    """
    return num_samples * (num_samples - 1) // 2


def pair_members(num_samples: int, number: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smaller and the larger sample of pairs, given by their numbers.

    Args:
        num_samples: Size of the set.
        number: ``[K]`` int64 in [0, pairs).

    Returns:
        ``[K]`` and ``[K]`` int64.

    Example:
        >>> pair_members(4, torch.tensor([0, 2, 3, 5]))
        (tensor([0, 0, 1, 2]), tensor([1, 3, 2, 3]))
    """
    first, second = torch.triu_indices(num_samples, num_samples, 1, device=number.device)
    return first[number], second[number]


def num_mined_pairs(num_samples: int, *, mining_ratio: float) -> int:
    """Return how many pairs of a set count as similar: the share ``mining_ratio``, rounded down.

    Example:
        >>> num_mined_pairs(184, mining_ratio=0.005), num_mined_pairs(20, mining_ratio=0.005)
        (84, 0)
    """
    return int(num_pairs(num_samples) * mining_ratio)


def agreeing_pairs(agreement: Tensor, threshold: Tensor) -> Tensor:
    """Return which similar pairs are positive because their multilabels agree; the rest is hard.

    Source: Yu et al., MAR, CVPR 2019, eq. 3.

    Args:
        agreement: ``[K]`` of the similar pairs, nearest first.
        threshold: 0-d; a positive pair exceeds it.

    Returns:
        ``[K]`` bool.

    Example:
        >>> agreeing_pairs(torch.tensor([0.9, 0.5, 0.4]), torch.tensor(0.5))
        tensor([ True, False, False])
    """
    return agreement > threshold


def nearest_pairs(agreement: Tensor, threshold: Tensor, *, positive_share: Share) -> Tensor:
    """Return which similar pairs are positive because they are the nearest, whatever their labels.

    MAR's feature-guided baseline, which shows what multilabels are good for. The paper does not
    tell how it splits the pairs; this is ours.

    Args:
        agreement: ``[K]`` of the similar pairs, nearest first; only its length counts.
        threshold: Not used.
        positive_share: Share of the pairs that is positive, rounded up; in [0, 1].

    Returns:
        ``[K]`` bool.

    Example:
        >>> nearest_pairs(torch.tensor([0.1, 0.9, 0.9]), torch.tensor(0.5), positive_share=0.5)
        tensor([ True,  True, False])
    """
    place = torch.arange(len(agreement), device=agreement.device)
    return place < positive_share * len(agreement)


def mine_pairs(
    embedding: Tensor,
    agreement: Tensor,
    threshold: Tensor,
    *,
    mining_ratio: float,
    mining: Callable[[Tensor, Tensor], Tensor],
) -> MinedPairs:
    """Return the pairs that look most alike, divided into positive and hard negative ones.

    The share of pairs is taken of this set, so the least similarity of a pair differs from batch
    to batch; the paper has one for the whole data set.
    Source: Yu et al., MAR, CVPR 2019, eq. 3, as in the official code.

    Args:
        embedding: ``[n, D]`` unit vectors.
        agreement: ``[pairs]`` of their multilabels.
        threshold: 0-d agreement that ``mining`` may use.
        mining_ratio: Share of the pairs that is mined, rounded down; in (0, 1).
        mining: ``(agreement [K], threshold) -> [K]`` bool: `agreeing_pairs`, or `nearest_pairs`
            with a share.

    Example:
        >>> embedding = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> agreement = torch.tensor([0.9, 0.4, 0.4])
        >>> mine_pairs(
        ...     embedding, agreement, torch.tensor(0.5), mining_ratio=0.7, mining=agreeing_pairs
        ... )
        MinedPairs(first=tensor([0, 1]), second=tensor([1, 2]), positive=tensor([ True, False]))
    """
    number = num_mined_pairs(len(embedding), mining_ratio=mining_ratio)
    nearest = F.pdist(embedding.detach()).topk(number, largest=False).indices
    first, second = pair_members(len(embedding), nearest)
    return MinedPairs(first, second, mining(agreement[nearest], threshold))


def kth_largest(values: Tensor, rank: int) -> Tensor:
    """Return the ``rank``-th largest value, counted from 1.

    Example:
        >>> kth_largest(torch.tensor([0.9, 0.4, 0.5]), 2)
        tensor(0.5000)
    """
    return values.kthvalue(len(values) - rank + 1).values


def initial_threshold(
    multilabel: Tensor, *, mining_ratio: float, official_compat: bool, tile: int = 512
) -> Tensor:
    """Return the agreement that the share ``mining_ratio`` of all pairs of a data set reach.

    Exact, with twice this share and one tile of agreements in memory at most: Market-1501 has 83
    million pairs.
    Source: Yu et al., MAR, CVPR 2019, official code.

    Args:
        multilabel: ``[N, agents]`` rows that sum to 1.
        mining_ratio: Share of the pairs; in (0, 1).
        official_compat: If the share is no whole pair, take the least agreement, as the official
            code does by accident; False takes the largest.
        tile: Samples compared with as many others at one time.

    Returns:
        0-d.

    Raises:
        ValueError: If there is no pair, or a multilabel is not finite.

    Example:
        >>> multilabel = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
        >>> initial_threshold(multilabel, mining_ratio=0.4, official_compat=False)
        tensor(0.9000)
    """
    if len(multilabel) < 2:
        raise ValueError(
            f"the target has {len(multilabel)} training images, and MAR compares pairs. Check "
            "data.target.root."
        )
    if not bool(multilabel.isfinite().all()):
        raise ValueError(
            "soft multilabels of the target are not finite before training has begun: the starting "
            "weights are broken. Check the file they come from."
        )
    rank = num_mined_pairs(len(multilabel), mining_ratio=mining_ratio)
    if rank == 0:
        rank = num_pairs(len(multilabel)) if official_compat else 1
    best = multilabel.new_empty(0)
    bound = multilabel.new_tensor(-torch.inf)
    for agreement in _agreement_tiles(multilabel, tile):
        best = torch.cat([best, agreement[agreement > bound]])
        if len(best) > 2 * rank:
            best = best.topk(rank, sorted=False).values
            bound = best.min()
    return kth_largest(best, rank)


def _agreement_tiles(multilabel: Tensor, tile: int) -> Iterator[Tensor]:
    """Yield agreements, those of every pair once.

    Two groups of samples are compared as one set and the pairs within a group thrown away: on a
    CPU `torch.pdist` is eight times as fast as `torch.cdist`, more than the half that is wasted.
    """
    groups = torch.split(multilabel, tile)
    for number, group in enumerate(groups):
        yield pair_agreements(group)
        for other in groups[number + 1 :]:
            both = torch.cat([group, other])
            first, second = torch.triu_indices(len(both), len(both), 1, device=both.device)
            across = (first < len(group)) & (second >= len(group))
            yield pair_agreements(both)[across]
