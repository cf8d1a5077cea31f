"""Supervised contrast: find all candidates of one's own person among all."""

from __future__ import annotations

import torch
from torch import Tensor


def supervised_contrastive_loss(scores: Tensor, positive: Tensor) -> Tensor:
    """Return how improbable every anchor's positives are, in one direction.

    Each positive is one right answer of a softmax over all candidates, the other positives
    included, and the loss is the mean over an anchor's positives. So several images of a person
    may be in a batch, which pairs alone (`info_nce`) would take for strangers.
    Source: Khosla et al., Supervised contrastive learning, NeurIPS 2020, mean outside the
    logarithm; with CLIP's raw products for scores in CLIP-ReID, Li et al., AAAI 2023.

    Args:
        scores: ``[anchors, candidates]`` of any size: products, or cosines by a temperature.
        positive: ``[anchors, candidates]`` bool, true where both show one person.

    Returns:
        ``[anchors]`` losses >= 0, not reduced.

    Raises:
        ValueError: If an anchor has no positive.

    Example:
        >>> positive = torch.tensor([[True, True, False], [False, False, True]])
        >>> scores = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        >>> supervised_contrastive_loss(scores, positive)  # log 3, log(2 + e) - 1
        tensor([1.0986, 0.5514])
    """
    number = positive.sum(dim=1)
    if bool((number == 0).any()):
        lonely = (number == 0).nonzero().flatten().tolist()
        raise ValueError(
            f"anchors {lonely[:5]} have no positive candidate. Build `positive` from the gathered "
            "person ids of both sides."
        )
    log_share = scores.log_softmax(dim=1)
    return -torch.where(positive, log_share, 0.0).sum(dim=1) / number
