"""Classifiers over training identities that have one vector per person."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.encoders.image import norm_scale
from crosswalk.ranges import Count, Positive, Width


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

    def __init__(self, in_features: Width, out_features: Count, *, scale: Positive) -> None:
        super().__init__()
        bound = in_features**-0.5  # as torch.nn.Linear
        self.weight = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Return ``[b, persons]`` logits of ``[b, D]`` features."""
        return self.scale * norm_scale(features) @ norm_scale(self.weight).T


class NormalizedClassifier(nn.Module):
    """Scalar products with one direction per person.

    The vectors of the persons are compared by direction only, so none wins by its length; the
    embeddings keep theirs, which sharpens the softmax behind it. One such classifier for both
    modalities pulls them together. No bias.
    Source: Han et al., CM-MoCo, BMVC 2021, identity loss; from Zhang and Lu, ECCV 2018.

    Args:
        embedding_size: Length of the embeddings.
        num_classes: Persons.

    Example:
        >>> classifier = NormalizedClassifier(2, 1)
        >>> _ = classifier.weight.data.copy_(torch.tensor([[0.0], [2.0]]))
        >>> classifier(torch.tensor([[3.0, 4.0]]))
        tensor([[4.]], grad_fn=<...>)
    """

    def __init__(self, embedding_size: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(embedding_size, num_classes))
        nn.init.xavier_uniform_(self.weight)  # CM-MoCo, released code

    def forward(self, embedding: Tensor) -> Tensor:
        """Return ``[b, persons]`` logits of ``[b, D]`` embeddings, which are taken as they are."""
        return embedding @ F.normalize(self.weight, dim=0)
