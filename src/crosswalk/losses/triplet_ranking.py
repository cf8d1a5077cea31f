"""Triplet ranking losses: the hardest negative, or all of them one by one."""

from __future__ import annotations

from torch import Tensor

from crosswalk.losses.soft_positive import soft_positive_similarity


def triplet_ranking_loss(
    similarity: Tensor, positive: Tensor, *, margin: float, temperature: float
) -> Tensor:
    """Return the hardest-negative triplet loss of every anchor, in one retrieval direction.

    The similarity of the hardest negative is floored at 0, as in RDE's official code: a negative
    that points away from the anchor is not pushed any further.
    Source: Qin et al., RDE, CVPR 2024, triplet ranking loss.

    Args:
        similarity: ``[anchors, candidates]`` cosine similarities in [-1, 1].
        positive: ``[anchors, candidates]`` bool, true where both show one person.
        margin: Least lead of the positive over the hardest negative, in cosine units;
            0 <= margin <= 2.
        temperature: Softness of the weights of several positives, in cosine units; > 0.

    Returns:
        ``[anchors]`` losses >= 0, not reduced.

    Raises:
        ValueError: If an anchor has no positive.

    Example:
        >>> import torch
        >>> triplet_ranking_loss(
        ...     torch.tensor([[0.9, 0.1], [0.5, 0.3]]),
        ...     torch.eye(2, dtype=torch.bool),
        ...     margin=0.25,
        ...     temperature=0.1,
        ... )
        tensor([0.0000, 0.4500])
    """
    hardest_negative = similarity.masked_fill(positive, 0.0).max(dim=1).values
    lead = soft_positive_similarity(similarity, positive, temperature=temperature)
    return (margin + hardest_negative - lead).clamp_min(0)


def triplet_ranking_sum_loss(
    similarity: Tensor, positive: Tensor, *, margin: float, temperature: float
) -> Tensor:
    """Return the sum of every anchor's triplet losses over its negatives, in one direction.

    What the triplet alignment loss is compared with in the paper: no negative is singled out,
    so the loss grows with the batch.
    Source: Qin et al., RDE, CVPR 2024, supplement, TRL-S. Not in the official code; with several
    positives their soft-weighted mean takes the place of the single one (ours).

    Args:
        similarity: ``[anchors, candidates]`` cosine similarities in [-1, 1].
        positive: ``[anchors, candidates]`` bool, true where both show one person.
        margin: Least lead of the positive over each negative, in cosine units; 0 <= margin <= 2.
        temperature: Softness of the weights of several positives, in cosine units; > 0.

    Returns:
        ``[anchors]`` losses >= 0, not reduced.

    Raises:
        ValueError: If an anchor has no positive.

    Example:
        >>> import torch
        >>> triplet_ranking_sum_loss(
        ...     torch.tensor([[0.5, 0.5, 0.25], [0.0, 1.0, 0.0]]),
        ...     torch.tensor([[True, False, False], [False, True, False]]),
        ...     margin=0.5,
        ...     temperature=0.1,
        ... )
        tensor([0.7500, 0.0000])
    """
    lead = soft_positive_similarity(similarity, positive, temperature=temperature)
    return (margin + similarity - lead[:, None]).clamp_min(0).masked_fill(positive, 0.0).sum(dim=1)
