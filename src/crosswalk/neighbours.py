"""Nearest neighbours, and the k-reciprocal Jaccard distance of clustering and re-ranking.

A point and its neighbours often agree on a third that a plain distance would miss, so the distance
compares neighbourhoods: two points are near if the same points are nearest to both. Everything is
sparse: memory grows with the number of points, not with its square.

The pieces, in order: `nearest`, `expanded_sets` (of `reciprocal_sets`), `entry_distances`,
`memberships`, `averaged_memberships`, `jaccard_distances`; `k_reciprocal_jaccard` is all of them
as clustering uses them. Sparse matrices are `scipy.sparse.csr_array` with sorted columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, triu, vstack
from torch import Tensor

from crosswalk.compiled import compiled, threads

EXACT = "flat"
"""The exact search."""

ROWS_AT_ONCE = 1024
"""Points whose products with as many others are held at one time."""

POINTS_OF_A_GROUP = 64
"""Points whose products with them a thread looks at in one go."""

PAIRS_AT_ONCE = 1024
"""Pairs of points whose distance is computed at one time: larger copies are new memory each time,
which takes longer than the distances."""

TERMS_AT_ONCE = 2**18
"""Terms of the Jaccard sums that each thread holds at one time; more is slower."""


def nearest(rows: Tensor, k: int, *, index: str = EXACT) -> tuple[Tensor, Tensor]:
    """Return the k nearest points of every point, itself first, and their squared distances.

    The exact search takes the time of all products, on the device of the points. An index of
    faiss, on the CPU, misses some neighbours and is for sets too large for that.

    Args:
        rows: ``[N, D]`` points; computed in float32.
        k: Neighbours, the point itself among them; 1 <= k <= N.
        index: ``"flat"`` for the exact search, or a factory string of faiss and, after a
            semicolon, its search parameters, such as ``"IVF1024,Flat;nprobe=32"``.

    Returns:
        ``[N, k]`` int64 indices by rising distance, and ``[N, k]`` float32 squared distances.

    Raises:
        ValueError: If there are fewer than ``k`` points, a point is not finite, or faiss does not
            know the index, or the index finds fewer than ``k`` neighbours of a point.

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
    rows, half_norm = _points(rows, k)
    if index != EXACT:
        return _searched(rows, k, index)
    found = _closest(rows, half_norm, k)
    return found.place, _squared_distances(half_norm, found.closeness)


def nearest_and_farthest(rows: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the exact `nearest` does, and each point's squared distance to the farthest.

    Args:
        rows: ``[N, D]`` points; computed in float32.
        k: Neighbours, the point itself among them; 1 <= k <= N.

    Returns:
        ``[N, k]`` int64 indices by rising distance, their ``[N, k]`` float32 squared distances,
        and ``[N]`` float32.

    Raises:
        ValueError: If there are fewer than ``k`` points, or a point is not finite.

    Example:
        >>> nearest_and_farthest(torch.tensor([[0.0], [1.0], [3.0]]), 1)[2]
        tensor([9., 4., 9.])
    """
    rows, half_norm = _points(rows, k)
    found = _closest(rows, half_norm, k, farthest=True)
    farthest = 2 * (half_norm - found.least)
    return found.place, _squared_distances(half_norm, found.closeness), farthest.clamp_(min=0)


def _points(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the points in float32 and half of their squared lengths, after checks."""
    if len(rows) < k:
        raise ValueError(
            f"{len(rows)} points have no {k} neighbours each, themselves included. Lower "
            "method.clustering.k1, or check that the whole training set was read."
        )
    rows = rows.detach().float()
    half_norm = torch.linalg.vector_norm(rows, dim=1).square() / 2
    if not bool(half_norm.isfinite().all()):
        raise ValueError("points are not finite: the network has diverged. Lower optim.lr.")
    return rows, half_norm


def _squared_distances(half_norm: Tensor, closeness: Tensor) -> Tensor:
    distance = 2 * (half_norm[:, None] - closeness)
    distance[:, 0] = 0
    return distance.clamp_(min=0)


def _searched(rows: Tensor, k: int, description: str) -> tuple[Tensor, Tensor]:
    """Return what an index of faiss finds, each point itself first whether found or not."""
    import faiss  # 0.1 s that an exact search need not wait for

    factory, _, parameters = description.partition(";")
    points = np.ascontiguousarray(rows.cpu().numpy())
    try:
        index = faiss.index_factory(points.shape[1], factory)
        index.train(points)
        index.add(points)
        if parameters:
            space = faiss.ParameterSpace()
            space.set_index_parameters(index, parameters)  # type: ignore[arg-type,unused-ignore]
    except RuntimeError as error:
        raise ValueError(
            f"method.clustering.index={description!r}: faiss cannot build this for {len(points)} "
            f"points of length {points.shape[1]}: {error}"
        ) from error
    distance, found = index.search(points, k)
    own = np.arange(len(points))
    lost = ~(found == own[:, None]).any(axis=1)
    found[lost, -1] = own[lost]
    if found.min() < 0:
        raise ValueError(
            f"method.clustering.index={description!r} finds fewer than {k} neighbours of "
            f"{int((found < 0).any(axis=1).sum())} points. Search more of it, such as with "
            f"method.clustering.index='{factory};nprobe=64', or take the index {EXACT}."
        )
    distance[found == own[:, None]] = -1
    order = distance.argsort(axis=1, kind="stable")
    distance = np.take_along_axis(distance, order, axis=1).clip(min=0)
    found = np.take_along_axis(found, order, axis=1)
    return torch.from_numpy(found).to(rows.device), torch.from_numpy(distance).to(rows.device)


class _Nearest(NamedTuple):
    """The nearest points found so far of every point.

    Attributes:
        place: ``[N, k]`` int64, the nearest first.
        closeness: ``[N, k]`` ``x . y - |y|^2 / 2`` of point x and its neighbour y, which orders
            neighbours as their distances do.
        least: ``[N]`` the closeness to the farthest point, or empty.
        half_norm: ``[N]`` half of the squared lengths.
    """

    place: Tensor
    closeness: Tensor
    least: Tensor
    half_norm: Tensor


def _closest(rows: Tensor, half_norm: Tensor, k: int, *, farthest: bool = False) -> _Nearest:
    """Return the nearest points, itself first.

    A tile of products serves the points of its rows and those of its columns, so only half of the
    tiles are computed; of a tile, only products above the least closeness that a point has so far
    are looked at.
    """
    nearest = _Nearest(
        rows.new_zeros(len(rows), k, dtype=torch.int64),
        rows.new_full((len(rows), k), -torch.inf),
        rows.new_full((len(rows) if farthest else 0,), torch.inf),
        half_norm,
    )
    keep = KEEPERS.get(rows.device.type, _keep_by_torch)
    size = min(ROWS_AT_ONCE, len(rows))
    blocks = [slice(start, start + size) for start in range(0, len(rows), size)]
    tile = rows.new_empty(size * size)
    # first those on the diagonal, so that there is a least closeness
    pairs = [(block, block) for block in blocks]
    pairs += [(above, beside) for n, above in enumerate(blocks) for beside in blocks[n + 1 :]]
    with threads() as pool:
        for above, beside in pairs:
            left, right = rows[above], rows[beside]
            product = tile[: len(left) * len(right)].view(len(left), len(right))
            with torch.autocast(rows.device.type, enabled=False), full_precision():
                torch.mm(left, right.T, out=product)
            keep(nearest, product, above, beside, pool)
    return nearest


def _keep_compiled(
    nearest: _Nearest, product: Tensor, above: slice, beside: slice, pool: ThreadPoolExecutor | None
) -> None:
    """Take the nearest points from a tile by compiled loops, in threads."""
    state = tuple(part.numpy() for part in nearest)
    values = product.numpy()

    def keep_group(group: tuple[NDArray[np.float32], int, int]) -> None:
        # contiguous: a group of columns is turned into rows while it stays in a core's cache
        some, begin, first = group
        _keep_rows(np.ascontiguousarray(some), begin, first, *state)

    groups = []
    sides = [(values, above.start, beside.start), (values.T, beside.start, above.start)]
    for some, begin, first in sides[: 1 if above == beside else 2]:
        for start in range(0, len(some), POINTS_OF_A_GROUP):
            groups.append((some[start : start + POINTS_OF_A_GROUP], begin + start, first))
    for _ in map(keep_group, groups) if pool is None else pool.map(keep_group, groups):
        pass


@compiled("void(f4[:, ::1], i8, i8, i8[:, ::1], f4[:, ::1], f4[::1], f4[::1])")
def _keep_rows(
    product: NDArray[np.float32],
    begin: int,
    first: int,
    index: NDArray[np.int64],
    closeness: NDArray[np.float32],
    least: NDArray[np.float32],
    half_norm: NDArray[np.float32],
) -> None:
    """Look at products of the points from ``begin`` on with those from ``first`` on.

    Of equally near points, the one with the smaller index is ahead.
    """
    number, width = product.shape
    row = np.empty(width, np.float32)
    last = index.shape[1] - 1
    others = half_norm[first : first + width]
    for place in range(number):
        point = begin + place
        for other in range(width):
            row[other] = product[place, other] - others[other]
        if len(least):
            low = least[point]
            for edge in range(0, width, 64):
                chunk = row[edge : edge + 64]
                found = np.int32(0)
                for other in range(len(chunk)):
                    found = np.int32(found + (chunk[other] < low))
                if found:
                    for other in range(len(chunk)):
                        low = min(low, chunk[other])
            least[point] = low
        if first <= point < first + width:
            row[point - first] = np.inf  # itself first, whatever rounding says
        best, names = closeness[point], index[point]
        for edge in range(0, width, 64):
            chunk = row[edge : edge + 64]
            bound = best[last]
            found = np.int32(0)
            for other in range(len(chunk)):
                found = np.int32(found + (chunk[other] >= bound))
            if found == 0:
                continue
            for other in range(len(chunk)):
                value, name = chunk[other], first + edge + other
                slot = last + 1
                while slot > 0 and (
                    value > best[slot - 1] or (value == best[slot - 1] and name < names[slot - 1])
                ):
                    slot -= 1
                if slot <= last:
                    for moved in range(last, slot, -1):
                        best[moved], names[moved] = best[moved - 1], names[moved - 1]
                    best[slot], names[slot] = value, name


def _keep_by_torch(
    nearest: _Nearest, product: Tensor, above: slice, beside: slice, pool: ThreadPoolExecutor | None
) -> None:
    """Take the nearest points from a tile by operations on all of it, on any device."""
    index, closeness, least, half_norm = nearest
    k = index.shape[1]
    if above == beside:
        product = product - half_norm[above]
        if len(least):
            least[above] = product.amin(dim=1)
        product.fill_diagonal_(torch.inf)  # itself first, whatever rounding says
        found = min(k, len(product))
        closeness[above, :found], place = product.topk(found)
        index[above, :found] = place + above.start
        return

    def merge(some: slice, product: Tensor, others: slice) -> None:
        """Take what ``product`` of some points and others has for the former."""
        if len(least):
            ends = (product - half_norm[others]).amin(dim=1)
            least[some] = torch.minimum(least[some], ends)
        # No product below it can help; exactly that, if all points are equally long.
        bound = closeness[some, -1] + half_norm[others].min()
        # Asking in the order of memory is faster than sorting the few that are found is slow.
        if product.is_contiguous():
            point, other = (product > bound[:, None]).nonzero().unbind(1)
        else:
            other, point = (bound < product.T).nonzero().unbind(1)
            order = point.argsort(stable=True)
            point, other = point[order], other[order]
        if not len(point):
            return
        counts = point.bincount(minlength=len(product))
        place = torch.arange(len(point), device=index.device)
        place -= (counts.cumsum(0) - counts)[point]
        width = k + int(counts.max())
        values = closeness.new_full((len(product), width), -torch.inf)
        names = index.new_zeros(len(product), width)
        values[:, :k], names[:, :k] = closeness[some], index[some]
        values[point, k + place] = product[point, other] - half_norm[others][other]
        names[point, k + place] = other + others.start
        closeness[some], chosen = values.topk(k)
        index[some] = names.gather(1, chosen)

    merge(above, product, beside)
    merge(beside, product.T, above)


KEEPERS: dict[str, Callable[[_Nearest, Tensor, slice, slice, ThreadPoolExecutor | None], None]] = {
    "cpu": _keep_compiled
}
"""By the type of the device; all others use operations of torch."""


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply in float32 proper, whatever the training step allows itself.

    Example:
        >>> with full_precision():
        ...     torch.get_float32_matmul_precision()
        'highest'
    """
    chosen = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(chosen)


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
        known: ``[N, K]`` neighbours and squared distances, as of `nearest`; nearly all pairs of
            reciprocal sets are among them, and the others alone are computed.

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
    for start in range(0, len(missing), PAIRS_AT_ONCE):
        some = missing[start : start + PAIRS_AT_ONCE]
        one, other = (torch.from_numpy(end[some]).to(rows.device) for end in (first, second))
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
        index: How neighbours are searched, see `nearest`.

    Returns:
        ``[N, N]`` sparse float32, symmetric, as `jaccard_distances` returns it.

    Raises:
        ValueError: See `nearest`.

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
