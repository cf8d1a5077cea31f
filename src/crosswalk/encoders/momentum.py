"""A slow copy of an encoder, for keys that change little from step to step."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from crosswalk.encoders.word_vectors import WordTable


class MomentumEncoder(nn.Module):
    """A copy of an encoder whose parameters follow it as a moving average, without gradient.

    Only parameters follow. Buffers, the running statistics of batch normalisations among them,
    are the copy's own and change by its own forward passes in train mode, under
    ``torch.no_grad()``; frozen word tables alone are shared. Update it before the keys of a step
    are computed, from parameters that are the same on all processes.
    Source: He et al., MoCo, CVPR 2020; for two modalities Han et al., CM-MoCo, BMVC 2021.

    Args:
        online: The encoder that is trained; copied as it is, so initialise it before.

    Example:
        >>> online = nn.Linear(1, 1, bias=False)
        >>> _ = online.weight.data.fill_(1.0)
        >>> slow = MomentumEncoder(online)
        >>> _ = online.weight.data.fill_(2.0)
        >>> slow.update_from(online, momentum=0.75)
        >>> slow.module.weight
        Parameter containing:
        tensor([[1.2500]])
    """

    def __init__(self, online: nn.Module) -> None:
        super().__init__()
        shared = {id(part): part for part in online.modules() if isinstance(part, WordTable)}
        self.module = copy.deepcopy(online, shared).requires_grad_(False)

    @torch.no_grad()
    def update_from(self, online: nn.Module, *, momentum: float) -> None:
        """Move every parameter toward the encoder's: ``momentum * old + (1 - momentum) * online``.

        Args:
            online: The encoder that was copied.
            momentum: Weight of the old parameters, in [0, 1].
        """
        mine: list[Tensor] = list(self.module.parameters())
        theirs: list[Tensor] = list(online.parameters())
        if mine:
            torch._foreach_lerp_(mine, theirs, 1 - momentum)  # a few kernels for all parameters

    def copy_from(self, online: nn.Module) -> None:
        """Take over all parameters and persistent buffers of the encoder that was copied."""
        self.module.load_state_dict(online.state_dict())
