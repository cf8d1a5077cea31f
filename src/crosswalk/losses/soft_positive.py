"""Similarity of an anchor with its positives, weighted towards the most similar ones."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_positive_similarity(similarity: Tensor, positive: Tensor, *, temperature: float) -> Tensor:
    """Return the weighted mean similarity of every anchor with its positives.

    The weights are a softmax over the positives, without gradient: with several images of a
    person in the batch, the easy ones carry the loss and a wrong one weighs little.
    Source: Qin et al., RDE, CVPR 2024, triplet alignment loss.

    Args:
        similarity: ``[anchors, candidates]`` cosine similarities in [-1, 1].
        positive: ``[anchors, candidates]`` bool, true where both show one person.
        temperature: Softness of the weights, in cosine units; > 0.

    Returns:
        ``[anchors]`` similarities.

    Raises:
        ValueError: If an anchor has no positive (on CUDA a device-side assertion fails instead).

    Example:
        >>> similarity = torch.tensor([[0.5, 0.6, 0.55]])
        >>> positive = torch.tensor([[True, True, False]])
        >>> soft_positive_similarity(similarity, positive, temperature=0.1)
        tensor([0.5731])
    """
    _require_a_positive(positive)
    logits = similarity.detach() / temperature
    weight = logits.masked_fill(~positive, -torch.inf).softmax(dim=1)
    return (weight * similarity).sum(dim=1)


def _require_a_positive(positive: Tensor) -> None:
    has_positive = positive.any(dim=1)
    try:  # not by reading the flag, which would stall the step until the forward is done
        torch._assert_async(has_positive.all(), "an anchor has no positive candidate")
    except RuntimeError as error:  # on a CPU, which knows it at once
        lonely = (~has_positive).nonzero().flatten().tolist()
        raise ValueError(
            f"anchors {lonely[:5]} have no positive candidate. Build `positive` from the "
            "gathered person ids, and check that the sampler keeps both halves of a pair."
        ) from error
