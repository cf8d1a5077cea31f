"""CLIP with a ResNet for images, giving tokens as `ClipDualEncoder` does."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.encoders.clip import ClipTokens, attention_row
from crosswalk.encoders.clip_resnet import ClipResNet
from crosswalk.encoders.clip_text import ClipText


class ClipStreams(nn.Module):
    """A ResNet and a text transformer of CLIP whose tokens are projected into one space.

    The tokens of an image are what the attention pool gives at the mean of all positions, which is
    the global one, and at each position.
    Source: Radford et al., ICML 2021; with all positions of the pool: IRRA, CVPR 2023, baselines.

    Args:
        visual: The image stream.
        text: The text stream.

    Raises:
        ValueError: If their spaces have different sizes.

    Example:
        >>> visual = ClipResNet((1, 1, 1, 1), width=4, output_dim=5, heads=2, image_size=(48, 32))
        >>> text = ClipText(
        ...     width=8, layers=2, heads=2, embed_dim=5, context_length=6, vocabulary_size=10
        ... )
        >>> clip = ClipStreams(visual, text)
        >>> tokens = clip.encode_image(torch.zeros(2, 3, 48, 32))
        >>> clip.project_image(tokens, torch.tensor([[0, 6], [0, 1]])).shape
        torch.Size([2, 2, 5])
    """

    def __init__(self, visual: ClipResNet, text: ClipText) -> None:
        super().__init__()
        if visual.num_features != text.num_features:
            raise ValueError(
                f"encoder.clip.visual gives {visual.num_features} channels, and encoder.clip.text "
                f"gives {text.num_features}: the two are no one CLIP. Give both the same name."
            )
        self.visual = visual
        self.text = text
        self.embed_dim = visual.num_features
        self.context_length = text.context_length

    def encode_image(self, image: Tensor) -> ClipTokens:
        """Return the tokens of ``[B, 3, height, width]`` normalised images, the mean first."""
        pool = self.visual.attnpool
        maps = self.visual.maps(image)
        with torch.autocast(image.device.type, enabled=False):
            hidden = pool.tokens(maps)
            # a bias of keys does nothing; see `AttentionPool`
            nothing = 0 * pool.k_proj.bias.sum()
            key = self._heads(F.linear(hidden, pool.k_proj.weight) + nothing)
            value = self._heads(pool.v_proj(hidden))
            with torch.no_grad():
                attention = attention_row(self._heads(pool.q_proj(hidden[:, :1])), key)
        position = torch.zeros(len(hidden), dtype=torch.int64, device=hidden.device)
        return ClipTokens(hidden, key, value, attention, position)

    def project_image(self, tokens: ClipTokens, position: Tensor) -> Tensor:
        """Return the tokens at ``[B, n]`` positions in the common space, ``[B, n, embed_dim]``."""
        pool = self.visual.attnpool
        channels = tokens.hidden.shape[2]
        with torch.autocast(tokens.hidden.device.type, enabled=False):
            asking = tokens.hidden.gather(1, position[:, :, None].expand(-1, -1, channels))
            query = self._heads(pool.q_proj(asking))
            mixed = F.scaled_dot_product_attention(query, tokens.key, tokens.value)
            projected: Tensor = pool.c_proj(mixed.transpose(1, 2).flatten(2))
        return projected

    def encode_text(self, tokens: Tensor) -> ClipTokens:
        """Return the tokens of ``[B, context_length]`` token ids, start token first."""
        hidden = self.text.token_embedding(tokens) + self.text.positional_embedding
        encoded: ClipTokens = self.text.transformer(hidden, tokens.argmax(dim=1))
        return encoded

    def project_text(self, tokens: ClipTokens, position: Tensor) -> Tensor:
        """Return the tokens at ``[B, n]`` positions in the common space, ``[B, n, embed_dim]``."""
        finished = self.text.ln_final(self.text.transformer.finish(tokens, position))
        projected: Tensor = finished @ self.text.text_projection
        return projected

    def _heads(self, rows: Tensor) -> Tensor:
        """Return ``[B, heads, n, channels / heads]`` of ``[B, n, channels]``."""
        batch, length, channels = rows.shape
        heads = self.visual.attnpool.heads
        return rows.view(batch, length, heads, channels // heads).transpose(1, 2)
