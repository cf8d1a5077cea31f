"""Generalised-mean pooling: between the average and the maximum, by a trained exponent."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crosswalk.ranges import Positive


class GemPool(nn.Module):
    """Generalised mean of every channel over all positions, with one exponent for all channels.

    An exponent of 1 is the average, a large one the maximum; it is trained like any parameter.
    Values below ``least`` count as that and get no gradient.
    Source: Radenovic et al., Fine-tuning CNN image retrieval with no human annotation, TPAMI 2019;
    start and bound as Dai et al., Cluster Contrast, ACCV 2022, released code.

    Args:
        p: Exponent at the start.
        least: Smallest value that is pooled; > 0.

    Example:
        >>> map = torch.tensor([1.0, 2.0, 0.0, -4.0]).reshape(1, 1, 2, 2)
        >>> GemPool()(map)
        tensor([[1.3104]], grad_fn=<...>)
    """

    def __init__(self, p: Positive = 3.0, *, least: Positive = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor([float(p)]))
        self.least = least

    def forward(self, features: Tensor) -> Tensor:
        """Return the ``[b, D]`` means of ``[b, D, h, w]`` maps, at least in float32."""
        wide = features.to(torch.promote_types(features.dtype, torch.float32))
        # outside autocast: a cube leaves the range of float16, and its mean that of bfloat16
        with torch.autocast(features.device.type, enabled=False):
            powers = wide.clamp_min(self.least).pow(self.p).mean(dim=(2, 3))
            pooled: Tensor = powers.pow(1 / self.p)
        return pooled

    def extra_repr(self) -> str:
        """Return the settings shown in a printed model."""
        return f"least={self.least}"
