"""Token selection: an embedding made of the tokens that the global token attends to most."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from crosswalk.encoders.batch_norm import BatchStatistics, GroupBatchNorm
from crosswalk.ranges import Count, Width

Pool = Callable[[Tensor, Tensor | None], Tensor]


def num_selected(num_tokens: int, ratio: float) -> int:
    """Return how many of ``num_tokens`` local tokens the ratio selects, rounded down.

    Raises:
        ValueError: If that is none, or more than there are.

    Example:
        >>> num_selected(192, 0.3)
        57
    """
    count = int(num_tokens * ratio)
    if not 1 <= count <= num_tokens:
        raise ValueError(
            f"encoder.select_ratio={ratio} selects {count} of {num_tokens} local tokens; it must "
            "select between one and all of them."
        )
    return count


def image_token_scores(attention: Tensor) -> Tensor:
    """Return by what to rank the tokens of an image: attention, the class token last.

    Args:
        attention: ``[B, L]`` what the class token (position 0) attends to.

    Returns:
        ``[B, L]``.

    Example:
        >>> image_token_scores(torch.tensor([[0.5, 0.2, 0.3]]))
        tensor([[-1.0000,  0.2000,  0.3000]])
    """
    scores = attention.clone()
    scores[:, 0] = -1
    return scores


def text_token_scores(attention: Tensor, tokens: Tensor) -> Tensor:
    """Return by what to rank the tokens of a caption: words, then padding, then start and end.

    A caption without any word ranks its end token first, so that something is selected; in the
    published code such a caption makes itself and all later ones of its batch NaN.

    Args:
        attention: ``[B, L]`` what the end token attends to.
        tokens: ``[B, L]`` token ids; 0 is padding, the first largest id the end.

    Returns:
        ``[B, L]``.

    Example:
        >>> text_token_scores(torch.tensor([[0.5, 0.2, 0.3, 0.0]]), torch.tensor([[8, 3, 9, 0]]))
        tensor([[-1.0000,  0.2000, -1.0000,  0.0000]])
    """
    scores = attention * (tokens != 0)
    scores[:, 0] = -1
    end_score = torch.where(_num_words(tokens) > 0, -1.0, 2.0).to(scores.dtype)
    return scores.scatter(1, tokens.argmax(dim=1, keepdim=True), end_score[:, None])


def num_pooled(tokens: Tensor, count: int) -> Tensor:
    """Return ``[B]`` how many of ``count`` selected tokens are words; at least one is pooled.

    Example:
        >>> num_pooled(torch.tensor([[8, 3, 4, 5, 9, 0], [8, 9, 0, 0, 0, 0]]), 2)
        tensor([2, 1])
    """
    return _num_words(tokens).clamp(1, count)


def best_positions(scores: Tensor, count: int) -> Tensor:
    """Return the ``[B, count]`` positions of the largest scores, best first.

    Of equal scores the lower position comes first, so that which padding tokens fill up short
    captions depends on nothing.

    Example:
        >>> best_positions(torch.tensor([[0.0, 0.7, 0.0, 0.9]]), 3)
        tensor([[3, 1, 0]])
    """
    return scores.sort(dim=1, descending=True, stable=True).indices[:, :count]


def max_pool(values: Tensor, valid: Tensor | None) -> Tensor:
    """Return the largest value of every channel.

    Args:
        values: ``[B, k, C]``.
        valid: ``[B]`` how many of the first tokens count, >= 1; None means all.

    Returns:
        ``[B, C]``.

    Example:
        >>> max_pool(torch.tensor([[[1.0], [3.0], [8.0]]]), torch.tensor([2]))
        tensor([[3.]])
    """
    return _without_rest(values, valid, -torch.inf).amax(dim=1)


def average_pool(values: Tensor, valid: Tensor | None) -> Tensor:
    """Return the mean of every channel; arguments as for `max_pool`.

    Example:
        >>> average_pool(torch.tensor([[[1.0], [3.0], [8.0]]]), torch.tensor([2]))
        tensor([[2.]])
    """
    if valid is None:
        return values.mean(dim=1)
    return _without_rest(values, valid, 0).sum(dim=1) / valid[:, None]


def top10_pool(values: Tensor, valid: Tensor | None) -> Tensor:
    """Return the mean of the 10 largest values of every channel; arguments as for `max_pool`.

    Example:
        >>> top10_pool(torch.arange(12.0).view(1, 12, 1), None)
        tensor([[6.5000]])
    """
    count = min(10, values.shape[1])
    largest = _without_rest(values, valid, -torch.inf).topk(count, dim=1).values
    return average_pool(largest, None if valid is None else valid.clamp(max=count))


class TokenMlp(nn.Module):
    """What turns every selected token into its share of the embedding: an MLP beside a line.

    Args:
        in_features: Channels of the tokens.
        out_features: Channels of the embedding; half of it inside the MLP.
        statistics: Where the normalisation's statistics come from.
        group_size: Samples of the global batch that share statistics; None means all.
    """

    def __init__(
        self,
        in_features: Width,
        out_features: Width,
        *,
        statistics: BatchStatistics = "frozen",
        group_size: Count | None = None,
    ) -> None:
        super().__init__()
        hidden = out_features // 2
        self.residual = nn.Linear(in_features, out_features)
        self.hidden = nn.Linear(in_features, hidden)
        self.norm = GroupBatchNorm(hidden, statistics=statistics, group_size=group_size)
        self.out = nn.Linear(hidden, out_features)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return ``[B, k, out_features]`` from ``[B, k, in_features]``."""
        normalised = self.norm(self.hidden(tokens).mT).mT
        values: Tensor = self.residual(tokens) + self.out(normalised.relu())
        return values


class TokenSelection(nn.Module):
    """The embedding of selected tokens: unit tokens, a function of each, a pool over them.

    Source: Qin et al., RDE, CVPR 2024, token selection embedding.

    Args:
        token_mlp: ``[B, k, C] -> [B, k, D]``; the identity pools the tokens themselves.
        pool: Over the tokens; as published, the maximum.
    """

    def __init__(self, token_mlp: nn.Module, pool: Pool = max_pool) -> None:
        super().__init__()
        self.token_mlp = token_mlp
        self.pool = pool

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the embeddings, not yet of unit length.

        Args:
            tokens: ``[B, k, C]`` projected tokens, best first.
            valid: ``[B]`` how many of them are pooled, >= 1; None means all.

        Returns:
            ``[B, D]``.
        """
        tokens = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
        tokens = tokens / (tokens.norm(dim=-1, keepdim=True) + 1e-8)
        return self.pool(self.token_mlp(tokens), valid)


def _num_words(tokens: Tensor) -> Tensor:
    return (tokens != 0).sum(dim=1) - 2


def _without_rest(values: Tensor, valid: Tensor | None, fill: float) -> Tensor:
    if valid is None:
        return values
    rest = torch.arange(values.shape[1], device=values.device) >= valid[:, None]
    return values.masked_fill(rest[:, :, None], fill)
