"""An image stream and a text stream that meet only in the space of their embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from crosswalk.encoders.heads import averaged, num_features_of
from crosswalk.host import Values
from crosswalk.ranges import Width

Head = Callable[[int, int], nn.Module]
"""Called ``head(in_features, embedding_size)``; gives ``[b, embedding_size]`` of ``[b, F]``."""


class TwoStream(nn.Module):
    """One embedding per image and one per caption, from networks that share nothing.

    Embeddings are not normalised: CM-MoCo classifies them as they are, CMMT projects them.
    Source: Han et al., CM-MoCo, BMVC 2021; Zhao et al., CMMT, ICCV 2021.

    Args:
        image: Gives ``[b, F]`` vectors of ``[b, 3, H, W]`` images, or ``[b, F, h, w]`` maps, which
            are averaged over all positions; ``num_features`` is F.
        text: Called ``text(words=words)``; the module is called with ``[b, L]`` token ids, ``[b]``
            lengths, best an array, and the longest length of the global batch, and gives
            ``[b, F]`` vectors; ``num_features`` is F.
        image_head: Called ``image_head(in_features, embedding_size)``.
        text_head: Called ``text_head(in_features, embedding_size)``.
        embedding_size: Channels of both embeddings.
        words: The word of each token id, for text streams that are made for a vocabulary; None
            where the tokenizer has no such list.
        channels_last: Whether images and the image stream's weights lie in memory pixel by pixel,
            which is faster with bfloat16 and on GPUs; results differ in rounding only.

    Example:
        >>> from crosswalk.encoders.heads import embed_layer
        >>> from crosswalk.encoders.resnet import resnet
        >>> from crosswalk.encoders.text_recurrent import BiGru
        >>> from crosswalk.encoders.word_vectors import LearnedWords
        >>> def text(words): return BiGru(words, vectors=LearnedWords, hidden_size=5)
        >>> encoder = TwoStream(
        ...     resnet("tiny"), text, image_head=embed_layer, text_head=embed_layer,
        ...     embedding_size=7, words=["", "a", "man"],
        ... )
        >>> encoder.embed_images(torch.zeros(2, 3, 96, 48)).shape
        torch.Size([2, 7])
        >>> tokens, length = torch.tensor([[1, 2, 0], [2, 0, 0]]), torch.tensor([2, 1])
        >>> encoder.embed_texts(tokens, length, longest=2).shape
        torch.Size([2, 7])
    """

    def __init__(
        self,
        image: nn.Module,
        text: Callable[..., nn.Module],
        *,
        image_head: Head,
        text_head: Head,
        embedding_size: Width,
        words: Sequence[str] | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.embedding_size = embedding_size
        self.image = image
        self.text = text(words=words)
        self.num_features = {
            "image": num_features_of(self.image),
            "text": num_features_of(self.text),
        }
        self.image_head = image_head(self.num_features["image"], embedding_size)
        self.text_head = text_head(self.num_features["text"], embedding_size)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.image.to(memory_format=self.memory_format)

    def compile(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Compile the image stream in place; arguments of `torch.compile`.

        The text stream is a loop over words inside one library call, of which nothing is gained.
        """
        self.image.compile(*args, **kwargs)

    def image_features(self, image: Tensor) -> Tensor:
        """Return ``[b, F]`` features of ``[b, 3, H, W]`` normalised images, at least in float32."""
        return averaged(self.image(image.contiguous(memory_format=self.memory_format)))

    def text_features(self, tokens: Tensor, length: Values, longest: int) -> Tensor:
        """Return ``[b, F]`` features of captions, at least in float32.

        Args:
            tokens: ``[b, L]`` token ids, 0 after the last; b may be 0.
            length: ``[b]`` tokens of each caption; 1 <= length <= L. Best on the host.
            longest: Greatest length in the global batch, of all processes.
        """
        return averaged(self.text(tokens, length, longest))

    def embed_images(self, image: Tensor) -> Tensor:
        """Return ``[b, embedding_size]`` of ``[b, 3, H, W]`` normalised images, at least float32.

        They are not scaled to length 1.
        """
        return apply_head(self.image_head, self.image_features(image))

    def embed_texts(self, tokens: Tensor, length: Values, longest: int) -> Tensor:
        """Return ``[b, embedding_size]`` of captions, at least in float32, not of length 1.

        Args:
            tokens: ``[b, L]`` token ids, 0 after the last; b may be 0.
            length: ``[b]`` tokens of each caption; 1 <= length <= L. Best on the host.
            longest: Greatest length in the global batch, of all processes.
        """
        return apply_head(self.text_head, self.text_features(tokens, length, longest))


def apply_head(head: nn.Module, features: Tensor) -> Tensor:
    """Return the output of ``head`` in the precision of ``features``, also under autocast.

    Args:
        head: Any module.
        features: ``[b, F]``, float32 or wider.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     apply_head(nn.Linear(2, 3), torch.zeros(1, 2)).dtype
        torch.float32
    """
    # Losses take logits of unscaled embeddings, and a head costs nothing beside its stream
    with torch.autocast(features.device.type, enabled=False):
        embedding: Tensor = head(features)
    return embedding
