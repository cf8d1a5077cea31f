"""Contrast of embeddings with the classes of a memory."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cluster_contrast_loss(
    scores: Tensor, target: Tensor, *, temperature: float = 0.05, epsilon: float = 1e-6
) -> Tensor:
    """Return the contrastive loss of every embedding against all classes of a memory.

    Both small constants are part of the loss: the first one stands beside the sum of the
    exponentials, the second one in the logarithm, so that no sample's loss exceeds
    ``-log(epsilon)``, 13.8, and a hopeless sample (a wrong pseudo label, say) loses its gradient.
    Source: Ge et al., SpCL, NeurIPS 2020, eq. 1, in the form of the released code that CMMT took
    over.

    Args:
        scores: ``[B, classes]`` cosine units; -inf for a class without members.
        target: ``[B]`` int64 class of each embedding, one with members.
        temperature: Scale of the softmax, in cosine units; > 0.
        epsilon: The two small constants; > 0.

    Returns:
        ``[B]`` losses >= -epsilon, not reduced.

    Example:
        >>> scores = torch.tensor([[0.6, 0.6, -torch.inf], [0.6, -0.6, -torch.inf]])
        >>> cluster_contrast_loss(scores, torch.tensor([0, 1]))
        tensor([ 0.6931, 13.8155])
    """
    logits = scores / temperature
    # exp(c) / (sum of exp + epsilon) by logarithms: exp(1 / 0.05) overflows float16
    little = logits.new_tensor(math.log(epsilon))
    log_total = torch.logaddexp(logits.logsumexp(dim=1), little)
    log_probability = logits.gather(1, target[:, None]).squeeze(1) - log_total
    return -(log_probability.exp() + epsilon).log()
