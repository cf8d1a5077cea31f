"""The nearest points of every point, and the farthest one's distance.

A tile of products serves the points of its rows and those of its columns, so only half of them are
computed; of a tile, only products above the least closeness that a point has so far are looked at.
Many long points are compared in bfloat16 first, where the processor multiplies that several times
as fast: the few that can be among the nearest then get their distance in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crosswalk.compiled import compiled, for_each, threads

EXACT = "flat"
"""The exact search."""

ROWS_AT_ONCE = 1024
"""Points whose products with as many others are held at one time."""

POINTS_OF_A_GROUP = 128
"""Points whose products with them a thread looks at in one go."""

SCREENED_FROM = 4096
"""Points from which on they are compared in bfloat16 first."""

SPARE = 12
"""So many points beside twice as many as wanted are kept of those that may be among the nearest."""

PAIRS_AT_ONCE = 1024
"""Pairs of points whose distance is computed at one time: larger copies are new memory each time,
which takes longer than the distances."""

BFLOAT16_ERROR = 2.0**-8 / (1 - 2.0**-8)
"""Most by which a number differs from its bfloat16, relative to the latter."""


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
    rows = _points(rows, k)
    if index != EXACT:
        return _searched(rows, k, index)
    (near,) = _extremes(rows, [(1, k)])
    return near


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
    rows = _points(rows, k)
    near, (_, farthest) = _extremes(rows, [(1, k), (-1, min(2, len(rows)))])
    return *near, farthest[:, -1]  # behind the point itself


def pair_distances(
    rows: Tensor, first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the squared distance of the points of every pair.

    Args:
        rows: ``[N, D]`` float32 points.
        first: ``[pairs]`` one point of each; equal ones side by side are faster.
        second: ``[pairs]`` the other.

    Returns:
        ``[pairs]`` squared distances. Of as many points as are screened on the CPU, they are those
        of float64, rounded, as of `nearest`; else they are computed in float32.

    Example:
        >>> rows = torch.tensor([[0.0], [1.0], [3.0]])
        >>> pair_distances(rows, np.array([0, 2]), np.array([1, 1]))
        array([1., 4.], dtype=float32)
    """
    distance = np.empty(len(first), np.float32)
    if rows.device.type == "cpu" and len(rows) >= SCREENED_FROM:
        state = rows.contiguous().numpy(), first, second, distance
        with threads() as pool:
            starts = range(0, len(first), PAIRS_AT_ONCE)
            for_each(lambda start: _measure_pairs(start, PAIRS_AT_ONCE, *state), starts, pool)
        return distance
    for start in range(0, len(first), PAIRS_AT_ONCE):
        some = slice(start, start + PAIRS_AT_ONCE)
        one, other = (torch.from_numpy(end[some]).to(rows.device) for end in (first, second))
        distance[some] = (rows[one] - rows[other]).square().sum(dim=1).cpu().numpy()
    return distance


def _points(rows: Tensor, k: int) -> Tensor:
    """Return the points in float32, after checks."""
    if len(rows) < k:
        raise ValueError(
            f"{len(rows)} points have no {k} neighbours each, themselves included. Lower "
            "method.clustering.k1, or check that the whole training set was read."
        )
    rows = rows.detach().float()
    if not bool(_half_norm(rows).isfinite().all()):
        raise ValueError("points are not finite: the network has diverged. Lower optim.lr.")
    return rows


def _half_norm(rows: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norm.square() / 2


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


class _Kept(NamedTuple):
    """The nearest points found so far of every point.

    Attributes:
        place: ``[N, k]`` int64, the point itself among them; sorted only by `in_order`.
        closeness: ``[N, k]`` ``x . y - |y|^2 / 2`` of point x and its neighbour y, which orders
            neighbours as their distances do. With the other sign, it orders the farthest.
        half_norm: ``[N]`` half of the squared lengths, of that sign.
        sign: 1 for the nearest, -1 for the farthest.
    """

    place: Tensor
    closeness: Tensor
    half_norm: Tensor
    sign: int

    def in_order(self) -> _Kept:
        """Return the same with the nearest first, the point itself before them."""
        order = _by_key_and_place(-self.closeness, self.place)
        return self._replace(
            place=self.place.gather(1, order), closeness=self.closeness.gather(1, order)
        )

    def squared_distances(self) -> Tensor:
        """Return ``[N, k]`` squared distances, rounded as the products are."""
        distance = 2 * self.sign * (self.half_norm[:, None] - self.closeness)
        distance[:, 0] = 0
        return distance.clamp_(min=0)


def _by_key_and_place(key: Tensor, place: Tensor) -> Tensor:
    """Return ``[N, k]`` the order of each row by its key, of equal keys by the place."""
    order = place.argsort(dim=1)
    return order.gather(1, key.gather(1, order).argsort(dim=1, stable=True))


def _nothing_kept(half_norm: Tensor, width: int, sign: int) -> _Kept:
    place = torch.zeros(len(half_norm), width, dtype=torch.int64, device=half_norm.device)
    return _Kept(place, half_norm.new_full(place.shape, -torch.inf), sign * half_norm, sign)


def _extremes(rows: Tensor, wanted: Sequence[tuple[int, int]]) -> list[tuple[Tensor, Tensor]]:
    """Return places and squared distances of the nearest (1, k) and the farthest (-1, k) points."""
    widest = max(width for _, width in wanted)
    enough = len(rows) >= max(SCREENED_FROM, 2 * widest + SPARE)
    if enough and _multiplies_bfloat16(rows.device):
        return _screened(rows, wanted)
    kept = _kept_of_all(rows, _half_norm(rows), wanted)
    return [(each.place, each.squared_distances()) for each in kept]


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether products of bfloat16 are several times as fast as those of float32."""
    has_library = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    instructions = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type == "cpu" and has_library and instructions


def _screened(rows: Tensor, wanted: Sequence[tuple[int, int]]) -> list[tuple[Tensor, Tensor]]:
    """Return what `_extremes` does, by distances in float64 of those that may be among them.

    Where not all of these were kept, all products of the point are computed in float32.
    """
    low, half_norm, error = _in_bfloat16(rows)
    more = [(sign, 2 * width + SPARE) for sign, width in wanted]
    kept = _kept_of_all(low, half_norm, more)
    del low
    found = []
    for (sign, width), each in zip(wanted, kept, strict=True):
        place, distance, unsure = _measured(rows, each, width, error)
        if len(unsure):
            exact = _kept_of_some(rows, unsure, width, sign)
            place[unsure] = exact.place[unsure]
            distance[unsure] = exact.squared_distances()[unsure]
        found.append((place, distance))
    return found


def _in_bfloat16(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return points around their mean in bfloat16, half norms, and the errors of products.

    What moves all points moves no distance, and rounding is of what is left. That of the products
    themselves is not in the errors.
    """
    mean = rows.mean(dim=0)
    low = torch.empty(rows.shape, dtype=torch.bfloat16)
    norm, low_norm, lost = (rows.new_empty(len(rows)) for _ in range(3))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
        moved = rows[some] - mean
        low[some] = moved
        rounded = low[some].float()
        for part, value in ((norm, moved), (low_norm, rounded), (lost, moved - rounded)):
            torch.linalg.vector_norm(value, dim=1, out=part[some])
    largest = norm.max()
    # x . y - x' . y' = (x - x') . y' + x . (y - y')
    error = lost * low_norm.max() + norm * lost.max()
    # and whatever float32 does with it: sums of products, differences to the mean, norms
    error += (rows.shape[1] + 8) * 2.0**-23 * largest * (norm + largest)
    return low, norm.square() / 2, error


def _kept_of_all(rows: Tensor, half_norm: Tensor, wanted: Sequence[tuple[int, int]]) -> list[_Kept]:
    """Return the nearest and farthest by products of float32 or of bfloat16, in order."""
    kept = [_nothing_kept(half_norm, width, sign) for sign, width in wanted]
    keep = KEEPERS.get(rows.device.type, _keep_by_torch)
    size = min(ROWS_AT_ONCE, len(rows))
    blocks = [slice(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
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
            product = product.float()
            for each in kept:
                signed = product if each.sign > 0 else -product
                if above == beside:
                    signed.fill_diagonal_(torch.inf)  # itself first, whatever rounding says
                keep(each, signed, above, beside, pool)
    return [each.in_order() for each in kept]


def _kept_of_some(rows: Tensor, points: Tensor, width: int, sign: int) -> _Kept:
    """Return the nearest, or the farthest, of some points by products of float32, in order."""
    kept = _nothing_kept(_half_norm(rows), width, sign)
    with threads() as pool:
        for begin in range(0, len(points), ROWS_AT_ONCE):
            some = points[begin : begin + ROWS_AT_ONCE]
            for start in range(0, len(rows), ROWS_AT_ONCE):
                with full_precision():
                    product = sign * (rows[some] @ rows[start : start + ROWS_AT_ONCE].T)
                own = some - start
                inside = (own >= 0) & (own < product.shape[1])
                product[inside, own[inside]] = torch.inf
                _keep_groups(kept, product, some, start, pool)
    return kept.in_order()


def _measured(
    rows: Tensor, kept: _Kept, width: int, error: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return places and squared distances of the ``width`` nearest or farthest of those kept.

    And the points of which others may be among them.
    """
    distance = rows.new_zeros(kept.place.shape)
    count = torch.empty(len(rows), dtype=torch.int64)
    ends = kept.half_norm.min().item(), kept.half_norm.max().item()
    # those with a neighbour in common one after the other, while it is in the cache
    points = kept.place[:, :width].amin(dim=1).argsort(stable=True)
    given = (points, rows.contiguous(), *kept[:3], error)
    state = [part.numpy() for part in (*given, distance, count)]

    def measure(start: int) -> None:
        end = min(start + POINTS_OF_A_GROUP, len(rows))
        _measure(start, end, width, kept.sign, *ends, *state)

    with threads() as pool:
        for_each(measure, range(0, len(rows), POINTS_OF_A_GROUP), pool)
    beyond = torch.arange(kept.place.shape[1]) >= count[:, None]
    key = (kept.sign * distance).masked_fill_(beyond, torch.inf)
    key[:, 0] = -torch.inf  # itself first
    order = _by_key_and_place(key, kept.place)[:, :width]
    unsure = (count == kept.place.shape[1]).nonzero().flatten()
    return kept.place.gather(1, order), distance.gather(1, order), unsure


@compiled(
    "void(i8, i8, i8, i8, f8, f8, i8[::1], f4[:, ::1], i8[:, ::1], f4[:, ::1], f4[::1], f4[::1], "
    "f4[:, ::1], i8[::1])",
    any_order=True,
)
def _measure(
    begin: int,
    end: int,
    width: int,
    sign: int,
    least_half: float,
    most_half: float,
    points: NDArray[np.int64],
    rows: NDArray[np.float32],
    places: NDArray[np.int64],
    closeness: NDArray[np.float32],
    half_norm: NDArray[np.float32],
    error: NDArray[np.float32],
    distance: NDArray[np.float32],
    count: NDArray[np.int64],
) -> None:
    """Measure as many of the places as may be among the ``width`` nearest; count them."""
    for point in points[begin:end]:
        own = rows[point]
        worst = np.inf  # of the first ones, closeness
        slots = places.shape[1]
        for slot in range(slots):
            if slot >= width:
                screened = np.float64(closeness[point, slot])
                # what has this closeness at most had a product up to this one, which was rounded
                product = max(abs(screened + least_half), abs(screened + most_half))
                if screened + error[point] + BFLOAT16_ERROR * product < worst:
                    slots = slot
                    break
            other = rows[places[point, slot]]
            total = 0.0
            for part in range(len(own)):
                apart = np.float64(own[part]) - np.float64(other[part])
                total += apart * apart
            distance[point, slot] = total
            if 0 < slot < width:  # but itself
                worst = min(worst, half_norm[point] - sign * total / 2)
        count[point] = slots


@compiled("void(i8, i8, f4[:, ::1], i8[::1], i8[::1], f4[::1])", any_order=True)
def _measure_pairs(
    begin: int,
    number: int,
    rows: NDArray[np.float32],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    distance: NDArray[np.float32],
) -> None:
    for pair in range(begin, min(begin + number, len(first))):
        own, other = rows[first[pair]], rows[second[pair]]
        total = 0.0
        for part in range(len(own)):
            apart = np.float64(own[part]) - np.float64(other[part])
            total += apart * apart
        distance[pair] = total


def _keep_compiled(
    kept: _Kept, product: Tensor, above: slice, beside: slice, pool: ThreadPoolExecutor | None
) -> None:
    """Take the nearest points from a tile by compiled loops, in threads."""
    below, right = (torch.arange(each.start, each.stop) for each in (above, beside))
    _keep_groups(kept, product, below, beside.start, pool)
    if above != beside:
        _keep_groups(kept, product, right, above.start, pool, by_column=True)


def _keep_groups(
    kept: _Kept,
    product: Tensor,
    points: Tensor,
    first: int,
    pool: ThreadPoolExecutor | None,
    *,
    by_column: bool = False,
) -> None:
    """Look at products of some points, each a row or a column, with those from ``first`` on."""
    values, *state = (part.numpy() for part in (product, points, *kept[:3]))

    def keep(start: int) -> None:
        end = min(start + POINTS_OF_A_GROUP, len(points))
        _keep(values, by_column, start, end, first, *state)

    for_each(keep, range(0, len(points), POINTS_OF_A_GROUP), pool)


@compiled(
    "void(f4[:, ::1], b1, i8, i8, i8, i8[::1], i8[:, ::1], f4[:, ::1], f4[::1])",
)
def _keep(
    product: NDArray[np.float32],
    by_column: bool,
    begin: int,
    end: int,
    first: int,
    points: NDArray[np.int64],
    places: NDArray[np.int64],
    closeness: NDArray[np.float32],
    half_norm: NDArray[np.float32],
) -> None:
    """Look at the products of the points from number ``begin`` on, as they lie in memory.

    Those of a point are a heap with the farthest, of equally near ones that of the largest index,
    at its root.
    """
    last = places.shape[1] - 1
    # what a product needs to be looked at, and what is taken from it
    if by_column:
        lines, width = product.shape[0], end - begin
        shift, bound = np.empty(width, np.float32), closeness[points[begin:end], 0]
    else:
        lines, width = end - begin, product.shape[1]
        shift, bound = half_norm[first : first + width], np.empty(width, np.float32)
    point, other = points[begin], first
    for line in range(lines):
        if by_column:
            values, other = product[line, begin:end], first + line
            shift[:] = half_norm[other]
        else:
            values, point = product[begin + line], points[begin + line]
        for edge in range(0, width, 64):
            chunk, less, least = (
                values[edge : edge + 64],
                shift[edge : edge + 64],
                bound[edge : edge + 64],
            )
            if not by_column:
                least[:] = closeness[point, 0]
            found = np.int32(0)
            for at in range(len(chunk)):
                found = np.int32(found + (chunk[at] - less[at] >= least[at]))
            if found == 0:
                continue
            for at in range(len(chunk)):
                value = chunk[at] - less[at]
                if value < least[at]:
                    continue
                if by_column:
                    point = points[begin + edge + at]
                else:
                    other = first + edge + at
                best, names = closeness[point], places[point]
                if value == best[0] and other > names[0]:
                    continue
                hole, child = 0, 1
                while child <= last:
                    if child < last and (
                        best[child + 1] < best[child]
                        or (best[child + 1] == best[child] and names[child + 1] > names[child])
                    ):
                        child += 1
                    if best[child] > value or (best[child] == value and names[child] < other):
                        break
                    best[hole], names[hole] = best[child], names[child]
                    hole, child = child, 2 * child + 1
                best[hole], names[hole] = value, other
                if by_column:
                    least[at] = best[0]
                else:
                    least[:] = best[0]


def _keep_by_torch(
    kept: _Kept, product: Tensor, above: slice, beside: slice, pool: ThreadPoolExecutor | None
) -> None:
    """Take the nearest points from a tile by operations on all of it, on any device."""
    index, closeness, half_norm, _ = kept
    k = index.shape[1]
    if above == beside:
        product = product - half_norm[above]
        found = min(k, len(product))
        closeness[above, :found], place = product.topk(found)
        index[above, :found] = place + above.start
        return

    def merge(some: slice, product: Tensor, others: slice) -> None:
        """Take what ``product`` of some points and others has for the former."""
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


KEEPERS: dict[str, Callable[[_Kept, Tensor, slice, slice, ThreadPoolExecutor | None], None]] = {
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
