"""CLIP's image encoders with what their last two layers give, as CLIP-ReID trains them."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from crosswalk.encoders.batch_norm import GroupBatchNorm
from crosswalk.encoders.clip import ClipDualEncoder, ClipTokens
from crosswalk.encoders.clip_resnet import ClipResNet
from crosswalk.encoders.heads import averaged
from crosswalk.ranges import Count, NotNegative, WholeNumber


class LayerFeatures(NamedTuple):
    """What an image encoder gives of a batch at three depths; none is of unit length."""

    earlier: Tensor
    """``[b, E]`` behind the last layer but one."""
    last: Tensor
    """``[b, D]`` behind the last layer."""
    projected: Tensor
    """``[b, P]`` in the space that CLIP's images share with its texts."""
    last_neck: Tensor
    """``[b, D]``: ``last`` behind a batch normalisation of its own."""
    projected_neck: Tensor
    """``[b, P]``: ``projected`` behind one of its own."""


class ClipLayers(Protocol):
    """An image stream of CLIP, with necks: `VitLayers` or `ResNetLayers`.

    Source: Li et al., CLIP-ReID, AAAI 2023, released code.
    """

    last_size: int
    """D, channels behind the last layer."""
    projected_size: int
    """P, channels of the common space."""

    def layer_features(self, image: Tensor, camera_id: Tensor | None = None) -> LayerFeatures:
        """Return the features of ``[b, 3, height, width]`` normalised images.

        Args:
            image: Normalised.
            camera_id: ``[b]`` int64 cameras, from 1, for streams that know them; 0 and -1 are
                cameras that nobody tells. None: of all images.
        """


def _neck(size: int, group_size: int | None) -> GroupBatchNorm:
    """Return a batch normalisation whose shift stays 0 (Luo et al., Bag of tricks, CVPRW 2019)."""
    neck = GroupBatchNorm(size, group_size=group_size)
    neck.bias.requires_grad_(False)
    return neck


class VitLayers(nn.Module):
    """The class token of a vision transformer: before the last block, behind it, projected.

    Of the last block nothing but the class token is computed. The cameras' table (SIE) is added to
    the class token alone. Source: Li et al., CLIP-ReID, AAAI 2023; He et al., TransReID, ICCV 2021,
    where it is added to every token.

    Args:
        clip: Whose image side is kept; a ``stride`` below its patch size makes patches overlap.
        num_cameras: Largest number of a camera; 0 leaves cameras out.
        camera_weight: What a camera's row is multiplied by.
        group_size: Samples that share statistics in the necks; None means the global batch.

    Example:
        >>> clip = ClipDualEncoder(
        ...     image_size=(32, 16), patch_size=8, vision_width=8, vision_layers=2, vision_heads=2,
        ...     text_width=8, text_layers=2, text_heads=2, embed_dim=4, context_length=6,
        ...     vocabulary_size=10,
        ... )
        >>> encoder = VitLayers(clip, num_cameras=6)
        >>> features = encoder.layer_features(torch.zeros(2, 3, 32, 16), torch.tensor([1, 6]))
        >>> features.earlier.shape, features.last.shape, features.projected.shape
        (torch.Size([2, 8]), torch.Size([2, 8]), torch.Size([2, 4]))
    """

    def __init__(
        self,
        clip: ClipDualEncoder,
        *,
        num_cameras: WholeNumber = 0,
        camera_weight: NotNegative = 1.0,
        group_size: Count | None = None,
    ) -> None:
        visual = clip.visual
        width, embed_dim = visual.proj.shape
        super().__init__()
        self.last_size, self.projected_size = width, embed_dim
        self.visual = visual
        self.last_neck = _neck(width, group_size)
        self.projected_neck = _neck(embed_dim, group_size)
        self.num_cameras = num_cameras
        self.camera_weight = camera_weight
        if num_cameras:
            # row 0 is of cameras that nobody tells: it stays 0
            self.cameras = nn.Embedding(num_cameras + 1, width, padding_idx=0)
            with torch.no_grad():
                nn.init.trunc_normal_(self.cameras.weight, std=0.02)[0].zero_()

    def layer_features(self, image: Tensor, camera_id: Tensor | None = None) -> LayerFeatures:
        """Return the class token before the last block, behind it, projected; see `ClipLayers`."""
        visual = self.visual
        tokens: ClipTokens = visual(image, self._class_shift(camera_id))
        first = tokens.global_position[:, None]
        token = visual.ln_post(visual.transformer.finish(tokens, first)[:, 0])
        last, projected = averaged(token), averaged(token @ visual.proj)
        necks = self.last_neck(last), self.projected_neck(projected)
        return LayerFeatures(averaged(tokens.hidden[:, 0]), last, projected, *necks)

    def compile(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Compile the blocks in place; arguments of `torch.compile`."""
        for block in self.visual.transformer.resblocks:
            block.compile(*args, **kwargs)

    def _class_shift(self, camera_id: Tensor | None) -> Tensor | None:
        if camera_id is None or not self.num_cameras:
            return None
        known = camera_id.clamp_min(0)
        if not torch.compiler.is_exporting() and bool((known > self.num_cameras).any()):
            raise ValueError(
                f"an image is by camera {int(known.max())}, and the encoder knows cameras 1 to "
                f"{self.num_cameras} (encoder.num_cameras): it learned nothing of others. Choose "
                "images by its cameras, or train with encoder.num_cameras=0."
            )
        rows: Tensor = self.cameras(known)
        return self.camera_weight * rows


class ResNetLayers(nn.Module):
    """CLIP's ResNet: the averages of its third and its fourth stage, and its attention pool.

    Args:
        image: The ResNet.
        group_size: Samples that share statistics in the necks; None means the global batch.

    Example:
        >>> from crosswalk.encoders.clip_resnet import clip_resnet
        >>> encoder = ResNetLayers(clip_resnet("tiny", image_size=(96, 32)))
        >>> features = encoder.layer_features(torch.zeros(2, 3, 96, 32))
        >>> features.earlier.shape, features.last.shape, features.projected.shape
        (torch.Size([2, 192]), torch.Size([2, 384]), torch.Size([2, 128]))
    """

    def __init__(self, image: ClipResNet, *, group_size: Count | None = None) -> None:
        channels = image.attnpool.positional_embedding.shape[1]
        super().__init__()
        self.last_size, self.projected_size = channels, image.num_features
        self.visual = image
        self.last_neck = _neck(channels, group_size)
        self.projected_neck = _neck(image.num_features, group_size)

    def layer_features(self, image: Tensor, camera_id: Tensor | None = None) -> LayerFeatures:
        """Return the averages of the last two stages, and the attention pool; see `ClipLayers`."""
        maps = self.visual.last_maps(image)
        earlier, last = (averaged(each) for each in maps)
        projected = averaged(self.visual.attnpool(maps[1]))
        necks = self.last_neck(last), self.projected_neck(projected)
        return LayerFeatures(earlier, last, projected, *necks)

    def compile(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Compile the stages in place; arguments of `torch.compile`."""
        for stage in range(1, 5):
            self.visual.get_submodule(f"layer{stage}").compile(*args, **kwargs)
