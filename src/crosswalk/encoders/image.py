"""The image encoder of image re-identification: backbone, pooling, neck."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from crosswalk.encoders.batch_norm import GroupBatchNorm, RunningStatistics, follow_groups
from crosswalk.encoders.heads import averaged, num_features_of
from crosswalk.ranges import Count
from crosswalk.types import ImageFeatures


class ImageEncoder(nn.Module):
    """One vector per image, before and behind a neck; neither is normalised.

    Training behind a batch normalisation and comparing images before it, or the other way round,
    is a choice of the method. Source of the neck: Luo et al., Bag of tricks and a strong baseline
    for deep person re-identification, CVPRW 2019.

    Args:
        backbone: Gives ``[b, D, h, w]`` maps, which are pooled, or ``[b, D]`` vectors;
            ``num_features`` is D.
        neck: A batch normalisation with scale 1 and shift 0 at the start; or none (MAR).
        neck_bias: Whether the shift of the neck is trained (MMCL); False keeps it at 0 (strong
            baseline).
        group_size: Samples that share statistics in the neck; None means the whole global batch.
        channels_last: Whether images and weights lie in memory pixel by pixel, which is faster
            with bfloat16 and on GPUs; results differ in rounding only.
        pooling: Maps to ``[b, D, 1, 1]`` or ``[b, D]``, such as `crosswalk.encoders.gem.GemPool`;
            None averages over all positions.
        running_statistics: Whether every group of a batch reaches the running statistics of the
            batch normalisations, or the first one alone.

    Example:
        >>> from crosswalk.encoders.resnet import resnet
        >>> encoder = ImageEncoder(resnet("tiny"), neck="batch_norm")
        >>> features = encoder(torch.zeros(2, 3, 96, 48))
        >>> features.pooled.shape, features.neck.shape, encoder.embedding_size
        (torch.Size([2, 128]), torch.Size([2, 128]), 128)
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        neck: Literal["batch_norm", "none"] = "batch_norm",
        neck_bias: bool = True,
        group_size: Count | None = None,
        channels_last: bool = False,
        pooling: nn.Module | None = None,
        running_statistics: RunningStatistics = "every_group",
    ) -> None:
        super().__init__()
        self.embedding_size = size = num_features_of(backbone)
        self.backbone = backbone
        self.pooling = pooling
        self.neck: nn.Module = nn.Identity()
        if neck == "batch_norm":
            norm = GroupBatchNorm(size, group_size=group_size)
            norm.bias.requires_grad_(neck_bias)
            self.neck = norm
        follow_groups(self, running_statistics)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self.memory_format)

    def forward(self, image: Tensor) -> ImageFeatures:
        """Return the features of ``[b, 3, H, W]`` normalised images, at least in float32."""
        features = self.backbone(image.contiguous(memory_format=self.memory_format))
        if self.pooling is not None and features.dim() == 4:
            features = self.pooling(features).flatten(1)
        pooled = averaged(features)
        return ImageFeatures(pooled, self.neck(pooled))


def norm_scale(rows: Tensor) -> Tensor:
    """Return rows of length 1, as MAR scales its features and agents.

    A row of length r is divided by r + 1e-7; one with r <= 1e-5 is multiplied by 1e5, so that a
    row of zeros stays one. Gradients follow the length too.
    Source: Yu et al., MAR, CVPR 2019, as released: rows cut to length 1e-5, then times 1e5.

    Args:
        rows: ``[n, D]``.

    Returns:
        ``[n, D]``.

    Example:
        >>> norm_scale(torch.tensor([[3.0, 4.0], [0.0, 2e-6], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.2000],
                [0.0000, 0.0000]])
    """
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows * torch.where(length > 1e-5, 1 / (length + 1e-7), 1e5)
