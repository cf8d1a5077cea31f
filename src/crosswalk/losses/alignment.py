"""Alignment loss: same-person pairs above one similarity, all other pairs below another."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from crosswalk.ranges import Positive, Similarity


def alignment_loss(
    similarity: Tensor,
    positive: Tensor,
    *,
    alpha: Similarity,
    beta: Similarity,
    scale_pos: Positive,
    scale_neg: Positive,
) -> Tensor:
    """Return the alignment loss of every image with all captions; their mean is the batch's loss.

    A soft hinge on every pair by itself, so a pair that is right already stops pulling. The pairs
    of both retrieval directions are the same, so each counts once here and the sum is doubled.
    The sum over pairs is divided by the images alone: a larger batch weighs more.
    Source: Wang et al., ViTAA, ECCV 2020, alignment loss; as in CM-MoCo, BMVC 2021.

    Args:
        similarity: ``[images, captions]`` cosine similarities in [-1, 1], float32 at least: the
            exponents reach ``scale_neg * (1 - beta)``.
        positive: ``[images, captions]`` bool, true where both show one person.
        alpha: Similarity above which a positive pair is good, in cosine units.
        beta: Similarity below which a negative pair is good, in cosine units.
        scale_pos: Steepness of the hinge of positive pairs, in 1 / cosine units; > 0.
        scale_neg: Steepness of the hinge of negative pairs, in 1 / cosine units; > 0.

    Returns:
        ``[images]`` losses >= 0, not reduced.

    Example:
        >>> import torch
        >>> similarity = torch.tensor([[0.6, 0.0], [0.8, 1.0]])
        >>> positive = torch.eye(2, dtype=torch.bool)
        >>> alignment_loss(
        ...     similarity, positive, alpha=0.6, beta=0.4, scale_pos=10.0, scale_neg=40.0
        ... )
        tensor([ 1.3863, 32.0363])
    """
    # softplus is log(1 + exp(x)) without its overflow, to 2e-9
    near = F.softplus(-scale_pos * (similarity - alpha))
    far = F.softplus(scale_neg * (similarity - beta))
    return 2 * near.where(positive, far).sum(dim=1)
