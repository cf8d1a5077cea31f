"""Cross-modal projection matching: the labels, seen in the length of the projections."""

from __future__ import annotations

from torch import Tensor

from crosswalk.losses.similarity_distribution import label_divergence


def projection_matching_loss(projection: Tensor, positive: Tensor) -> Tensor:
    """Return the cross-modal projection matching loss of every anchor, in one direction.

    Like similarity distribution matching without a temperature: the length of the anchor's
    feature sharpens its softmax, so the network learns how sure to be.
    Source: Zhang and Lu, ECCV 2018, as in IRRA's official code (labels of length 1, not sum 1).

    Args:
        projection: ``[anchors, candidates]`` scalar products of the anchors' features, as they
            are, with the candidates' unit vectors.
        positive: ``[anchors, candidates]`` bool, true where both show one person.

    Returns:
        ``[anchors]`` losses, not reduced; below 0 is possible, since the labels of an anchor
        with several positives sum to more than 1.

    Example:
        >>> import torch
        >>> projection_matching_loss(torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.bool))
        tensor([-0.6931])
    """
    label = positive.float()
    return label_divergence(projection, label / label.norm(dim=1, keepdim=True))
