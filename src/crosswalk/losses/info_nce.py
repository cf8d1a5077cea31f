"""InfoNCE: find the one paired candidate among all."""

from __future__ import annotations

from torch import Tensor


def info_nce(similarity: Tensor, positive: Tensor, *, temperature: float) -> Tensor:
    """Return the negative log-probability of every anchor's own candidate, in one direction.

    Knows pairs, not persons: candidate i belongs to anchor i, and another image of the same
    person counts as a negative. Candidates beyond the anchors are negatives too.
    Source: van den Oord et al., 2018; in RDE's official code the alternative named InfoNCE.

    Args:
        similarity: ``[anchors, candidates]`` cosine similarities; at least as many candidates
            as anchors.
        positive: Not read; there so that all pair losses are called alike.
        temperature: Scale of the softmax, in cosine units; > 0.

    Returns:
        ``[anchors]`` losses >= 0, not reduced.

    Example:
        >>> import torch
        >>> info_nce(torch.zeros(2, 4), torch.eye(2, 4, dtype=torch.bool), temperature=0.02)
        tensor([1.3863, 1.3863])
    """
    return -(similarity / temperature).log_softmax(dim=1).diagonal()
