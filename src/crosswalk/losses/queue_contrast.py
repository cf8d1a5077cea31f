"""Contrast with a queue: find the own key among the keys of earlier batches."""

from __future__ import annotations

import torch
from torch import Tensor


def contrast_loss(positive: Tensor, negative: Tensor, *, temperature: float) -> Tensor:
    """Return the negative log-probability of every query's positive among its negatives.

    Source: van den Oord et al., 2018, InfoNCE with negatives from outside the batch.

    Args:
        positive: ``[queries]`` cosine similarity to the own key.
        negative: ``[queries, keys]`` cosine similarities to other keys; minus infinity takes a
            key out, and there may be none.
        temperature: Scale of the softmax, in cosine units; > 0.

    Returns:
        ``[queries]`` losses >= 0, not reduced; 0 without negatives.

    Example:
        >>> contrast_loss(torch.tensor([0.5]), torch.tensor([[0.2, -0.1]]), temperature=0.07)
        tensor([0.0139])
    """
    logits = torch.cat([positive[:, None], negative], dim=1) / temperature
    return -logits.log_softmax(dim=1)[:, 0]


def queue_contrast_loss(
    query: Tensor,
    key: Tensor,
    negatives: Tensor,
    is_negative: Tensor,
    *,
    temperature: float,
) -> Tensor:
    """Return the contrastive loss of every query with its own key against a queue of keys.

    The number of negatives does not depend on the batch. Keys in the queue that may show a person
    of the batch are left out for all queries alike, and never attract; nor do other members of
    the batch, which appear nowhere here.
    Source: Han et al., CM-MoCo, BMVC 2021, cross-modal momentum contrast; images are contrasted
    with captions' keys and captions with images' keys.

    Args:
        query: ``[B, D]`` unit vectors of one modality.
        key: ``[B, D]`` unit vectors of the same pairs in the other modality, without gradient.
        negatives: ``[K, D]`` unit vectors: the other modality's queue before this batch enters.
        is_negative: ``[K]`` bool, true for the rows of the queue that are used.
        temperature: Scale of the softmax, in cosine units; > 0.

    Returns:
        ``[B]`` losses >= 0, not reduced; 0 where no row of the queue is used.

    Example:
        >>> query, key = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
        >>> queue = torch.tensor([[0.6, -0.8], [0.0, 1.0]])
        >>> queue_contrast_loss(query, key, queue, torch.tensor([True, False]), temperature=0.07)
        tensor([0.6931])
    """
    # masked, not indexed: the shapes stay what they are, and nothing waits for the device
    similarity = (query @ negatives.T).masked_fill(~is_negative, -torch.inf)
    return contrast_loss((query * key).sum(dim=1), similarity, temperature=temperature)


def mean_similarities(
    query: Tensor, key: Tensor, negatives: Tensor, is_negative: Tensor
) -> tuple[Tensor, Tensor]:
    """Return how similar queries are to their own keys, and to those of others, on average.

    Tells whether a contrast is learned: the first rises, the second falls. Arguments as for
    `queue_contrast_loss`; the second is 0 where no row of the queue is used.

    Example:
        >>> query, key = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
        >>> queue = torch.tensor([[0.5, -0.5], [0.0, 1.0]])
        >>> mean_similarities(query, key, queue, torch.tensor([True, True]))
        (tensor(0.6000), tensor(0.2500))
    """
    used = is_negative.to(negatives.dtype)
    # the mean of all products is the product of the means
    mean_negative = used @ negatives / used.sum().clamp_min(1)
    return (query * key).sum(dim=1).mean(), query.mean(dim=0) @ mean_negative
