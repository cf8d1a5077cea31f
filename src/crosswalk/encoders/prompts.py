"""Sentences with learned words, one for every person, through CLIP's text encoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.byte_pairs import byte_pairs
from crosswalk.encoders.clip_text import ClipText
from crosswalk.ranges import Count

WORDS = "{words}"
_START, _END = 49406, 49407  # CLIP's vocabulary
_CHUNK = 256  # sentences at a time where all are wanted


def sentence_ids(sentence: str) -> tuple[list[int], list[int]]:
    """Return CLIP's token ids before and behind the learned words, start and end token included.

    Args:
        sentence: With ``{words}`` once, in the place of the learned words.

    Raises:
        ValueError: If it is not there once.

    Example:
        >>> sentence_ids("A photo of a {words} person.")
        ([49406, 320, 1125, 539, 320], [2533, 269, 49407])
    """
    if sentence.count(WORDS) != 1:
        raise ValueError(
            f"method.prompts.sentence={sentence!r} should have {WORDS} once, in the place of the "
            f"learned words: 'A photo of a {WORDS} person.'."
        )
    before, behind = (byte_pairs().encode(part) for part in sentence.split(WORDS))
    return [_START, *before], [*behind, _END]


class LearnedPrompts(nn.Module):
    """Word vectors learned for every person, inside a sentence that all share.

    The text encoder is frozen; of its token table no more than the rows of the sentence are kept.
    What follows the end token has no influence, so the sentence ends there, which is exact.
    Source: Li et al., CLIP-ReID, AAAI 2023; Zhou et al., CoOp, IJCV 2022.

    Args:
        text: Makes the features of sentences; frozen here.
        num_persons: People that words are learned for.
        num_words: Learned words of a person.
        sentence: With ``{words}`` in their place.

    Raises:
        ValueError: If the sentence has no such place, or is too long for the text encoder.

    Example:
        >>> text = ClipText(
        ...     width=8, layers=1, heads=2, embed_dim=4, context_length=9, vocabulary_size=49408
        ... )
        >>> prompts = LearnedPrompts(text, num_persons=3, num_words=2, sentence="a {words} person")
        >>> prompts(torch.tensor([2, 0])).shape, prompts.context.shape
        (torch.Size([2, 4]), torch.Size([3, 2, 8]))
    """

    prefix: Tensor
    suffix: Tensor

    def __init__(
        self,
        text: ClipText,
        num_persons: Count,
        *,
        num_words: Count = 4,
        sentence: str = f"A photo of a {WORDS} person.",
    ) -> None:
        super().__init__()
        table = text.token_embedding.weight.detach()
        before, behind = sentence_ids(sentence)
        length = len(before) + num_words + len(behind)
        if length > text.context_length:
            raise ValueError(
                f"method.prompts.sentence={sentence!r} with {num_words} learned words "
                f"(method.prompts.num_words) has {length} tokens, and the text encoder takes "
                f"{text.context_length}. Shorten the sentence."
            )
        self.context = nn.Parameter(0.02 * torch.randn(num_persons, num_words, table.shape[1]))
        self.register_buffer("prefix", table[None, before].clone())
        self.register_buffer("suffix", table[None, behind].clone())
        self.text = text.requires_grad_(False)
        del self.text.token_embedding  # 49,408 rows, of which the sentence has the few it needs
        self.num_features = text.num_features

    def sentences(self, person_id: Tensor) -> Tensor:
        """Return the ``[n, length, width]`` token vectors of ``[n]`` people's sentences."""
        shared = (each.expand(len(person_id), -1, -1) for each in (self.prefix, self.suffix))
        prefix, suffix = shared
        return torch.cat([prefix, self.context[person_id], suffix], dim=1)

    def forward(self, person_id: Tensor) -> Tensor:
        """Return the ``[n, P]`` features of ``[n]`` people's sentences; n may be 0."""
        sentences = self.sentences(person_id)
        end = torch.full_like(person_id, sentences.shape[1] - 1)
        return self.text.of_vectors(sentences, end)

    @torch.no_grad()
    def everybody(self) -> Tensor:
        """Return the ``[num_persons, P]`` features of all sentences, without gradient."""
        people = torch.arange(len(self.context), device=self.context.device)
        return torch.cat([self(part) for part in torch.split(people, _CHUNK)])


class PersonTexts(nn.Module):
    """The features of every person's sentence, as they are handed from training to training.

    Random rows of about unit length, until a stage or a checkpoint gives others: a gradient never
    changes them.

    Args:
        num_persons: Rows.
        size: P, channels of the common space.
    """

    def __init__(self, num_persons: int, size: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(num_persons, size) * size**-0.5, requires_grad=False)

    def write(self, rows: Tensor) -> None:
        """Take ``[num_persons, P]`` features for the rows."""
        self.rows.data.copy_(rows)


def likeness(images: Tensor, texts: Tensor, person_id: Tensor) -> dict[str, Tensor]:
    """Return how images lie to the texts of all people, to be looked at.

    Args:
        images: ``[n, P]`` features of any length.
        texts: ``[persons, P]`` features of any length.
        person_id: ``[n]`` int64 persons of the images.

    Returns:
        ``own_text``: mean cosine with the text of one's own person; ``other_texts``: with those of
        others; ``found_by_text``: share of images whose own text has the largest product.

    Example:
        >>> images, texts = torch.tensor([[2.0, 0.0], [3.0, 4.0]]), torch.eye(2)
        >>> likeness(images, texts, torch.tensor([0, 0]))
        {'own_text': tensor(0.8000), 'other_texts': tensor(0.4000), 'found_by_text': tensor(0.5000)}
    """
    cosine = F.normalize(images) @ F.normalize(texts).T
    own = cosine.gather(1, person_id[:, None])[:, 0]
    others = (cosine.sum(dim=1) - own) / max(1, len(texts) - 1)
    found = (images @ texts.T).argmax(dim=1) == person_id
    return {
        "own_text": own.mean(),
        "other_texts": others.mean(),
        "found_by_text": found.to(own.dtype).mean(),
    }


def likeness_of_texts(texts: Tensor) -> Tensor:
    """Return the mean cosine of the ``[persons, P]`` texts of two different people.

    Example:
        >>> likeness_of_texts(torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 4.0]]))  # 0, 0.6, 0.8
        tensor(0.4667)
    """
    unit = F.normalize(texts)
    number = max(1, len(unit) * (len(unit) - 1))
    return ((unit @ unit.T).sum() - unit.square().sum()) / number
