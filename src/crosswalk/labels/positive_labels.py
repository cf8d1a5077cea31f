"""Which rows of a memory show the same person as a sample: positive classes without identities.

Every function has the form ``(rows [N, D], index [B], ...) -> [B, N] bool``; a sample is always
positive to itself. Ties between similarities go to the lower row.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from crosswalk.ranges import Count, Similarity

LEAST_TOLERANCE = 10
"""A neighbour may always rank the sample this far down its own list. MMCL, released code."""

LEAST_KEPT = 2
"""This many similar rows are kept, consistent or not. MMCL, released code."""

BLOCK = 2**24
"""Similarities held at once: 64 MiB in float32."""

FIRST_STRIDE = 8
"""Neighbours of a sample that are looked at before asking whether it is still in the running."""


def own_row(rows: Tensor, index: Tensor) -> Tensor:
    """Return ``[B, N]`` labels in which every sample is a class of its own.

    Example:
        >>> own_row(torch.zeros(3, 4), torch.tensor([2, 0]))
        tensor([[False, False,  True],
                [ True, False, False]])
    """
    return index[:, None] == torch.arange(len(rows), device=index.device)


def nearest_rows(rows: Tensor, index: Tensor, *, count: Count) -> Tensor:
    """Return ``[B, N]`` labels: the sample and the rows nearest to it.

    Args:
        rows: ``[N, D]`` memory.
        index: ``[B]`` int64 samples, as rows of the memory.
        count: Neighbours beside the sample itself; all rows if there are fewer.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> nearest_rows(rows, torch.tensor([0, 2]), count=1)
        tensor([[ True,  True, False],
                [False,  True,  True]])
    """
    labels = own_row(rows, index)
    similarity = (rows[index] @ rows.T).masked_fill(labels, -torch.inf)
    ranked = similarity.sort(dim=1, descending=True, stable=True).indices
    return labels.scatter(1, ranked[:, : min(count, len(rows) - 1)], True)


def similar_rows(rows: Tensor, index: Tensor, *, threshold: Similarity) -> Tensor:
    """Return ``[B, N]`` labels: the sample and every row more similar than a threshold.

    Args:
        rows: ``[N, D]`` memory.
        index: ``[B]`` int64 samples, as rows of the memory.
        threshold: Similarity that a positive exceeds, in cosine units.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> similar_rows(rows, torch.tensor([0, 1]), threshold=0.7)
        tensor([[ True,  True, False],
                [ True,  True, False]])
    """
    return own_row(rows, index) | (rows[index] @ rows.T > threshold)


def same_person_rows(rows: Tensor, index: Tensor, *, person_id: Tensor) -> Tensor:
    """Return ``[B, N]`` labels of the true identities: an upper bound, for analysis only.

    Args:
        rows: ``[N, D]`` memory.
        index: ``[B]`` int64 samples, as rows of the memory.
        person_id: ``[N]`` true person of every row.

    Example:
        >>> person_id = torch.tensor([7, 1, 7])
        >>> same_person_rows(torch.zeros(3, 4), torch.tensor([2]), person_id=person_id)
        tensor([[ True, False,  True]])
    """
    person_id = person_id.to(index.device)
    return person_id[index][:, None] == person_id


def cycle_consistent_rows(rows: Tensor, index: Tensor, *, threshold: Similarity) -> Tensor:
    """Return ``[B, N]`` labels: similar rows, down to the first that does not return the favour.

    A similar row of another person usually has nearer neighbours of its own. So similar rows are
    visited by falling similarity, and the walk ends at the first one in whose list the sample is
    not among the first ``k + 1``, with ``k`` the number of similar rows, or 10 if that is more.
    The first two similar rows are kept in any case.
    Source: Wang and Zhang, MMCL, CVPR 2020, memory-based positive label prediction, in the form
    of the released code; `strictly_cycle_consistent_rows` is the paper's.

    Args:
        rows: ``[N, D]`` memory; unit vectors, or zero where a sample was never seen.
        index: ``[B]`` int64 samples, as rows of the memory.
        threshold: Similarity that a positive exceeds, in cosine units.

    Returns:
        ``[B, N]`` bool, true for the rows kept and for the sample itself.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
        >>> cycle_consistent_rows(rows, torch.tensor([0, 3]), threshold=0.7)
        tensor([[ True,  True, False, False],
                [False, False,  True,  True]])
    """
    similar, num_similar = _similar_first(rows, index, threshold)
    passed = _walk(
        rows,
        index,
        similar,
        num_similar.where(num_similar > LEAST_KEPT, 0),  # the others keep all they have
        reference=similar[:, 0],  # the sample itself, if rows are unit vectors
        last_rank=num_similar.clamp_min(LEAST_TOLERANCE),
    )
    num_kept = passed.clamp_min(LEAST_KEPT).minimum(num_similar)
    return _first(rows, index, similar, num_kept)


def strictly_cycle_consistent_rows(rows: Tensor, index: Tensor, *, threshold: Similarity) -> Tensor:
    """Return ``[B, N]`` labels as `cycle_consistent_rows`, without its tolerances.

    The walk ends at the first similar row that does not have the sample among its first ``k``, with
    ``k`` the number of similar rows; nothing is kept in any case but the sample.
    Source: Wang and Zhang, MMCL, CVPR 2020, as the paper describes it.

    Args:
        rows: ``[N, D]`` memory; unit vectors, or zero where a sample was never seen.
        index: ``[B]`` int64 samples, as rows of the memory.
        threshold: Similarity that a positive exceeds, in cosine units.

    Returns:
        ``[B, N]`` bool, true for the rows kept and for the sample itself.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
        >>> strictly_cycle_consistent_rows(rows, torch.tensor([0, 3]), threshold=0.7)
        tensor([[ True, False, False, False],
                [False, False, False,  True]])
    """
    similar, num_similar = _similar_first(rows, index, threshold)
    passed = _walk(rows, index, similar, num_similar, reference=index, last_rank=num_similar - 1)
    return _first(rows, index, similar, passed)


def _similar_first(rows: Tensor, index: Tensor, threshold: Similarity) -> tuple[Tensor, Tensor]:
    """Return rows by falling similarity, as far as any is above the threshold, and how many are."""
    similarity = rows[index] @ rows.T
    num_similar = (similarity > threshold).sum(dim=1)
    width = max(1, int(num_similar.max())) if len(index) else 1
    # What is above the threshold comes first whatever topk does with ties; their order is put
    # right here. The rest of a line is never looked at.
    similar = similarity.topk(width).indices.sort(dim=1).values
    order = similarity.gather(1, similar).sort(dim=1, descending=True, stable=True).indices
    return similar.gather(1, order), num_similar


def _walk(
    rows: Tensor,
    index: Tensor,
    candidates: Tensor,
    num_candidates: Tensor,
    *,
    reference: Tensor,
    last_rank: Tensor,
) -> Tensor:
    """Return how many candidates of each sample come before the first that fails.

    A candidate fails if more than ``last_rank`` rows come before ``reference`` in its own list.
    """
    passed = torch.zeros_like(index)
    start, stride = 0, FIRST_STRIDE
    while start < candidates.shape[1]:
        stride = min(stride, candidates.shape[1] - start)
        place = torch.arange(start, start + stride, device=index.device)
        running = (passed == start)[:, None] & (place < num_candidates[:, None])
        # In its own list a sample's first row is the first, so nothing is to be computed there.
        candidate = candidates[:, start : start + stride]
        asked = running & (candidate != index[:, None])
        lists = _lists_of(candidate.where(asked, len(rows)).flatten(), len(rows), running.any())
        if not lists.any_running:
            break
        fine = running.flatten()
        for pair, listed, which in lists.parts:
            sample = pair // stride
            rank = _ranks(rows, listed, which, reference[sample])
            fine[pair] = rank <= last_rank[sample]
        passed += fine.view(running.shape).long().cumprod(dim=1).sum(dim=1)
        start, stride = start + stride, 2 * stride
    return passed


class _Lists(NamedTuple):
    """The lists that are looked into, in parts of as many pairs as `BLOCK` has room for.

    A part has the pairs' places, the rows whose lists they ask for, each once, and which of these
    each pair asks for.
    """

    any_running: bool
    parts: list[tuple[Tensor, Tensor, Tensor]]


def _lists_of(candidate: Tensor, num_rows: int, any_running: Tensor) -> _Lists:
    """Return the lists of ``[P]`` candidates, ``num_rows`` where none is asked for.

    All sizes are asked of the device at one time: to look into every list would be many times the
    work.
    """
    size = max(1, BLOCK // num_rows)
    ordered, order = candidate.sort(stable=True)
    is_asked = ordered < num_rows
    is_new = torch.ones_like(is_asked)
    is_new[1:] = ordered[1:] != ordered[:-1]
    is_new[::size] = True  # samples share neighbours, within a part
    total = (is_new & is_asked).cumsum(dim=0)
    numbers = any_running[None], is_asked.sum()[None], total[size - 1 :: size], total[-1:]
    sizes = torch.cat(numbers).tolist()
    parts, before = [], 0
    for start, until in zip(range(0, sizes[1], size), sizes[2:], strict=False):
        part = slice(start, min(start + size, sizes[1]))
        which = total[part] - before - 1
        listed = ordered.new_empty(until - before).scatter_(0, which, ordered[part])
        parts.append((order[part], listed, which))
        before = until
    return _Lists(bool(sizes[0]), parts)


def _ranks(rows: Tensor, listed: Tensor, which: Tensor, reference: Tensor) -> Tensor:
    """Return ``[P]`` 0-based ranks of ``reference`` in the lists of the rows ``listed[which]``.

    A rank is counted, not sorted for. Both sides of a comparison come from one matrix product:
    computed apart, equal similarities could differ in the last bit.
    """
    similarity = (rows[listed] @ rows.T)[which]
    own = reference[:, None]
    level = similarity.gather(1, own)
    column = torch.arange(len(rows), device=rows.device)
    ahead = (similarity > level) | ((similarity == level) & (column < own))
    return ahead.sum(dim=1)


def _first(rows: Tensor, index: Tensor, similar: Tensor, num_kept: Tensor) -> Tensor:
    """Return labels of the first ``num_kept`` similar rows of each sample and of itself."""
    place = torch.arange(similar.shape[1], device=index.device)
    labels = torch.zeros(len(index), len(rows), dtype=torch.bool, device=index.device)
    labels.scatter_(1, similar, place < num_kept[:, None])
    return labels | own_row(rows, index)
