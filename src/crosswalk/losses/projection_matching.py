"""Cross-modal projection matching: the labels, seen in the length of the projections."""

from __future__ import annotations

from torch import Tensor


def soft_projection_matching_loss(
    projection: Tensor, relation: Tensor, *, epsilon: float = 1e-8
) -> Tensor:
    """Return the projection matching loss of every anchor toward soft labels, in one direction.

    Without identities only the own pair is a known positive. The relation of two captions, such
    as the overlap of their noun phrases, says how much the other pairs are positives too. With
    the identity matrix as relation, this is projection matching of one-to-one pairs.
    Source: Zhao et al., CMMT, ICCV 2021, Text-IoU guided matching; a published note on the paper
    prints a minus sign, which would drive the distributions apart. The divergence is minimised
    here, as by the released code for one-to-one pairs.

    Args:
        projection: ``[anchors, candidates]`` scalar products of the anchors' features, as they
            are, with the candidates' unit vectors.
        relation: ``[anchors, candidates]`` >= 0, a constant; only its ratios within a row count,
            and a row has to have a sum > 0.
        epsilon: Added to the labels before their logarithm; > 0.

    Returns:
        ``[anchors]`` losses >= 0, but for epsilon, not reduced; near ``-log(epsilon)`` where all
        the mass lies on a label of 0.

    Example:
        >>> import torch
        >>> projection = torch.tensor([[2.0, 2.0], [1.0, 0.0]])
        >>> soft_projection_matching_loss(projection, torch.tensor([[0.5, 0.5], [1.0, 1.0]]))
        tensor([0.0000, 0.1109])
    """
    relation = relation.to(projection.dtype)
    label = relation / relation.sum(dim=1, keepdim=True)
    log_probability = projection.log_softmax(dim=1)
    divergence = log_probability.exp() * (log_probability - (label + epsilon).log())
    return divergence.sum(dim=1)
