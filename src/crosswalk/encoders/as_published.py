"""Networks as they were published, with nothing learned on top: what zero-shot numbers are of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.encoders.clip import ClipDualEncoder, ClipTokens
from crosswalk.encoders.heads import averaged, num_features_of


class PublishedImages(nn.Module):
    """One unit vector per image from a backbone, without a neck or a head.

    Args:
        backbone: Gives ``[b, D, h, w]`` maps, which are averaged over all positions, or ``[b, D]``
            vectors; ``num_features`` is D.

    Example:
        >>> from crosswalk.encoders.resnet import resnet
        >>> PublishedImages(resnet("tiny")).embed_images(torch.ones(2, 3, 64, 32))["global"].shape
        torch.Size([2, 128])
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.embedding_size = num_features_of(backbone)

    def embed_images(self, image: Tensor) -> dict[str, Tensor]:
        """Return float32 unit vectors ``[b, D]`` of ``[b, 3, H, W]`` normalised images."""
        return {"global": F.normalize(averaged(self.backbone(image)))}


class PublishedClip(nn.Module):
    """One unit vector per image and per caption: CLIP's own, of its class and end tokens.

    Args:
        clip: Both transformers.

    Example:
        >>> clip = ClipDualEncoder(
        ...     image_size=(16, 8), patch_size=8, vision_width=8, vision_layers=2, vision_heads=2,
        ...     text_width=8, text_layers=2, text_heads=2, embed_dim=4, context_length=6,
        ...     vocabulary_size=10,
        ... )
        >>> PublishedClip(clip).embed_texts(torch.tensor([[8, 3, 9, 0, 0, 0]]))["global"].shape
        torch.Size([1, 4])
    """

    def __init__(self, clip: ClipDualEncoder) -> None:
        super().__init__()
        self.clip = clip
        self.embedding_size = clip.embed_dim

    def embed_images(self, image: Tensor) -> dict[str, Tensor]:
        """Return float32 unit vectors ``[b, D]`` of ``[b, 3, H, W]`` normalised images."""
        tokens = self.clip.encode_image(image)
        return _whole(self.clip.project_image(tokens, _position(tokens)))

    def embed_texts(self, tokens: Tensor) -> dict[str, Tensor]:
        """Return float32 unit vectors ``[b, D]`` of ``[b, L]`` token ids."""
        encoded = self.clip.encode_text(tokens)
        return _whole(self.clip.project_text(encoded, _position(encoded)))


def _position(tokens: ClipTokens) -> Tensor:
    return tokens.global_position[:, None]


def _whole(projected: Tensor) -> dict[str, Tensor]:
    wide = torch.promote_types(projected.dtype, torch.float32)
    return {"global": F.normalize(projected[:, 0].to(wide))}
