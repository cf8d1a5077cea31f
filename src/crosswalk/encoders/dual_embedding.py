"""RDE's encoder: two embeddings of every image and every caption from one CLIP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.encoders.batch_norm import BatchStatistics
from crosswalk.encoders.clip import Block, ClipDualEncoder, ClipTokens
from crosswalk.encoders.token_selection import (
    Pool,
    TokenMlp,
    TokenSelection,
    best_positions,
    image_token_scores,
    max_pool,
    num_pooled,
    num_selected,
    text_token_scores,
)
from crosswalk.ranges import Count, Share, Width


class DualEmbedding(nn.Module):
    """The global embedding and the token selection embedding of images and captions.

    "global" is the projected class token or end token; "token_selection" is made of the local
    tokens that this token attends to most (`TokenSelection`). Only those are projected.
    Source: Qin et al., RDE, CVPR 2024.

    Args:
        clip: Gives tokens, attention and projection.
        select_ratio: Share of the local tokens that are selected; in (0, 1].
        embedding_size: Channels of the token selection embedding.
        statistics: Of the batch normalisation in both token MLPs: "frozen" never updates nor
            uses batch statistics, as in the run behind the published numbers; "train" does, as
            in the code since October 2024.
        group_size: Samples of the global batch that share statistics; None means all.
        token_mlp: Called as ``token_mlp(in, out, statistics=..., group_size=...)`` for each
            modality; `torch.nn.Identity` leaves the MLP out.
        pool: Over the selected tokens.

    Example:
        >>> clip = ClipDualEncoder(
        ...     image_size=(32, 16), patch_size=8, vision_width=8, vision_layers=2, vision_heads=2,
        ...     text_width=8, text_layers=2, text_heads=2, embed_dim=4, context_length=6,
        ...     vocabulary_size=10,
        ... )
        >>> encoder = DualEmbedding(clip, select_ratio=0.5, embedding_size=12)
        >>> views = encoder.embed_texts(torch.tensor([[8, 3, 9, 0, 0, 0], [8, 4, 5, 6, 2, 9]]))
        >>> {view: tuple(rows.shape) for view, rows in views.items()}
        {'global': (2, 4), 'token_selection': (2, 12)}
    """

    may_start_anew = ("image_selection", "text_selection")
    """Parts that start from random weights where ``checkpoint=`` holds CLIP alone."""

    def __init__(
        self,
        clip: ClipDualEncoder,
        *,
        select_ratio: Share,
        embedding_size: Width = 1024,
        statistics: BatchStatistics = "frozen",
        group_size: Count | None = None,
        token_mlp: Callable[..., nn.Module] = TokenMlp,
        pool: Pool = max_pool,
    ) -> None:
        super().__init__()
        self.clip = clip
        self.num_image_tokens = num_selected(clip.num_patches, select_ratio)
        self.num_text_tokens = num_selected(clip.context_length - 2, select_ratio)
        self.image_selection, self.text_selection = (
            TokenSelection(
                token_mlp(
                    clip.embed_dim, embedding_size, statistics=statistics, group_size=group_size
                ),
                pool,
            )
            for _ in range(2)
        )

    def compile(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Compile the blocks of both transformers in place; arguments of `torch.compile`.

        All blocks of a transformer are one piece of code, so this takes the time of compiling
        two blocks, not twenty-four.
        """
        for module in self.modules():
            if isinstance(module, Block):
                module.compile(*args, **kwargs)

    def embed_images(self, image: Tensor) -> dict[str, Tensor]:
        """Return float32 unit vectors ``[B, D]`` by view of ``[B, 3, H, W]`` normalised images."""
        return self.image_views(self.clip.encode_image(image))

    def image_views(self, tokens: ClipTokens) -> dict[str, Tensor]:
        """Return float32 unit vectors ``[B, D]`` by view of encoded images."""
        selected = best_positions(image_token_scores(tokens.attention), self.num_image_tokens)
        position = torch.cat([tokens.global_position[:, None], selected], dim=1)
        projected = self.clip.project_image(tokens, position)
        return {
            "global": _unit(projected[:, 0]),
            "token_selection": _unit(self.image_selection(projected[:, 1:])),
        }

    def embed_texts(self, tokens: Tensor) -> dict[str, Tensor]:
        """Return float32 unit vectors ``[B, D]`` by view of ``[B, L]`` token ids."""
        return self.text_views(self.clip.encode_text(tokens), tokens)

    def text_views(self, encoded: ClipTokens, tokens: Tensor) -> dict[str, Tensor]:
        """Return float32 unit vectors ``[B, D]`` by view of encoded captions and their ids."""
        scores = text_token_scores(encoded.attention, tokens)
        selected = best_positions(scores, self.num_text_tokens)
        position = torch.cat([encoded.global_position[:, None], selected], dim=1)
        projected = self.clip.project_text(encoded, position)
        valid = num_pooled(tokens, self.num_text_tokens)
        return {
            "global": _unit(projected[:, 0]),
            "token_selection": _unit(self.text_selection(projected[:, 1:], valid)),
        }

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Rows and columns of patches that an image is cut into."""
        return self.clip.visual.grid

    @torch.no_grad()
    def selected_patches(self, image: Tensor) -> Tensor:
        """Return ``[B, k]`` patches that `embed_images` selects, numbered by rows, best first."""
        attention = self.clip.encode_image(image).attention
        return best_positions(image_token_scores(attention), self.num_image_tokens) - 1

    @torch.no_grad()
    def selected_words(self, tokens: Tensor) -> Tensor:
        """Return ``[B, k]`` places of the token ids that `embed_texts` selects, best first.

        Captions of fewer words are filled up with -1.
        """
        scores = text_token_scores(self.clip.encode_text(tokens).attention, tokens)
        selected = best_positions(scores, self.num_text_tokens)
        pooled = num_pooled(tokens, self.num_text_tokens)
        rank = torch.arange(selected.shape[1], device=selected.device)
        return selected.masked_fill(rank >= pooled[:, None], -1)


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows.to(torch.promote_types(rows.dtype, torch.float32)), dim=-1)
