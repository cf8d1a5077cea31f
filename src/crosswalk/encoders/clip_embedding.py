"""CLIP's own embedding: the projected class token of an image, the end token of a caption."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.encoders.clip import Block, ClipDualEncoder, ClipTokens
from crosswalk.encoders.clip_streams import ClipStreams


@runtime_checkable
class TokenEncoder(Protocol):
    """An encoder of images and captions that is made of a CLIP, whose tokens others may use."""

    clip: ClipDualEncoder | ClipStreams

    def image_views(self, tokens: ClipTokens) -> dict[str, Tensor]:
        """Return ``[b, D]`` unit vectors by view of encoded images."""

    def text_views(self, encoded: ClipTokens, tokens: Tensor) -> dict[str, Tensor]:
        """Return ``[b, D]`` unit vectors by view of encoded captions and their ids."""


class ClipEmbedding(nn.Module):
    """One embedding of every image and every caption from CLIP, and all their tokens.

    Source: Jiang and Ye, IRRA, CVPR 2023.

    Args:
        clip: Gives tokens and their projection.

    Example:
        >>> clip = ClipDualEncoder(
        ...     image_size=(32, 16), patch_size=8, vision_width=8, vision_layers=2, vision_heads=2,
        ...     text_width=8, text_layers=2, text_heads=2, embed_dim=4, context_length=6,
        ...     vocabulary_size=10,
        ... )
        >>> encoder = ClipEmbedding(clip)
        >>> encoder.embed_texts(torch.tensor([[8, 3, 9, 0, 0, 0]]))["global"].shape
        torch.Size([1, 4])
    """

    def __init__(self, clip: ClipDualEncoder | ClipStreams) -> None:
        super().__init__()
        self.clip = clip
        self.embedding_size = clip.embed_dim

    def compile(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Compile the blocks of the transformers in place; arguments of `torch.compile`."""
        for module in self.modules():
            if isinstance(module, Block):
                module.compile(*args, **kwargs)

    def embed_images(self, image: Tensor) -> dict[str, Tensor]:
        """Return float32 unit vectors ``[B, D]`` by view of ``[B, 3, H, W]`` normalised images."""
        return self.image_views(self.clip.encode_image(image))

    def embed_texts(self, tokens: Tensor) -> dict[str, Tensor]:
        """Return float32 unit vectors ``[B, D]`` by view of ``[B, L]`` token ids."""
        return self.text_views(self.clip.encode_text(tokens), tokens)

    def image_views(self, tokens: ClipTokens) -> dict[str, Tensor]:
        """Return float32 unit vectors ``[B, D]`` by view of encoded images."""
        return {"global": F.normalize(self.image_embedding(tokens))}

    def text_views(self, encoded: ClipTokens, tokens: Tensor) -> dict[str, Tensor]:
        """Return float32 unit vectors ``[B, D]`` by view of encoded captions; ids are not read."""
        return {"global": F.normalize(self.text_embedding(encoded))}

    def image_embedding(self, tokens: ClipTokens) -> Tensor:
        """Return ``[B, D]`` embeddings of encoded images, at least float32, not of length 1."""
        return _at_global_position(self.clip.project_image, tokens)

    def text_embedding(self, tokens: ClipTokens) -> Tensor:
        """Return ``[B, D]`` embeddings of encoded captions, at least float32, not of length 1."""
        return _at_global_position(self.clip.project_text, tokens)


Project = Callable[[ClipTokens, Tensor], Tensor]


def every_token(project: Project, tokens: ClipTokens) -> Tensor:
    """Return all tokens of a batch in the common space, ``[B, L, D]``.

    Args:
        project: `ClipDualEncoder.project_image` or ``project_text``.
        tokens: What it projects.

    Example:
        >>> hidden = torch.zeros(2, 3, 4)
        >>> tokens = ClipTokens(hidden, hidden, hidden, hidden, torch.zeros(2).long())
        >>> every_token(lambda tokens, position: position, tokens).tolist()
        [[0, 1, 2], [0, 1, 2]]
    """
    batch, length = tokens.hidden.shape[:2]
    return project(tokens, torch.arange(length, device=tokens.hidden.device).expand(batch, length))


def _at_global_position(project: Project, tokens: ClipTokens) -> Tensor:
    embedding = project(tokens, tokens.global_position[:, None])[:, 0]
    return embedding.to(torch.promote_types(embedding.dtype, torch.float32))
