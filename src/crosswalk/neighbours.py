"""The k-reciprocal Jaccard distance of clustering and re-ranking.

A point and its neighbours often agree on a third that a plain distance would miss, so the distance
compares neighbourhoods: two points are near if the same points are nearest to both. Everything is
sparse: memory grows with the number of points, not with its square.

The pieces, in order: `crosswalk.nearest.nearest`, `expanded_sets` (of `reciprocal_sets`),
`entry_distances`, `memberships`, `averaged_memberships`, `jaccard_distances`;
`k_reciprocal_jaccard` is all of them as clustering uses them. Sparse matrices are
`scipy.sparse.csr_array` with sorted columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, triu, vstack
from torch import Tensor

from crosswalk.nearest import EXACT, nearest, pair_distances

TERMS_AT_ONCE = 2**18
"""Terms of the Jaccard sums that each thread holds at one time; more is slower."""


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


def entry_distances(
    rows: Tensor,
    sets: csr_array[Any],
    *,
    known: tuple[NDArray[np.int64], NDArray[np.float32]] | None = None,
) -> NDArray[np.float32]:
    """Return the squared distance of every pair that a sparse matrix stores, in its order.

    Args:
        rows: ``[N, D]`` points; computed in float32.
        sets: ``[N, N]`` sparse; the columns of a row sorted.
        known: ``[N, K]`` neighbours and squared distances, as of `crosswalk.nearest.nearest`;
            nearly all pairs of reciprocal sets are among them, and the others alone are computed.

    Returns:
        ``[entries]`` squared Euclidean distances.

    Example:
        >>> rows = torch.tensor([[0.0], [1.0], [3.0]])
        >>> entry_distances(rows, csr_array([[1, 1, 0], [0, 1, 1], [0, 0, 1]]))
        array([0., 1., 0., 4., 0.], dtype=float32)
    """
    rows = rows.detach().float()
    first = np.repeat(np.arange(sets.shape[0]), np.diff(sets.indptr))
    second = sets.indices.astype(np.int64)
    distance = np.empty(sets.nnz, np.float32)
    missing = np.arange(sets.nnz)
    if known is not None:
        wanted = first * sets.shape[1] + second
        pairs = (np.arange(len(rows))[:, None] * sets.shape[1] + known[0]).ravel()
        place = np.searchsorted(wanted, pairs)
        place[place == sets.nnz] = 0
        found = wanted[place] == pairs
        distance[place[found]] = known[1].ravel()[found]
        missing = np.setdiff1d(missing, place[found], assume_unique=True)
    distance[missing] = pair_distances(rows, first[missing], second[missing])
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


def jaccard_distances(
    membership: csr_array[Any], *, num_rows: int | None = None, largest: float = 1.0
) -> csr_array[Any]:
    """Return the Jaccard distances of fuzzy sets, where they are below 1.

    ``1 - m / (2 - m)`` with m the sum of the smaller memberships, cut off at 0. Sets without a
    common member have the distance 1 and are not stored; a stored distance may be 0.
    Source: Zhong et al., Re-ranking with k-reciprocal Encoding, CVPR 2017, eq. 10.

    Args:
        membership: ``[N, M]`` sparse float32; rows sum to 1.
        num_rows: Compare only the first so many sets with all; None: all with all.
        largest: Distances above it are not stored either; in (0, 1].

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
    columns = membership.tocsc()
    begin, end = columns.indptr[membership.indices], columns.indptr[membership.indices + 1]
    if num_rows is None:
        # Each pair once: in a column, a set meets itself and the later ones, which follow it.
        order = csr_array((np.arange(membership.nnz), membership.indices, membership.indptr))
        begin[order.tocsc().data] = np.arange(membership.nnz)
    count = membership.shape[0] if num_rows is None else num_rows
    pointers = membership.indptr[: count + 1].astype(np.int64)
    terms = np.concatenate([[0], np.cumsum(end - begin, dtype=np.int64)])

    def shared_in(block: tuple[int, int]) -> csr_array[Any]:
        first, stop = block
        entries = slice(pointers[first], pointers[stop])
        lengths = end[entries] - begin[entries]
        bounds = terms[pointers[first] : pointers[stop] + 1] - terms[pointers[first]]
        place = np.repeat(begin[entries] - bounds[:-1], lengths)
        place += np.arange(len(place))
        smaller = np.repeat(membership.data[entries], lengths)
        np.minimum(smaller, columns.data[place], out=smaller)
        members = len(bounds) - 1
        meetings = csr_array(
            (smaller, columns.indices[place], bounds), shape=(members, membership.shape[0])
        )
        own = csr_array(
            (
                np.ones(members, np.float32),
                np.arange(members),
                pointers[first : stop + 1] - pointers[first],
            ),
            shape=(stop - first, members),
        )
        shared = own @ meetings
        distance = _distance_of(shared.data)
        near = (distance <= largest) & (distance < 1)
        kept = np.concatenate([[0], np.cumsum(near)])[shared.indptr]
        return csr_array((shared.data[near], shared.indices[near], kept), shape=shared.shape)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        shared = vstack(list(pool.map(shared_in, _blocks(terms[pointers]))), format="csr")
    if num_rows is None:
        shared = shared + triu(shared, 1).T
    shared.sort_indices()
    shared.data = _distance_of(shared.data)  # only now: a sum of matrices drops stored zeros
    return shared


def _distance_of(shared: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return Jaccard distances; at least 0, where a sum of memberships is 1.0000001."""
    return np.asarray(np.maximum(1 - shared / (2 - shared), 0))


def _blocks(terms: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield first and one past the last row of blocks with no more than `TERMS_AT_ONCE` terms.

    Args:
        terms: ``[rows + 1]`` number of terms before each row.
    """
    first, count = 0, len(terms) - 1
    while first < count:
        limit = terms[first] + TERMS_AT_ONCE
        stop = max(int(np.searchsorted(terms, limit, side="right")) - 1, first + 1)
        yield first, stop
        first = stop


def k_reciprocal_jaccard(
    rows: Tensor, *, k1: int, k2: int, largest: float = 1.0, index: str = EXACT
) -> csr_array[Any]:
    """Return the k-reciprocal Jaccard distances of all points, where they are below 1.

    Source: Zhong et al., Re-ranking with k-reciprocal Encoding, CVPR 2017, as SpCL and CMMT
    compute it: k1 neighbours with the point itself among them, distances not divided by their
    maximum, no original distance mixed in.

    Args:
        rows: ``[N, D]`` points, as a rule unit vectors; computed in float32.
        k1: Neighbours of a point, itself among them; 1 <= k1 <= N.
        k2: Neighbours over which memberships are averaged, the point itself among them; >= 1.
        largest: Distances above it are not stored; in (0, 1].
        index: How neighbours are searched, see `crosswalk.nearest.nearest`.

    Returns:
        ``[N, N]`` sparse float32, symmetric, as `jaccard_distances` returns it.

    Raises:
        ValueError: See `crosswalk.nearest.nearest`.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> distance = k_reciprocal_jaccard(rows, k1=2, k2=1)
        >>> distance[[0], [1]].round(2), distance.nnz  # only the first two have a common neighbour
        (array([0.33], dtype=float32), 5)
    """
    found, squared_distance = nearest(rows, k1, index=index)
    neighbours = found.cpu().numpy()
    sets = expanded_sets(neighbours, k1)
    distance = entry_distances(rows, sets, known=(neighbours, squared_distance.cpu().numpy()))
    membership = averaged_memberships(memberships(sets, distance), neighbours, k2)
    return jaccard_distances(membership, largest=largest)
