"""Similarity distribution matching: probabilities of candidates as the labels distribute them."""

from __future__ import annotations

from torch import Tensor

LABEL_FLOOR = 1e-8
"""Added to the labels before their logarithm, as in IRRA's official code."""


def label_divergence(logits: Tensor, label: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of every anchor's softmax from its labels.

    Args:
        logits: ``[anchors, candidates]``.
        label: ``[anchors, candidates]`` >= 0; a row need not sum to 1.

    Returns:
        ``[anchors]``, not reduced; near 18.4 where all the mass lies on a label of 0.

    Example:
        >>> import torch
        >>> label_divergence(torch.zeros(1, 2), torch.tensor([[1.0, 1.0]]))
        tensor([-0.6931])
    """
    log_probability = logits.log_softmax(dim=1)
    log_label = (label.float() + LABEL_FLOOR).log()  # float32, where 1 + 1e-8 is 1, as in IRRA
    return (log_probability.exp() * (log_probability - log_label)).sum(dim=1)


def similarity_distribution_loss(
    similarity: Tensor, positive: Tensor, *, temperature: float
) -> Tensor:
    """Return the similarity distribution matching loss of every anchor, in one direction.

    Wants the probability spread evenly over all candidates of the anchor's person.
    Source: Jiang and Ye, IRRA, CVPR 2023, similarity distribution matching.

    Args:
        similarity: ``[anchors, candidates]`` cosine similarities in [-1, 1].
        positive: ``[anchors, candidates]`` bool, true where both show one person.
        temperature: Scale of the softmax, in cosine units; > 0.

    Returns:
        ``[anchors]`` losses, not reduced.

    Example:
        >>> import torch
        >>> loss = similarity_distribution_loss(
        ...     torch.tensor([[0.3, 0.3]]), torch.tensor([[True, True]]), temperature=0.02
        ... )
        >>> loss.abs() < 1e-6
        tensor([True])
    """
    label = positive.float()
    return label_divergence(similarity / temperature, label / label.sum(dim=1, keepdim=True))
