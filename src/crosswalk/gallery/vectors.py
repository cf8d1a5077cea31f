"""Vectors of an embedded store: one append-only file of float32 per view, searched exactly."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crosswalk.files import sync_to_disk
from crosswalk.gallery.damage import damaged

TILE_BYTES = 16 << 20
"""Of vectors or of similarities that are looked at together; from 32 MB on, each would be memory
fetched anew from the system."""
QUERIES_AT_ONCE = 512
PAIRS_AT_ONCE = 512
"""Pairs whose exact scores are computed together."""
FIRST_ROWS, GROWTH = 16_384, 4
"""Rows of the first tile, which is small so that there soon is a worst of the best, and how much
larger the next one is: it brings three times as many as are wanted near the best."""
FEW = 32
"""Rows of a tile that are scored without a closer look, per query."""
SPARSE = 4
"""Where one row in so many is to be compared, those rows alone are read."""


class VectorFile:
    """The vectors of a view. Row n begins at byte ``4 * dim * n``."""

    def __init__(self, path: Path, dim: int) -> None:
        self.path, self.dim = path, dim

    def mapped(self, end: int) -> NDArray[np.float32]:
        """Return ``[end, dim]`` vectors, which lie in the file and take no memory.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is shorter.
        """
        size = self.path.stat().st_size
        if not self.path.is_file():
            raise damaged(self.path, "it is no file")
        if size < 4 * self.dim * end:
            raise damaged(
                self.path,
                f"it is cut off: {end:,} vectors of length {self.dim} have "
                f"{4 * self.dim * end:,} bytes, and it has {size:,}",
            )
        if end == 0:
            return np.empty((0, self.dim), np.float32)
        return np.memmap(self.path, np.dtype("<f4"), mode="r", shape=(end, self.dim))

    def append(self, vectors: NDArray[np.float32], end: int) -> None:
        """Write vectors to the disk, behind the first ``end``; what lay there was not confirmed."""
        if not self.path.exists() and end:
            raise damaged(self.path, "it is missing")
        created = not self.path.exists()
        with self.path.open("wb" if created else "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size < 4 * self.dim * end:
                raise damaged(self.path, f"it is cut off after {size:,} bytes")
            file.truncate(4 * self.dim * end)
            file.seek(0, os.SEEK_END)
            file.write(np.ascontiguousarray(vectors, np.dtype("<f4")).data)
            file.flush()
            os.fsync(file.fileno())
        if created:
            sync_to_disk(self.path.parent)


def exact_scores(
    query: NDArray[np.float32],
    vectors: NDArray[np.float32],
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> NDArray[np.float32]:
    """Return ``[pairs]`` products of queries and rows, to the nearest float32.

    A matrix product rounds by where a row stands, and may so tell equal rows apart; these scores
    depend on nothing but the two vectors.

    Args:
        query: ``[queries, dim]``.
        vectors: ``[rows, dim]``.
        pairs: ``[pairs]`` queries, and rows.

    Example:
        >>> rows = np.eye(2, dtype=np.float32)
        >>> exact_scores(rows, rows, (np.array([0, 0]), np.array([0, 1])))
        array([1., 0.], dtype=float32)
    """
    scores = np.empty(len(pairs[0]), np.float32)
    for start in range(0, len(scores), PAIRS_AT_ONCE):
        some = slice(start, start + PAIRS_AT_ONCE)
        one, other = query[pairs[0][some]], vectors[pairs[1][some]]
        scores[some] = np.vecdot(one.astype(np.float64), other.astype(np.float64))
    return scores


def first_of(
    place: NDArray[np.int64],
    rows: NDArray[np.int64],
    scores: NDArray[np.float32],
    shape: tuple[int, int],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the best of what was found, ``[queries, k]`` rows and scores.

    Of equal scores the lower row is ahead; -1 and -inf stand where fewer were found.

    Args:
        place: ``[pairs]`` queries.
        rows: ``[pairs]``, no pair twice.
        scores: ``[pairs]``.
        shape: How many queries, and k.

    Example:
        >>> first_of(np.array([0, 0]), np.array([5, 2]), np.array([0.5, 0.5]), (1, 3))
        (array([[ 2,  5, -1]]), array([[ 0.5,  0.5, -inf]], dtype=float32))
    """
    best, score = np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
    order = np.lexsort((rows, -scores, place))
    place = place[order]
    rank = np.arange(len(place)) - np.searchsorted(place, place)
    kept = rank < shape[1]
    best[place[kept], rank[kept]] = rows[order][kept]
    score[place[kept], rank[kept]] = scores[order][kept]
    return best, score


def nearest(
    query: NDArray[np.float32],
    vectors: NDArray[np.float32],
    k: int,
    *,
    mask: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows with the greatest products, compared with all, and these products.

    A tile of rows at a time; rows that a float32 product brings near the best ones are scored by
    `exact_scores`, so a result depends neither on the tiles nor on the other queries.

    Args:
        query: ``[queries, dim]`` unit vectors.
        vectors: ``[rows, dim]`` unit vectors.
        k: At least 1; may be more than there are rows.
        mask: ``[rows]`` true where a row may be found.

    Returns:
        ``[queries, k]`` rows and scores, best first, of equal ones the lower row; -1 and -inf
        behind the last.

    Example:
        >>> rows = np.array([[0, 1], [1, 0], [1, 0]], np.float32)
        >>> nearest(rows[1:2], rows, 2, mask=np.array([True, True, True]))
        (array([[1, 2]]), array([[1., 1.]], dtype=float32))
    """
    if len(query) > QUERIES_AT_ONCE:
        parts = [
            nearest(query[start : start + QUERIES_AT_ONCE], vectors, k, mask=mask)
            for start in range(0, len(query), QUERIES_AT_ONCE)
        ]
        return np.concatenate([rows for rows, _ in parts]), np.concatenate([s for _, s in parts])
    shape = (len(query), k)
    best, score = np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
    chosen = np.flatnonzero(mask)
    if len(query) == 0 or len(chosen) == 0:
        return best, score
    if k > len(chosen):
        few = nearest(query, vectors, len(chosen), mask=mask)
        best[:, : len(chosen)], score[:, : len(chosen)] = few
        return best, score
    sparse = SPARSE * len(chosen) < len(mask)
    length = len(chosen) if sparse else len(mask)
    # rows that lie side by side are multiplied where they are, the more at once the quicker
    widest = max(len(query), vectors.shape[1] if sparse else 1)
    most, tile_rows = max(1, TILE_BYTES // (4 * widest)), FIRST_ROWS
    # no float32 sum of so many terms is further off, in whatever order
    rounding = np.float32(1.1 * vectors.shape[1] * 2.0**-24)
    start = stop = 0
    while stop < length:
        start, stop = stop, min(stop + min(tile_rows, most), length)
        tile_rows *= GROWTH
        similarity = query @ vectors[chosen[start:stop] if sparse else slice(start, stop)].T
        if not sparse and not mask[start:stop].all():
            similarity[:, ~mask[start:stop]] = -np.inf
        place, column = _near_the_best(similarity, score[:, -1], k, rounding)
        if len(place) == 0:
            continue
        old = np.nonzero(best >= 0)
        found = chosen[start + column] if sparse else start + column
        best, score = first_of(
            np.concatenate([old[0], place]),
            np.concatenate([best[old], found]),
            np.concatenate([score[old], exact_scores(query, vectors, (place, found))]),
            shape,
        )
    return best, score


def _near_the_best(
    similarity: NDArray[np.float32], least: NDArray[np.float32], k: int, rounding: np.float32
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return queries and columns of a tile that may be among the best.

    Args:
        similarity: ``[queries, columns]`` products of float32; -inf where a row does not count.
        least: ``[queries]`` score of the worst of the best so far; -inf while there are fewer.
        k: So many are wanted.
        rounding: How far off a product may be.
    """
    columns = similarity.shape[1]
    floor = np.maximum(least - rounding, np.finfo(np.float32).min)[:, None]
    near = similarity >= floor
    if k < columns and np.count_nonzero(near) > FEW * len(similarity):
        # at least k of this tile are not below the k-th product of it
        kth = np.partition(similarity, columns - k, axis=1)[:, columns - k, None]
        near &= similarity >= kth - 2 * rounding
    place, column = np.divmod(np.flatnonzero(near), columns)
    return place, column
