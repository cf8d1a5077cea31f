"""Cross-modal projection matching with identities."""

from __future__ import annotations

from torch import Tensor

from crosswalk.losses.similarity_distribution import LABEL_FLOOR, label_divergence


def cross_modal_projection_loss(
    projection: Tensor, positive: Tensor, *, epsilon: float = LABEL_FLOOR
) -> Tensor:
    """Return the projection matching loss of every anchor, in one direction.

    As similarity distribution matching without a temperature: how long an anchor is says how sure
    it is. The labels of a row have the Euclidean length 1, so their sum is above 1 where a person
    occurs more than once, as in the released codes.
    Source: Zhang and Lu, ECCV 2018; as CMPM in the code of Jiang and Ye, IRRA, CVPR 2023.

    Args:
        projection: ``[anchors, candidates]`` scalar products of the anchors' embeddings, as they
            are, with the candidates' unit vectors.
        positive: ``[anchors, candidates]`` bool, true where both show one person.
        epsilon: Added to the labels before their logarithm; > 0.

    Returns:
        ``[anchors]`` losses, not reduced; below 0 where a person occurs more than once.

    Example:
        >>> import torch
        >>> cross_modal_projection_loss(torch.zeros(1, 2), torch.tensor([[True, True]]))
        tensor([-0.3466])
    """
    label = positive.float()
    label = label / label.norm(dim=1, keepdim=True)
    # the divergence adds its own floor
    return label_divergence(projection, label + (epsilon - LABEL_FLOOR))
