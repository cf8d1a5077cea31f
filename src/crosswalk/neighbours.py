"""Nearest neighbours, and the k-reciprocal Jaccard distance of clustering and re-ranking.

A point and its neighbours often agree on a third that a plain distance would miss, so the distance
compares neighbourhoods: two points are near if the same points are nearest to both. Everything is
sparse: memory grows with the number of points, not with its square.

The pieces, in order: `nearest`, `expanded_sets` (of `reciprocal_sets`), `entry_distances`,
`memberships`, `averaged_memberships`, `jaccard_distances`; `k_reciprocal_jaccard` is all of them
as clustering uses them. Sparse matrices are `scipy.sparse.csr_array` with sorted columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack
from torch import Tensor

ROWS_AT_ONCE = 1024
"""Points whose distances to all others are held at one time."""

PAIRS_AT_ONCE = 4096
"""Pairs of points that are held at one time to compute their distance."""

TERMS_AT_ONCE = 2**22
"""Terms of the Jaccard sums that are held at one time: 16 MiB of columns, and of values."""


def nearest(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k nearest points of every point, itself first, and their squared distances.

    Args:
        rows: ``[N, D]`` points; computed in float32.
        k: Neighbours, the point itself among them; 1 <= k <= N.

    Returns:
        ``[N, k]`` int64 indices by rising distance, and ``[N, k]`` float32 squared distances.

    Raises:
        ValueError: If there are fewer than ``k`` points, or a point is not finite.

    Example:
        >>> index, squared_distance = nearest(torch.tensor([[0.0], [1.0], [3.0]]), 2)
        >>> index
        tensor([[0, 1],
                [1, 0],
                [2, 1]])
        >>> squared_distance
        tensor([[0., 1.],
                [0., 1.],
                [0., 4.]])
    """
    if len(rows) < k:
        raise ValueError(
            f"{len(rows)} points have no {k} neighbours each, themselves included. Lower "
            "clustering.k1, or check that the whole training set was read."
        )
    rows = rows.detach().float()
    if not bool(rows.isfinite().all()):
        raise ValueError("points are not finite: the network has diverged. Lower optim.lr.")
    squared_norm = rows.square().sum(dim=1)
    index = torch.empty(len(rows), k, dtype=torch.int64, device=rows.device)
    distance = torch.empty(len(rows), k, device=rows.device)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
        block = squared_norm - 2 * rows[some] @ rows.T
        block += squared_norm[some, None]
        block.clamp_(min=0)
        own = torch.arange(len(block), device=rows.device)
        block[own, own + start] = -1  # first, whatever rounding says of duplicates
        distance[some], index[some] = block.topk(k, largest=False)
    distance[:, 0] = 0
    return index, distance


def reciprocal_sets(neighbours: NDArray[np.int64], k: int) -> csr_array[Any]:
    """Return which points are each other's neighbours: R(i, k).

    Args:
        neighbours: ``[N, K]`` nearest points of every point, itself first.
        k: Neighbours beside the point itself: the first ``min(k + 1, K)`` columns are looked at.

    Returns:
        ``[N, N]`` sparse float32 of ones; symmetric, the diagonal included.

    Example:
        >>> reciprocal_sets(np.array([[0, 1], [1, 0], [2, 1]]), 1).toarray()
        array([[1., 1., 0.],
               [1., 1., 0.],
               [0., 0., 1.]], dtype=float32)
    """
    first = np.sort(neighbours[:, : k + 1], axis=1)
    lists = _equally_long(first, np.float32(1), num_columns=len(first))
    return lists.multiply(lists.T.tocsr()).tocsr()


def _equally_long(
    columns: NDArray[np.integer[Any]], value: np.float32, *, num_columns: int
) -> csr_array[Any]:
    """Return one value at the given ``[rows, k]`` columns; 32-bit indices, which are faster."""
    pointers = np.arange(0, columns.size + 1, columns.shape[1], dtype=np.int32)
    values = np.full(columns.size, value)
    indices = columns.astype(np.int32).ravel()
    return csr_array((values, indices, pointers), shape=(len(columns), num_columns))


def expanded_sets(neighbours: NDArray[np.int64], k1: int) -> csr_array[Any]:
    """Return the reciprocal neighbours of every point, and those of neighbours that fit well.

    A neighbour j of i brings its own R(j, k1 / 2), if more than two thirds of it are in R(i, k1).
    Source: Zhong et al., Re-ranking with k-reciprocal Encoding, CVPR 2017, eq. 4.

    Args:
        neighbours: ``[N, K]`` nearest points of every point, itself first. The re-ranking of
            the paper looks at K = k1 + 1, clustering as published at K = k1.
        k1: Neighbours of a reciprocal set; half of it, rounded half to even, for the brought ones.

    Returns:
        ``[N, N]`` sparse float32 of ones.

    Example:
        >>> chain = np.array([[0, 1, 2], [1, 0, 2], [2, 1, 3], [3, 2, 1]])
        >>> expanded_sets(chain, 2).toarray()
        array([[1., 1., 0., 0.],
               [1., 1., 1., 0.],
               [0., 1., 1., 1.],
               [0., 0., 1., 1.]], dtype=float32)
    """
    whole = reciprocal_sets(neighbours, k1)
    half = reciprocal_sets(neighbours, round(k1 / 2))
    shared = whole.multiply(whole @ half.T).tocsr()
    size = half.sum(axis=1)
    fits = 3 * shared.data > 2 * size[shared.indices]  # whole numbers: exact in float32
    shared.data = fits.astype(np.float32)
    shared.eliminate_zeros()
    expanded = (whole + shared @ half).tocsr()
    expanded.sort_indices()
    expanded.data = np.ones_like(expanded.data)
    return expanded


def entry_distances(rows: Tensor, sets: csr_array[Any]) -> NDArray[np.float32]:
    """Return the squared distance of every pair that a sparse matrix stores, in its order.

    Args:
        rows: ``[N, D]`` points; computed in float32.
        sets: ``[N, N]`` sparse.

    Returns:
        ``[entries]`` squared Euclidean distances.

    Example:
        >>> rows = torch.tensor([[0.0], [1.0], [3.0]])
        >>> entry_distances(rows, csr_array([[1, 1, 0], [0, 1, 1], [0, 0, 1]]))
        array([0., 1., 0., 4., 0.], dtype=float32)
    """
    rows = rows.detach().float()
    first = np.repeat(np.arange(sets.shape[0]), np.diff(sets.indptr))
    distance = np.empty(sets.nnz, np.float32)
    for start in range(0, sets.nnz, PAIRS_AT_ONCE):
        some = slice(start, start + PAIRS_AT_ONCE)
        one = torch.from_numpy(first[some]).to(rows.device)
        other = torch.from_numpy(sets.indices[some].astype(np.int64)).to(rows.device)
        distance[some] = (rows[one] - rows[other]).square().sum(dim=1).cpu().numpy()
    return distance


def memberships(sets: csr_array[Any], distance: NDArray[np.float32]) -> csr_array[Any]:
    """Return how much each member belongs to its set: a softmax of minus its distance.

    Args:
        sets: ``[N, M]`` sparse; no row empty.
        distance: ``[entries]`` distance of each stored entry, in the order of the matrix:
            squared distances for clustering, divided by the largest of the row for re-ranking.

    Returns:
        ``[N, M]`` sparse float32; rows sum to 1.

    Example:
        >>> sets = csr_array(np.array([[1, 1], [0, 1]]))
        >>> memberships(sets, np.log([1, 3, 1]).astype(np.float32)).toarray()
        array([[0.75, 0.25],
               [0.  , 1.  ]], dtype=float32)
    """
    starts, lengths = sets.indptr[:-1], np.diff(sets.indptr)
    weight = np.exp(np.repeat(np.minimum.reduceat(distance, starts), lengths) - distance)
    weight /= np.repeat(np.add.reduceat(weight, starts), lengths)
    return csr_array((weight, sets.indices, sets.indptr), shape=sets.shape)


def averaged_memberships(
    membership: csr_array[Any], neighbours: NDArray[np.int64], k2: int
) -> csr_array[Any]:
    """Return the mean membership of a point's nearest neighbours: local query expansion.

    Source: Zhong et al., Re-ranking with k-reciprocal Encoding, CVPR 2017, eq. 11.

    Args:
        membership: ``[N, M]`` sparse float32.
        neighbours: ``[N, K]`` nearest points of every point, itself first.
        k2: Neighbours averaged over, the point itself among them; 1 changes nothing.

    Returns:
        ``[N, M]`` sparse float32.

    Example:
        >>> membership = csr_array(np.array([[1, 0], [0, 1]], dtype=np.float32))
        >>> averaged_memberships(membership, np.array([[0, 1], [1, 0]]), 2).toarray()
        array([[0.5, 0.5],
               [0.5, 0.5]], dtype=float32)
    """
    if k2 == 1:
        return membership
    first = neighbours[:, :k2]
    share = _equally_long(first, np.float32(1 / first.shape[1]), num_columns=membership.shape[0])
    averaged = (share @ membership).tocsr()
    averaged.sort_indices()
    return averaged


def jaccard_distances(membership: csr_array[Any], *, num_rows: int | None = None) -> csr_array[Any]:
    """Return the Jaccard distances of fuzzy sets, where they are below 1.

    ``1 - m / (2 - m)`` with m the sum of the smaller memberships, cut off at 0. Sets without a
    common member have the distance 1 and are not stored; a stored distance of 0 is.
    Source: Zhong et al., Re-ranking with k-reciprocal Encoding, CVPR 2017, eq. 10.

    Args:
        membership: ``[N, M]`` sparse float32; rows sum to 1.
        num_rows: Compare only the first so many sets with all; None: all with all.

    Returns:
        ``[num_rows or N, N]`` sparse float32 in [0, 1); the distance of a set to itself is
        stored as well, and is 0 up to rounding.

    Example:
        >>> membership = csr_array(np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1]], np.float32))
        >>> distance = jaccard_distances(membership)
        >>> distance.toarray().round(2)  # where nothing is stored, this prints 0 as well
        array([[0.  , 0.67, 0.  ],
               [0.67, 0.  , 0.  ],
               [0.  , 0.  , 0.  ]], dtype=float32)
        >>> distance.nnz
        5
    """
    count = membership.shape[0] if num_rows is None else num_rows
    lower = _smaller_first(membership, count, membership.shape[0])
    if count < membership.shape[0]:
        upper = _smaller_first(membership, membership.shape[0], count).T
    else:
        upper = lower.T
    own = csr_array(
        (membership.sum(axis=1)[:count], np.arange(count), np.arange(count + 1)), shape=lower.shape
    )
    shared = (lower + upper + own).tocsr()
    shared.sort_indices()
    # A sum of 1.0000001 would be a distance below 0.
    shared.data = np.maximum(1 - shared.data / (2 - shared.data), 0)
    return shared


def _smaller_first(membership: csr_array[Any], num_rows: int, num_columns: int) -> csr_array[Any]:
    """Return, per pair of sets, the sum over the members of which the first set has less.

    Of two equal memberships that of the lower set counts as less. With the members of each column
    in this order, the sets that a membership is the smaller one to are the rest of its column.
    """
    num_sets = membership.shape[0]
    owner = np.repeat(np.arange(num_sets, dtype=np.int32), np.diff(membership.indptr))
    order = np.lexsort((owner, membership.data, membership.indices))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    listed = owner[order] < num_columns
    followers = owner[order][listed]
    before = np.concatenate([[0], np.cumsum(listed)])
    column_end = np.cumsum(np.bincount(membership.indices, minlength=membership.shape[1]))
    last = membership.indptr[num_rows]
    start = before[place[:last] + 1]
    lengths = before[column_end[membership.indices[:last]]] - start

    pointers = membership.indptr[: num_rows + 1]
    terms = np.concatenate([[0], np.cumsum(lengths)])
    blocks = []
    row = 0
    while row < num_rows:
        limit = terms[pointers[row]] + TERMS_AT_ONCE
        stop = int(np.searchsorted(terms[pointers], limit, side="right")) - 1
        stop = min(max(stop, row + 1), num_rows)
        entries = slice(pointers[row], pointers[stop])
        inner = terms[pointers[row] : pointers[stop] + 1] - terms[pointers[row]]
        place_of_term = np.arange(inner[-1]) + np.repeat(
            start[entries] - inner[:-1], lengths[entries]
        )
        members = csr_array(
            (np.ones(inner[-1], np.float32), followers[place_of_term], inner),
            shape=(len(inner) - 1, num_columns),
        )
        smaller = csr_array(
            (
                membership.data[entries],
                np.arange(len(inner) - 1),
                pointers[row : stop + 1] - pointers[row],
            ),
            shape=(stop - row, len(inner) - 1),
        )
        blocks.append(smaller @ members)
        row = stop
    return vstack(blocks, format="csr")


def k_reciprocal_jaccard(rows: Tensor, *, k1: int, k2: int) -> csr_array[Any]:
    """Return the k-reciprocal Jaccard distances of all points, where they are below 1.

    Source: Zhong et al., Re-ranking with k-reciprocal Encoding, CVPR 2017, as SpCL and CMMT
    compute it: k1 neighbours with the point itself among them, distances not divided by their
    maximum, no original distance mixed in.

    Args:
        rows: ``[N, D]`` points, as a rule unit vectors; computed in float32.
        k1: Neighbours of a point, itself among them; 1 <= k1 <= N.
        k2: Neighbours over which memberships are averaged, the point itself among them; >= 1.

    Returns:
        ``[N, N]`` sparse float32, symmetric, as `jaccard_distances` returns it.

    Raises:
        ValueError: If there are fewer than ``k1`` points, or a point is not finite.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> distance = k_reciprocal_jaccard(rows, k1=2, k2=1)
        >>> distance[[0], [1]].round(2), distance.nnz  # only the first two have a common neighbour
        (array([0.33], dtype=float32), 5)
    """
    index, _ = nearest(rows, k1)
    neighbours = index.cpu().numpy()
    sets = expanded_sets(neighbours, k1)
    membership = memberships(sets, entry_distances(rows, sets))
    return jaccard_distances(averaged_memberships(membership, neighbours, k2))
