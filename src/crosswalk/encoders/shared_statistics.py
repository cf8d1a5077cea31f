"""Batch normalisation of groups that span processes: one collective forward, one backward.

It is made of the library's kernels for given statistics, which read and write an activation once
whatever its memory format, and it keeps of a batch what they keep: the input alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from crosswalk.distributed import gather_equal, rank_and_world_size, sum_over_processes


@dataclass(frozen=True)
class Shares:
    """Which samples of which group are where.

    A piece is what a process holds of a group.

    Attributes:
        pieces: (group, start, end) of this process's pieces, among its own samples.
        group_rows: Samples of each group.
        most_pieces: Of one process.
        weight: ``[groups, processes * most_pieces]``: which part of a group a piece is.
        group: ``[processes * most_pieces]`` int64 group of each piece; any where there is none.
        spanned: Whether a group is on several processes.
    """

    pieces: tuple[tuple[int, int, int], ...]
    group_rows: tuple[int, ...]
    most_pieces: int
    weight: Tensor
    group: Tensor
    spanned: bool


@lru_cache(maxsize=32)
def group_shares(
    rows: tuple[int, ...],
    group_size: int | None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
) -> Shares:
    """Return the pieces of groups of ``group_size`` samples of a batch, counted in rank order.

    Args:
        rows: Samples of each process.
        group_size: Samples of a group, the last may have fewer; None: all are one.
        dtype: Of ``weight``.
        device: Of the tensors.

    Example:
        >>> shares = group_shares((3, 2), group_size=4)  # on one process, that of rank 0
        >>> shares.pieces, shares.group_rows, shares.spanned
        (((0, 0, 3),), (4, 1), True)
        >>> shares.weight.tolist()
        [[0.75, 0.0, 0.25, 0.0], [0.0, 0.0, 0.0, 1.0]]
    """
    total = sum(rows)
    group_size = group_size or max(1, total)
    num_groups = -(-total // group_size)
    pieces: list[list[tuple[int, int, int]]] = []
    for start, end in pairwise(accumulate(rows, initial=0)):
        held = range(start // group_size, -(-end // group_size)) if end > start else ()
        pieces.append(
            [
                (group, max(start, group * group_size), min(end, (group + 1) * group_size))
                for group in held
            ]
        )
    most = max(map(len, pieces))
    group_rows = tuple(min(group_size, total - group_size * number) for number in range(num_groups))
    weight = torch.zeros(num_groups, len(rows) * most, dtype=torch.float64)
    group_of = torch.zeros(len(rows) * most, dtype=torch.int64)
    for process, held_here in enumerate(pieces):
        for number, (group, start, end) in enumerate(held_here, start=process * most):
            weight[group, number] = (end - start) / group_rows[group]
            group_of[number] = group
    rank = rank_and_world_size()[0]
    offset = sum(rows[:rank])
    return Shares(
        pieces=tuple((group, start - offset, end - offset) for group, start, end in pieces[rank]),
        group_rows=group_rows,
        most_pieces=most,
        weight=weight.to(device, dtype),
        group=group_of.to(device),
        spanned=bool(((weight > 0).sum(dim=1) > 1).any()),
    )


@torch.no_grad()
def group_statistics(x: Tensor, shares: Shares) -> tuple[Tensor, Tensor]:
    """Return ``[groups, C]`` means and population variances of all groups, by one collective.

    Every process sends those of its pieces, the variance about the piece's own mean, and they are
    put together: sums of squares would cancel.

    Args:
        x: ``[b, C, ...]`` this process's samples, which may be none.
        shares: Of ``x``, with the type of the result.
    """
    dims = [0, *range(2, x.dim())]
    sent = []
    for _, start, end in shares.pieces:
        piece = x[start:end].to(shares.weight.dtype)
        mean = piece.mean(dims)
        var = (piece - _along_channels(mean, x)).square_().mean(dims)
        sent += [mean, var]
    missing = 2 * shares.most_pieces - len(sent)
    sent += [x.new_zeros(x.shape[1], dtype=shares.weight.dtype)] * missing
    received = gather_equal(torch.stack(sent)).view(-1, 2, x.shape[1])
    means, variances = received.unbind(1)
    with torch.autocast(x.device.type, enabled=False):
        mean = shares.weight @ means
        var = shares.weight @ (variances + (means - mean[shares.group]).square_())
    return mean, var


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        var: Tensor,
        shares: Shares,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, var)
        ctx.shares, ctx.eps = shares, eps
        scale, shift = weight.to(mean.dtype), bias.to(mean.dtype)
        return _joined(
            x,
            [
                F.batch_norm(x[start:end], mean[group], var[group], scale, shift, eps=eps)
                for group, start, end in shares.pieces
            ],
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, weight, mean, var = ctx.saved_tensors
        shares: Shares = ctx.shares
        if grad.stride() != x.stride():  # kernels want one memory format
            grad = torch.empty_like(x).copy_(grad)
        scale = weight.to(mean.dtype)
        # of each group: sums of the gradient times the normalised x, and of the gradient
        sums = mean.new_zeros(len(mean), 2, x.shape[1])
        for group, start, end in shares.pieces:
            of_piece = torch.ops.aten.native_batch_norm_backward(
                grad[start:end],
                x[start:end],
                scale,
                *(mean[group], var[group], None, None, False, ctx.eps),
                [False, True, True],
            )
            sums[group] += torch.stack(of_piece[1:])
        own = sums.sum(dim=0).to(weight.dtype)
        if shares.spanned:
            sums = sum_over_processes(sums)
        parts = []
        if ctx.needs_input_grad[0]:
            slope = scale * (var + ctx.eps).rsqrt()
            for group, start, end in shares.pieces:
                number = shares.group_rows[group] * x.shape[2:].numel()
                along, across = (sums[group] * slope[group]).div_(-number)
                piece = F.batch_norm(
                    x[start:end], mean[group], var[group], along, across, eps=ctx.eps
                )
                parts.append(piece.add_(grad[start:end] * _along_channels(slope[group], x)))
        return (_joined(x, parts), *own, None, None, None, None)


def _along_channels(values: Tensor, x: Tensor) -> Tensor:
    """Return ``[C]`` values so that they meet the channels of ``[b, C, ...]``."""
    return values.view(-1, *[1] * (x.dim() - 2))


def _joined(like: Tensor, parts: list[Tensor]) -> Tensor:
    """Return the rows of all parts, in the memory format of ``like``."""
    return parts[0] if len(parts) == 1 else torch.cat([like[:0], *parts])


def normalise_groups(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    shares: Shares,
    *,
    eps: float,
) -> Tensor:
    """Return ``x`` normalised by what `group_statistics` returned for it, with gradient.

    The gradient is that of statistics that depend on ``x``; ``mean`` and ``var`` have none.

    Args:
        x: ``[b, C, ...]`` this process's samples, which may be none.
        weight: ``[C]`` scale.
        bias: ``[C]`` shift.
        mean: ``[groups, C]``.
        var: ``[groups, C]``.
        shares: Of ``x``.
        eps: Added to the variance.
    """
    normalised: Tensor = _Normalise.apply(x, weight, bias, mean, var, shares, eps)
    return normalised
