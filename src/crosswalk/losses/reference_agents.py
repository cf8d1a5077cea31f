"""Losses around reference agents: one unit vector for each person of a labelled source."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from crosswalk.losses.identity import identity_loss


class JointTerms(NamedTuple):
    """Terms of `joint_embedding_loss`; their mean is the sum of ``loss`` over that of ``counted``.

    Attributes:
        loss: ``[terms]`` >= 0; the pulls of the source images, then the pushes of the source
            images (if asked for) and of the target images; 0 where a term does not count.
        counted: ``[terms]`` bool; a push counts where its image has a hard agent, a pull always.
    """

    loss: Tensor
    counted: Tensor


def agent_loss(similarity: Tensor, person_id: Tensor, *, scale: float) -> Tensor:
    """Return the cross-entropy of every source image's own agent among all agents.

    Makes an agent stand for its person; no other loss of MAR moves the agents.
    Source: Yu et al., MAR, CVPR 2019, eq. 7; the scale only in the official code.

    Args:
        similarity: ``[n, agents]`` cosine similarities in [-1, 1].
        person_id: ``[n]`` int64 own agents.
        scale: Inverse temperature of the softmax; > 0.

    Returns:
        ``[n]`` losses >= 0, not reduced.

    Example:
        >>> agent_loss(torch.tensor([[0.5, 0.4]]), torch.tensor([0]), scale=10.0)
        tensor([0.3133])
    """
    return identity_loss(scale * similarity, person_id)


def hard_agents(similarity: Tensor, *, margin: float) -> Tensor:
    """Return which agents are too near: closer than ``margin``, if both are unit vectors.

    Args:
        similarity: ``[n, agents]`` cosine similarities.
        margin: Squared distance that a stranger's image should keep; in [0, 4].

    Returns:
        ``[n, agents]`` bool.

    Example:
        >>> hard_agents(torch.tensor([[0.5, 0.6]]), margin=1.0)
        tensor([[False,  True]])
    """
    return similarity > 1 - margin / 2


def joint_embedding_loss(
    source: Tensor,
    target: Tensor,
    agents: Tensor,
    person_id: Tensor,
    *,
    source_similarity: Tensor,
    target_similarity: Tensor,
    margin: float,
    source_negatives: bool,
) -> JointTerms:
    """Return what ties both domains to the agents: pulls to one's own, pushes from hard ones.

    The source pulls its images to their agents, so agents stay where images are; a target image
    shows no source person, so it is pushed from agents that are too near. The push of an image is
    the mean over its hard agents.
    Source: Yu et al., MAR, CVPR 2019, eq. 8. As in the official code, and unlike the paper, a push
    is a mean, all terms are averaged, and source images may be pushed from strangers' agents.

    Args:
        source: ``[n_s, D]`` unit vectors of source images.
        target: ``[n_t, D]`` unit vectors of target images.
        agents: ``[agents, D]`` unit vectors; detach them to let only images move (official code).
        person_id: ``[n_s]`` int64 own agents of the source images.
        source_similarity: ``[n_s, agents]`` ``source @ agents.T``; only the values are used.
        target_similarity: ``[n_t, agents]`` ``target @ agents.T``; only the values are used.
        margin: Squared distance that a stranger's image should keep; in [0, 4].
        source_negatives: Whether source images are pushed too.

    Example:
        >>> source, target = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.8, 0.6]])
        >>> agents = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
        >>> terms = joint_embedding_loss(
        ...     source,
        ...     target,
        ...     agents,
        ...     torch.tensor([0]),
        ...     source_similarity=source @ agents.T,
        ...     target_similarity=target @ agents.T,
        ...     margin=1.0,
        ...     source_negatives=True,
        ... )
        >>> terms.loss
        tensor([0.0000, 0.2000, 0.5733])
        >>> terms.loss.sum() / terms.counted.sum()
        tensor(0.2578)
    """
    pull = (source - agents[person_id]).square().sum(dim=1)
    image, similarity = target, target_similarity.detach()
    if source_negatives:
        image = torch.cat([source, target])
        similarity = torch.cat([source_similarity.detach(), similarity])
    hard = hard_agents(similarity, margin=margin)
    if source_negatives:
        hard[torch.arange(len(source), device=hard.device), person_id] = False
    push = _mean_hinge(image, agents, similarity, hard, margin)
    always = torch.ones_like(person_id, dtype=torch.bool)
    return JointTerms(torch.cat([pull, push]), torch.cat([always, hard.any(dim=1)]))


def _mean_hinge(
    image: Tensor, agents: Tensor, similarity: Tensor, hard: Tensor, margin: float
) -> Tensor:
    """Return ``[n]`` means over hard agents of max(0, margin - squared distance); 0 without any.

    Hard agents are few: the agents within the margin are added up for each image, and the sum of
    their squared distances follows from that. Neither all differences, 6 GB at the published size,
    nor another product with all agents is needed.
    """
    length, agent_length = image.square().sum(dim=1), agents.square().sum(dim=1)
    distance = length.detach()[:, None] + agent_length.detach() - 2 * similarity
    near = hard & (distance < margin)
    number = near.sum(dim=1)
    starts = number.cumsum(dim=0) - number
    total = F.embedding_bag(near.nonzero()[:, 1], agents, starts, mode="sum")
    hinges = number * (margin - length) - near.to(length.dtype) @ agent_length
    return (hinges + 2 * (image * total).sum(dim=1)) / hard.sum(dim=1).clamp_min(1)
