"""IBN-a: instance normalisation of half of the channels in the early stages of a ResNet.

What differs between images in looks alone, such as a camera's colours, is taken out of one half of
the channels; the other half keeps it. The last stage, where people are told apart, is as usual.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crosswalk.encoders.batch_norm import GroupBatchNorm
from crosswalk.encoders.clip_weights import load_backbone, read_weights
from crosswalk.encoders.resnet import ResNet
from crosswalk.ranges import Count


class InstanceBatchNorm(nn.Module):
    """Instance normalisation of the first half of the channels, batch normalisation of the rest.

    The instance normalisation keeps no running statistics: it is the same in training and in
    evaluation. Parameter names are those of the official weights.
    Source: Pan et al., Two at Once: Enhancing Learning and Generalization Capacities via IBN-Net,
    ECCV 2018, IBN-a.

    Args:
        num_features: Channels; even.
        group_size: Samples that share statistics in the batch normalisation; None means all.

    Raises:
        ValueError: If the number of channels is odd.

    Example:
        >>> norm = InstanceBatchNorm(2)
        >>> norm(torch.tensor([1.0, 3.0, 10.0, 14.0]).reshape(2, 1, 2, 1).expand(2, 2, 2, 1))[0, 0]
        tensor([[-1.0000],
                [ 1.0000]], grad_fn=<SelectBackward0>)
    """

    def __init__(self, num_features: int, *, group_size: Count | None = None) -> None:
        super().__init__()
        if num_features % 2:
            raise ValueError(
                f"{num_features} channels have no two halves, which IBN needs. Choose planes that "
                "are even, or leave encoder.backbone without IBN."
            )
        half = num_features // 2
        self.IN = nn.InstanceNorm2d(half, affine=True)
        self.BN = GroupBatchNorm(half, group_size=group_size)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[b, C, h, w]`` normalised maps."""
        first, second = x.chunk(2, dim=1)
        return torch.cat([self.IN(first.contiguous()), self.BN(second.contiguous())], dim=1)


def with_ibn(model: ResNet, *, pretrained: str | None = None) -> ResNet:
    """Return a ResNet with IBN-a in the place of the first normalisation of its early blocks.

    Args:
        model: Changed in place: every ``bn1`` of every stage but the last.
        pretrained: A local file with the names of IBN-Net's authors (``resnet50_ibn_a.pth.tar``,
            with or without ``module.``); a classifier ``fc`` in it is dropped. timm serves none.
            None leaves the weights of ``model``.

    Raises:
        ValueError: If the weights are another model's.
        FileNotFoundError: If there is no such file.

    Example:
        >>> model = with_ibn(ResNet((1, 1), block="basic", stem_width=2, planes=(2, 4)))
        >>> type(model.layer1[0].bn1).__name__, type(model.layer2[0].bn1).__name__
        ('InstanceBatchNorm', 'GroupBatchNorm')
    """
    for stage in range(1, model.num_stages):
        for block in model.get_submodule(f"layer{stage}").children():
            norm = block.get_submodule("bn1")
            assert isinstance(norm, GroupBatchNorm)
            block.bn1 = InstanceBatchNorm(len(norm.weight), group_size=norm.group_size)
    if pretrained is not None:
        weights = read_weights(pretrained)
        weights = {key: row for key, row in weights.items() if not key.startswith("fc.")}
        load_backbone(model, weights, key="encoder.backbone", origin=pretrained)
    return model
