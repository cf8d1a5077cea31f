"""CLIP's byte-pair tokenizer with RDE's special tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from crosswalk.byte_pairs import byte_pairs, open_clip_tokenizer
from crosswalk.ranges import TokenCount

_SPECIAL_IDS = {"<|mask|>": 49405, "<|startoftext|>": 49406, "<|endoftext|>": 49407}


class ClipTokenizer:
    """Captions to token ids of CLIP's vocabulary.

    A caption becomes start token, byte pairs, end token, zeros. If it is too long, the last id
    kept is the end token. The strings ``<|mask|>``, ``<|startoftext|>`` and ``<|endoftext|>``
    inside a caption become the ids of those tokens.

    RDE takes the place of CLIP's last merge, the word "jekyll", for its mask token; here both
    have the id 49405, where the published code cannot encode that word. Id 0 is padding and also
    the piece "!" inside punctuation such as "!~": that piece then counts as padding, as published.

    Args:
        context_length: Ids per caption; CLIP's weights are for 77.

    Example:
        >>> tokenizer = ClipTokenizer(context_length=6)
        >>> tokenizer(["A man in red.", "a woman"])
        tensor([[49406,   320,   786,   530,   736, 49407],
                [49406,   320,  2308, 49407,     0,     0]])
        >>> tokenizer.num_truncated(["A man in red.", "a woman"])
        1
    """

    vocabulary_size = 49408
    start_id = _SPECIAL_IDS["<|startoftext|>"]
    end_id = _SPECIAL_IDS["<|endoftext|>"]
    mask_id = _SPECIAL_IDS["<|mask|>"]

    def __init__(self, context_length: TokenCount = 77) -> None:
        if context_length < 2:
            raise ValueError(
                f"data.context_length={context_length} leaves no room for start and end token"
            )
        self.context_length = context_length
        library = open_clip_tokenizer()
        self._byte_pairs = byte_pairs()
        special = "|".join(token.replace("|", r"\|") for token in _SPECIAL_IDS)
        self._pieces = library.re.compile(
            special + r"|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+",
            library.re.IGNORECASE,
        )
        self._known = {token: [number] for token, number in _SPECIAL_IDS.items()}

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Return ``[captions, context_length]`` int64 ids, 0 after the end token."""
        ids = torch.zeros(len(captions), self.context_length, dtype=torch.int64)
        for row, caption in zip(ids, captions, strict=True):
            sequence = [self.start_id, *self.encode(caption), self.end_id]
            if len(sequence) > self.context_length:
                sequence = [*sequence[: self.context_length - 1], self.end_id]
            row[: len(sequence)] = torch.tensor(sequence)
        return ids

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, without start and end.

        Example:
            >>> ClipTokenizer().encode("Jekyll's")
            [49405, 568]
        """
        ids: list[int] = []
        for word in self._pieces.findall(self._byte_pairs.clean_fn(text)):
            known = self._known.get(word)
            if known is None:
                known = self._known[word] = self._encode_word(word)
            ids += known
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``; every word is followed by a space.

        Example:
            >>> ClipTokenizer().decode([320, 786, 530, 736])
            'a man in red '
        """
        names = {number: token for token, number in _SPECIAL_IDS.items()}
        pieces = self._byte_pairs
        text = "".join(names.get(number) or pieces.decoder[number] for number in ids)
        raw = bytearray(pieces.byte_decoder[symbol] for symbol in text)
        return raw.decode("utf-8", errors="replace").replace("</w>", " ")

    def lengths_untruncated(self, captions: Sequence[str]) -> list[int]:
        """Return how many ids each caption needs, start and end included.

        Example:
            >>> ClipTokenizer(context_length=4).lengths_untruncated(["a man in red", ""])
            [6, 2]
        """
        return [len(self.encode(caption)) + 2 for caption in captions]

    def num_truncated(self, captions: Sequence[str]) -> int:
        """Return how many captions lose their end to `context_length`."""
        return sum(length > self.context_length for length in self.lengths_untruncated(captions))

    def _encode_word(self, word: str) -> list[int]:
        pieces = self._byte_pairs
        symbols = "".join(pieces.byte_encoder[byte] for byte in word.encode())
        return [pieces.encoder[piece] for piece in pieces.bpe(symbols).split(" ")]
