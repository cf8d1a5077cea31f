"""Guesses hidden words of a caption from the rest of it and from the image."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.encoders.clip import Attention, Block, Transformer, quick_gelu_activation
from crosswalk.ranges import Count, Depth, NotNegative, Width


class Guesses(NamedTuple):
    """How well the ``n`` hidden words of some captions were guessed.

    Attributes:
        loss: ``[n]`` cross-entropies >= 0, at least in float32.
        hit: ``[n]`` 1 where the word was the most probable one, else 0, in the losses' type.
        caption: ``[n]`` int64 row of the caption that a word is of.
    """

    loss: Tensor
    hit: Tensor
    caption: Tensor


class MaskedLanguageModel(nn.Module):
    """Words ask the image: a cross attention, a small transformer, a classifier over all words.

    No residual connection leads around the cross attention, the class token is one of its keys,
    and padding takes part everywhere. Only places with a label are classified, which changes
    neither values nor gradients. Used in training alone.
    Source: Jiang and Ye, IRRA, CVPR 2023, implicit relation reasoning; names and initialisation of
    the released code.

    Args:
        width: Channels of the tokens of both modalities.
        vocabulary_size: Token ids are below it.
        depth: Blocks behind the cross attention.
        heads: Attention heads; None means one per 64 channels, as in CLIP.
        weight: Of the loss in a method's sum.

    Example:
        >>> model = MaskedLanguageModel(8, 10, depth=1)
        >>> label = torch.tensor([[0, 7, 0], [0, 0, 3]])
        >>> guesses = model(torch.zeros(2, 3, 8), torch.zeros(2, 5, 8), label)
        >>> guesses.loss.shape, guesses.caption.tolist()
        (torch.Size([2]), [0, 1])
    """

    def __init__(
        self,
        width: Width,
        vocabulary_size: Count,
        *,
        depth: Depth = 4,
        heads: Depth | None = None,
        weight: NotNegative = 1.0,
    ) -> None:
        super().__init__()
        heads = heads or max(1, width // 64)
        self.weight = weight
        self.cross_attn = Attention(width, heads)
        self.cross_modal_transformer = Transformer(
            width,
            layers=depth,
            heads=heads,
            mlp_width=4 * width,
            activation=quick_gelu_activation,
            causal=False,
        )
        self.ln_pre_t = nn.LayerNorm(width)
        self.ln_pre_i = nn.LayerNorm(width)
        self.ln_post = nn.LayerNorm(width)
        self.mlm_head = nn.Sequential(
            OrderedDict(
                dense=nn.Linear(width, width),
                gelu=_QuickGelu(),
                ln=nn.LayerNorm(width),
                fc=nn.Linear(width, vocabulary_size),
            )
        )
        out = (2 * depth * width) ** -0.5
        nn.init.normal_(self.cross_attn.in_proj_weight, std=width**-0.5)
        nn.init.normal_(self.cross_attn.out_proj.weight, std=out)
        nn.init.zeros_(self.cross_attn.out_proj.bias)
        nn.init.normal_(cast(nn.Linear, self.mlm_head.dense).weight, std=(2 * width) ** -0.5)
        nn.init.normal_(cast(nn.Linear, self.mlm_head.fc).weight, std=out)

    def fused(self, text_tokens: Tensor, image_tokens: Tensor) -> Tensor:
        """Return ``[B, L, width]`` words that have looked at the image, before the head.

        Args:
            text_tokens: ``[B, L, width]`` of the masked captions, as projected by the encoder.
            image_tokens: ``[B, n, width]``, likewise, class token first.
        """
        query = self.cross_attn.queries(self.ln_pre_t(text_tokens))
        key, value = self.cross_attn.keys_and_values(self.ln_pre_i(image_tokens))
        hidden = self.cross_attn.merge(F.scaled_dot_product_attention(query, key, value))
        for block in cast("list[Block]", list(self.cross_modal_transformer.resblocks)):
            hidden = block(hidden)
        fused: Tensor = self.ln_post(hidden)
        return fused

    def logits(self, text_tokens: Tensor, image_tokens: Tensor, label: Tensor) -> Tensor:
        """Return ``[n, vocabulary_size]`` scores at the places whose ``[B, L]`` label is not 0.

        At least in float32; the other arguments are those of `fused`.
        """
        return self._scores(text_tokens, image_tokens, hidden_places(label))

    def _scores(self, text_tokens: Tensor, image_tokens: Tensor, place: Tensor) -> Tensor:
        words = self.fused(text_tokens, image_tokens).flatten(0, 1)
        scores: Tensor = self.mlm_head(words.index_select(0, place))
        return scores.to(torch.promote_types(scores.dtype, torch.float32))

    def forward(self, text_tokens: Tensor, image_tokens: Tensor, label: Tensor) -> Guesses:
        """Return the losses of the words whose ``[B, L]`` label is not 0, caption by caption."""
        place = hidden_places(label)
        logits = self._scores(text_tokens, image_tokens, place)
        return guesses_of(logits, label.flatten()[place], place // label.shape[1])


def hidden_places(label: Tensor) -> Tensor:
    """Return the ``[n]`` places of a flattened ``[B, L]`` label where it is not 0.

    The host waits for their number: words are drawn on the device, and to classify all places
    would be several times the work.

    Example:
        >>> hidden_places(torch.tensor([[0, 7, 0], [0, 0, 3]]))
        tensor([1, 5])
    """
    return label.flatten().nonzero()[:, 0]


def guesses_of(logits: Tensor, word: Tensor, caption: Tensor) -> Guesses:
    """Return how well ``[n]`` words were guessed by ``[n, vocabulary]`` scores.

    Args:
        logits: Of the hidden words, caption by caption.
        word: The words.
        caption: The captions that they are of.

    Example:
        >>> logits = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, 3.0]])  # IRRA: 0.751264, 0.5
        >>> guesses = guesses_of(logits, torch.tensor([1, 2]), torch.tensor([0, 0]))
        >>> guesses.loss.mean(), guesses.hit.mean()
        (tensor(0.7513), tensor(0.5000))
    """
    loss = F.cross_entropy(logits, word, reduction="none")
    hit = (logits.argmax(dim=1) == word).to(loss.dtype)
    return Guesses(loss, hit, caption)


class _QuickGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return quick_gelu_activation(x)
