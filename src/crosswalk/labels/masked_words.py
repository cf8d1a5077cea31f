"""Masked words: what a model is to guess of a caption, and the caption that it guesses from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from crosswalk.draws import keyed_uniform
from crosswalk.ranges import Count, Share

STREAM = 2
"""Of the draws of a sample's key; images have 0, the augmentation of captions 1."""


class MaskedCaptions(NamedTuple):
    """Captions before and after words were hidden.

    Attributes:
        tokens: ``[B, L]`` ids that all losses but the guessing of words see.
        masked: ``[B, L]`` ids that words are guessed from; the same tensor where both share them.
        label: ``[B, L]`` id to be guessed at each place, 0 where none is.
    """

    tokens: Tensor
    masked: Tensor
    label: Tensor


def mask_words(
    tokens: Tensor,
    draws: Tensor,
    replacements: Tensor,
    *,
    mask_id: int,
    probability: float = 0.15,
    mask_share: float = 0.8,
    replace_share: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Return captions with some words hidden, and the hidden words at their places.

    Words are the ids between padding (0) and ``mask_id``. Of the chosen ones most are replaced by
    the mask token, some by a random word, the rest stay and are to be guessed all the same. A
    caption of which none is chosen loses what stands behind the start token: its first word, or
    the end token where it has no word.
    Source: Jiang and Ye, IRRA, CVPR 2023, masked language modelling; the rates are BERT's, the
    last rule the released code's.

    Args:
        tokens: ``[B, L]`` int64 ids, zero padded; L >= 2.
        draws: ``[B, >= words]`` uniform numbers; number j decides over the j-th word.
        replacements: ``[B, >= replaced words]`` int64; number j is the j-th replacement.
        mask_id: Id of the mask token.
        probability: Share of words chosen.
        mask_share: Share of the chosen words that are masked.
        replace_share: Share of the chosen words that are replaced; the rest stays.

    Returns:
        ``[B, L]`` ids, and ``[B, L]`` labels, 0 where nothing is to be guessed.

    Example:
        >>> tokens = torch.tensor([[98, 5, 6, 7, 8, 99, 0]])
        >>> draws = torch.tensor([[0.9, 0.1, 0.125, 0.14]])
        >>> masked, label = mask_words(tokens, draws, torch.tensor([[3]]), mask_id=90)
        >>> masked.tolist(), label.tolist()
        ([[98, 5, 90, 3, 8, 99, 0]], [[0, 0, 6, 7, 8, 0, 0]])
    """
    word = (tokens > 0) & (tokens < mask_id)
    place = (word.cumsum(1) - 1).clamp_(0, draws.shape[1] - 1)
    draw = draws.gather(1, place)
    chosen = word & (draw < probability)
    share = draw / probability
    masked = chosen & (share < mask_share)
    replaced = chosen & ~masked & (share < mask_share + replace_share)
    turn = (replaced.cumsum(1) - 1).clamp_(0, replacements.shape[1] - 1)
    label = torch.where(chosen, tokens, 0)
    none = (label == 0).all(dim=1)
    label[:, 1] = torch.where(none, tokens[:, 1], label[:, 1])
    masked[:, 1] |= none
    hidden = torch.where(replaced, replacements.gather(1, turn), tokens)
    return torch.where(masked, mask_id, hidden), label


@dataclass(frozen=True)
class WordMasking:
    """Hides words of every caption, drawn by the key of its sample.

    The same words are hidden on any number of processes and workers, and others in every epoch.
    Captions without keys, as in an evaluation, stay whole.

    Attributes:
        captions: ``shared``: all losses see the masked captions, as in IRRA's released code, whose
            masking writes into the caption; ``separate``: the others see the whole captions, as in
            the paper's figure.
        probability: Share of words to be guessed.
        mask_share: Share of these that are masked.
        replace_share: Share of these that become random words; the rest stays.
        mask_id: Mask token of the tokenizer; ids of words are below it.

    Raises:
        ValueError: If the two shares are more than all.

    Example:
        >>> masking = WordMasking(captions="separate", mask_share=1, replace_share=0)
        >>> tokens, key = torch.tensor([[49406, 320, 786, 49407]]), torch.tensor([5])
        >>> captions = masking(tokens, key)
        >>> captions.tokens is tokens, bool((captions.masked == masking(tokens, key).masked).all())
        (True, True)
        >>> masking(tokens, None).label.sum()
        tensor(0)
    """

    captions: Literal["shared", "separate"] = "shared"
    probability: Share = 0.15
    mask_share: Share = 0.8
    replace_share: Share = 0.1
    mask_id: Count = 49405

    def __post_init__(self) -> None:
        if self.mask_share + self.replace_share > 1:
            raise ValueError(
                f"method.masking.mask_share={self.mask_share} and method.masking.replace_share="
                f"{self.replace_share} are more than 1 together. Lower one of them."
            )

    def __call__(self, tokens: Tensor, key: Tensor | None) -> MaskedCaptions:
        """Return ``[B, L]`` tokens with words hidden by their ``[B]`` keys; None hides nothing."""
        if key is None:
            return MaskedCaptions(tokens, tokens, torch.zeros_like(tokens))
        length = tokens.shape[1]
        draws = keyed_uniform(key, 2 * length, stream=STREAM)
        replacements = 1 + (draws[:, length:] * (self.mask_id - 1)).long()
        masked, label = mask_words(
            tokens,
            draws[:, :length],
            replacements,
            mask_id=self.mask_id,
            probability=self.probability,
            mask_share=self.mask_share,
            replace_share=self.replace_share,
        )
        return MaskedCaptions(masked if self.captions == "shared" else tokens, masked, label)


def check_masking(masking: WordMasking | None, vocabulary_size: int, *, guesses: bool) -> None:
    """Refuse to guess words that nothing masks, and to mask by an id that there is not.

    Args:
        masking: Hides words; None hides none.
        vocabulary_size: Token ids are below it.
        guesses: Whether hidden words are to be guessed.

    Raises:
        ValueError: In the words of the configuration.

    Example:
        >>> check_masking(WordMasking(), 49408, guesses=True)
    """
    if guesses and masking is None:
        raise ValueError(
            "method.mlm guesses masked words, and method.masking=null masks none. Choose "
            "mlm=shared, separate or off, which set both."
        )
    if masking is not None and vocabulary_size <= masking.mask_id:
        raise ValueError(
            f"method.masking.mask_id={masking.mask_id} is no id of data.tokenizer, which has "
            f"{vocabulary_size}. Choose CLIP's tokenizer, or mlm=off."
        )
