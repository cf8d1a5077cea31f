"""Losses of a sample's scores against all rows of a memory, several of which may be right."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from crosswalk.ranges import Positive, Share

ClassReduction = Literal["sum", "mean", "balanced"]


def mmcl_loss(logits: Tensor, labels: Tensor, *, delta: Positive, ratio: Share) -> Tensor:
    """Return the memory-based multi-label classification loss of every sample.

    Draws the scores of the positive classes to 1 and those of the hardest negatives to -1 by
    squares: a logistic loss has almost no slope between -1 and 1, where cosines are, and among
    thousands of classes nearly all are easy negatives.
    Source: Wang and Zhang, MMCL, CVPR 2020, multi-label classification loss.

    Args:
        logits: ``[B, N]`` similarities to the rows of the memory.
        labels: ``[B, N]`` bool, true for positive classes.
        delta: Weight of the positive classes; >= 0.
        ratio: Share of the negative classes that counts, in (0, 1]: rounded down, at least one.

    Returns:
        ``[B]`` losses >= 0, not reduced. Without negatives only the positive term is left, without
        positives only the negative one.

    Raises:
        ValueError: If ``ratio`` is no share.

    Example:
        >>> logits = torch.tensor([[0.9, 0.2, -0.1, 0.5, 0.3]])
        >>> labels = torch.tensor([[False, True, False, True, False]])
        >>> mmcl_loss(logits, labels, delta=1, ratio=0.34)  # 0.89 / 2 and 1.9 ** 2
        tensor([4.0550])
    """
    num_classes = logits.shape[1]
    if not 0 < ratio <= 1:
        raise ValueError(f"method.loss.ratio={ratio} is no share of the negatives; 0.01 is 1 %.")
    _note_less_than_one(ratio, num_classes - 1)
    num_positive = labels.sum(dim=1)
    num_negative = num_classes - num_positive
    # float64, so that the share is cut where the released code cuts it: 0.29 of 100 is 28
    num_hard = (ratio * num_negative.double()).long().clamp_min(1).minimum(num_negative)
    attraction = _mean_where((1 - logits).square(), labels, num_positive)

    most = min(num_classes, max(1, int(ratio * num_classes)))
    hardest = logits.detach().masked_fill(labels, -torch.inf).topk(most).indices
    counts = torch.arange(most, device=logits.device) < num_hard[:, None]
    repulsion = _mean_where((1 + logits.gather(1, hardest)).square(), counts, num_hard)
    return delta * attraction + repulsion


@cache  # a filter of Python's would say it again wherever another library touches the filters
def _note_less_than_one(ratio: float, num_negative: int) -> None:
    """Warn, once, of a share of the negatives in which there is not one."""
    if int(ratio * num_negative) < 1 <= num_negative:
        warnings.warn(
            f"method.loss.ratio={ratio} of {num_negative} negative classes is less than one; "
            "the hardest one is taken. Raise method.loss.ratio for so few training images.",
            stacklevel=3,
        )


def multilabel_classification_loss(
    logits: Tensor, labels: Tensor, *, temperature: Positive, class_reduction: ClassReduction
) -> Tensor:
    """Return the logistic loss of every sample over all classes (MCL, with temperature MCL-tau).

    What MMCL is compared with: at temperature 1 its slope hardly depends on a cosine, at small
    temperatures it vanishes for classes that are nearly right.
    Source: Wang and Zhang, MMCL, CVPR 2020, the losses it argues against; not in the released code.

    Args:
        logits: ``[B, N]`` similarities to the rows of the memory.
        labels: ``[B, N]`` bool, true for positive classes.
        temperature: Divides the similarities; > 0, and 1 is plain MCL.
        class_reduction: "sum" or "mean" over all classes, or "balanced": the mean over positives
            plus the mean over negatives. Ours; what the published comparison took is not known.

    Returns:
        ``[B]`` losses >= 0, not reduced.

    Example:
        >>> multilabel_classification_loss(
        ...     torch.tensor([[0.5, 0.3]]),
        ...     torch.tensor([[True, False]]),
        ...     temperature=1.0,
        ...     class_reduction="sum",
        ... )  # 0.4741 and 0.8544
        tensor([1.3284])
    """
    scaled = logits / temperature
    losses = F.softplus(torch.where(labels, -scaled, scaled))
    if class_reduction == "balanced":
        num_positive = labels.sum(dim=1)
        return _mean_where(losses, labels, num_positive) + _mean_where(
            losses, ~labels, logits.shape[1] - num_positive
        )
    return {"sum": losses.sum, "mean": losses.mean}[class_reduction](dim=1)


def memory_cross_entropy(logits: Tensor, labels: Tensor, *, temperature: Positive) -> Tensor:
    """Return the softmax cross-entropy of every sample, averaged over its positive classes.

    With one positive class the usual instance discrimination.
    Source: Zhong et al., ECN, CVPR 2019, exemplar invariance.

    Args:
        logits: ``[B, N]`` similarities to the rows of the memory.
        labels: ``[B, N]`` bool, true for positive classes; at least one.
        temperature: Divides the similarities; > 0.

    Returns:
        ``[B]`` losses >= 0, not reduced.

    Example:
        >>> memory_cross_entropy(
        ...     torch.zeros(1, 4), torch.tensor([[False, True, False, False]]), temperature=0.05
        ... )
        tensor([1.3863])
    """
    losses = -(logits / temperature).log_softmax(dim=1)
    return _mean_where(losses, labels, labels.sum(dim=1))


def _mean_where(values: Tensor, chosen: Tensor, count: Tensor) -> Tensor:
    """Return the mean of each row's chosen values, 0 where none is."""
    return values.where(chosen, 0.0).sum(dim=1) / count.clamp_min(1)
