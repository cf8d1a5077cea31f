"""Classifiers over training identities whose rows stand for persons."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crosswalk.encoders.image import norm_scale


class AgentClassifier(nn.Module):
    """Scaled cosine similarities to one reference agent per person.

    Trained with the cross-entropy this is MAR's agent loss, so its rows can become the agents of
    MAR. Source: Yu et al., MAR, CVPR 2019, eq. 7, with the scale of the released code.

    Args:
        in_features: Length of the features.
        out_features: Persons.
        scale: Inverse temperature of the softmax behind it.

    Example:
        >>> agents = AgentClassifier(2, 1, scale=30.0)
        >>> _ = agents.weight.data.copy_(torch.tensor([[0.0, 2.0]]))
        >>> agents(torch.tensor([[3.0, 4.0]])).round(decimals=3)
        tensor([[24.]], grad_fn=<...>)
    """

    def __init__(self, in_features: int, out_features: int, *, scale: float) -> None:
        super().__init__()
        bound = in_features**-0.5  # as torch.nn.Linear
        self.weight = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Return ``[b, persons]`` logits of ``[b, D]`` features."""
        return self.scale * norm_scale(features) @ norm_scale(self.weight).T
