"""One vector per token id: looked up in a frozen table, projected from one, or learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from crosswalk.ranges import Count, Width

Words = Sequence[str]
"""The word of each token id."""

MakeTable = Callable[[Words], Tensor]
"""Called ``table(words)``; gives ``[len(words), D]``."""

MakeVectors = Callable[[Words | None], nn.Module]
"""Called ``vectors(words)``; the module gives ``[n, num_features]`` of ``[n]`` token ids."""


class WordTable(nn.Module):
    """Vectors that are never trained, such as CLIP's embedding of every word of the vocabulary.

    The table is a buffer, so checkpoints of this package hold it. Where a state dict has none,
    as in official checkpoints of CM-MoCo, loading it keeps the table that was built.
    Source: Han et al., CM-MoCo, BMVC 2021, section 3.2: the word vectors of the published models.

    Args:
        words: The word of each token id.
        table: Called ``table(words)``; gives ``[len(words), D]``, rows that are read only.

    Raises:
        ValueError: If there are no words, or not one row for each.

    Example:
        >>> vectors = WordTable(["", "a", "man"], table=lambda words: torch.eye(3, 2))
        >>> vectors(torch.tensor([1, 0])), vectors.num_features
        (tensor([[0., 1.],
                [1., 0.]]), 2)
    """

    table: Tensor

    def __init__(self, words: Words | None, *, table: MakeTable) -> None:
        super().__init__()
        words = known_words(words)
        rows = table(words)
        if rows.dim() != 2 or len(rows) != len(words):
            raise ValueError(
                f"the word table has the shape {list(rows.shape)}, but the vocabulary has "
                f"{len(words)} token ids: one row for each is needed (encoder.text.vectors.table)."
            )
        self.num_features = rows.shape[1]
        self.register_buffer("table", rows.float())

    def forward(self, tokens: Tensor) -> Tensor:
        """Return ``[..., D]`` vectors of ``[...]`` token ids."""
        return self.table[tokens]

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        name = f"{prefix}table"
        if name not in state_dict:
            if bool(self.table.isnan().any()):
                raise ValueError(
                    f"the checkpoint holds no word table ({name}), and the encoder was built "
                    "without: set encoder.text.vectors.table to the table it was trained with."
                )
            state_dict = {**state_dict, name: self.table}
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class ProjectedWords(nn.Module):
    """Vectors of a frozen table, brought to another size by a linear layer that is trained.

    Source: Han et al., CM-MoCo, BMVC 2021, released code: tables wider than the GRU's input.

    Args:
        words: The word of each token id.
        table: As in `WordTable`.
        size: Channels of the vectors.

    Example:
        >>> vectors = ProjectedWords(["", "a"], table=lambda words: torch.eye(2, 9), size=4)
        >>> vectors(torch.tensor([[1, 0, 0]])).shape, vectors.num_features
        (torch.Size([1, 3, 4]), 4)
    """

    def __init__(self, words: Words | None, *, table: MakeTable, size: Width) -> None:
        super().__init__()
        self.num_features = size
        self.frozen = WordTable(words, table=table)
        self.projection = nn.Linear(self.frozen.num_features, size)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return ``[..., size]`` vectors of ``[...]`` token ids."""
        projected: Tensor = self.projection(self.frozen(tokens))
        return projected


class LearnedWords(nn.Module):
    """Vectors that are trained; the one of id 0 gets no gradient.

    They start from a standard normal distribution, the one of id 0 from zero, unless ``start``
    gives them. In CMMT's official vocabulary id 0 is both padding and the word "a", whose vector
    therefore stays what it was at the start; that is so here too.
    Source: Zhao et al., CMMT, ICCV 2021, and Han et al., CM-MoCo, BMVC 2021, released code.

    Args:
        words: The word of each token id.
        size: Channels of the vectors.
        num_words: Rows; None means one for each of ``words``. More are never looked up.
        start: Called ``start(words)``; gives the rows ``[len(words), size]`` to start from.

    Raises:
        ValueError: If the number of rows or their size does not fit.

    Example:
        >>> vectors = LearnedWords(["", "a"], size=3)
        >>> vectors(torch.tensor([0]))
        tensor([[0., 0., 0.]], grad_fn=<...>)
    """

    def __init__(
        self,
        words: Words | None = None,
        *,
        size: Width = 512,
        num_words: Count | None = None,
        start: MakeTable | None = None,
    ) -> None:
        super().__init__()
        if num_words is None or start is not None:
            words = known_words(words)
        rows = num_words or len(words or ())
        if words is not None and len(words) > rows:
            raise ValueError(
                f"the vocabulary has {len(words)} token ids, more than "
                f"encoder.text.vectors.num_words={rows}."
            )
        self.num_features = size
        self.embedding = nn.Embedding(rows, size, padding_idx=0)
        if start is not None:
            first = start(words or ())
            if first.shape != (len(words or ()), size):
                raise ValueError(
                    f"encoder.text.vectors.start gives rows of the shape {list(first.shape)}, "
                    f"but {len(words or ())} words of size {size} start from them."
                )
            with torch.no_grad():
                self.embedding.weight[: len(first)] = first

    def forward(self, tokens: Tensor) -> Tensor:
        """Return ``[..., size]`` vectors of ``[...]`` token ids."""
        vectors: Tensor = self.embedding(tokens)
        return vectors


def known_words(words: Words | None) -> Words:
    """Return the words, of which there must be some.

    Raises:
        ValueError: If there are none: the tokenizer has no list of words.

    Example:
        >>> known_words(["", "man"])
        ['', 'man']
    """
    if not words:
        raise ValueError(
            "this text stream has a vector for every word, and data.tokenizer has no list of "
            "words: CLIP's tokenizer cuts words to pieces. Choose a tokenizer that numbers words."
        )
    return words
