"""Ranks a gallery for every query, without ever holding or sorting the whole similarity matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from crosswalk.metrics.average_precision import (
    EXTRA_MAP,
    MatchPlaces,
    average_precision,
    check_extra_map,
)
from crosswalk.neighbours import full_precision
from crosswalk.words import counted

TILE_BYTES = 80 * 2**20
"""Size of the similarities computed at one time: large tiles multiply faster."""
COPY_BYTES = 8 * 2**20
"""Size of given similarities copied at one time: small ones reuse memory."""
TILE_ROWS = 1024
"""Queries of a tile; more do not multiply faster."""
GROUP_BYTES = 2 * 2**20
"""Size of the comparisons held at one time by one thread: they should stay in its cache."""
NUM_CLASSES = 256
"""Columns are padded to a multiple of this; ranking lists up to this long need no sorting."""
MANY_MATCHES = 256
"""With more matches than this, sorting the row takes less time than comparing per match."""
MOST_PAIRS = 2**20
"""Same-person (query, gallery) pairs looked at together."""


class Ranking(NamedTuple):
    """What became of every query; row i belongs to query i.

    Ranks count from 1. A gallery item is ahead of another if its similarity is greater, or equal
    and its place in the gallery earlier, so results never depend on a sorting algorithm.

    Attributes:
        num_matches: ``[queries]`` gallery items of the same person that are not ignored.
        first_hit: ``[queries]`` rank of the best match, 0 without a match.
        average_precision: ``[queries]`` mean over matches of the precision at the match's
            rank, in [0, 1]; NaN without a match.
        extra_average_precision: The same by further definitions, by their names in `EXTRA_MAP`.
        inverse_negative_penalty: ``[queries]`` matches divided by the rank of the last one, in
            [0, 1]; NaN without a match.
        top_index: ``[queries, topk]`` places in the gallery of the best items, best first, ignored
            ones left out; -1 where fewer are left.
        top_score: ``[queries, topk]`` their similarities; -inf where fewer are left.
        best_score: ``[queries]`` similarity of the first item, whoever it shows; -inf if every
            item is ignored.
        best_other_score: ``[queries]`` similarity of the first item of another person: that of the
            first item, had the query's person not been in the gallery; -inf if nobody else is.
    """

    num_matches: NDArray[np.int64]
    first_hit: NDArray[np.int64]
    average_precision: NDArray[np.float64]
    extra_average_precision: dict[str, NDArray[np.float64]]
    inverse_negative_penalty: NDArray[np.float64]
    top_index: NDArray[np.int64]
    top_score: NDArray[np.floating[Any]]
    best_score: NDArray[np.floating[Any]]
    best_other_score: NDArray[np.floating[Any]]

    @property
    def valid(self) -> NDArray[np.bool_]:
        """``[queries]`` bool, true where a query has a match."""
        return self.num_matches > 0


class Rescoring(NamedTuple):
    """Scores of a re-ranking: ``offset + slope * similarity + bonus``, greater is more similar.

    The similarities themselves are never stored, and most items get no bonus.

    Attributes:
        offset: ``[queries]``; it changes no rank, only the scores of the ranking lists.
        slope: ``[queries]`` >= 0.
        bonus: ``[queries, gallery]`` CSR, each item of a row once.
    """

    offset: NDArray[np.float64]
    slope: NDArray[np.float64]
    bonus: sparse.csr_array


class _Labels(NamedTuple):
    """Who is on each picture, and where the matches of each person lie in the gallery."""

    query_person_id: Tensor
    query_camera_id: Tensor | None
    gallery_camera_id: Tensor | None
    junk: Tensor  # gallery places of person -1
    by_person: Tensor  # gallery places, grouped by person
    start: Tensor  # [queries] where the query's person starts in `by_person`
    num_places: Tensor  # [queries] how many places that person has
    query_picture: Tensor | None = None
    gallery_picture: Tensor | None = None


def rank_embeddings(
    query: Tensor,
    gallery: Tensor,
    *,
    query_person_id: Tensor,
    gallery_person_id: Tensor,
    query_camera_id: Tensor | None = None,
    gallery_camera_id: Tensor | None = None,
    query_picture: Tensor | None = None,
    gallery_picture: Tensor | None = None,
    num_views: int = 1,
    topk: int = 10,
    extra_map: Sequence[str] = (),
    rescoring: Rescoring | None = None,
    tile_bytes: int = TILE_BYTES,
) -> Ranking:
    """Return the ranking of all queries by the cosine of their embeddings.

    Similarities are computed tile by tile; in a tile, the rank of a match is the number of
    gallery items ahead of it, which needs no sorting. Time is close to that of the matrix product,
    memory does not depend on the number of queries.

    Args:
        query: ``[queries, D]`` unit vectors, or the concatenation of ``num_views`` unit vectors.
        gallery: ``[gallery, D]`` the same, on the same device.
        query_person_id: ``[queries]`` int64.
        gallery_person_id: ``[gallery]`` int64; -1 marks junk (bad detections), which is neither
            right nor wrong and is ignored. Distractors have a person id of their own.
        query_camera_id: ``[queries]`` int64, or None: with cameras, a gallery item of the same
            person and the same camera as the query is ignored. Cameras below 0 are unknown and
            never the same.
        gallery_camera_id: ``[gallery]`` int64, or None.
        query_picture: ``[queries]`` int64, or None: a gallery item that is the picture of the
            query is ignored. Pictures below 0 are never the same.
        gallery_picture: ``[gallery]`` int64, or None.
        num_views: The similarity is the mean over this many concatenated unit vectors.
        topk: Length of the ranking lists that are returned.
        extra_map: Definitions of average precision measured beside the usual one, names from
            `EXTRA_MAP`.
        rescoring: A re-ranking of these queries and this gallery
            (`crosswalk.metrics.reranking`), by whose scores the gallery is ranked instead.
        tile_bytes: Size of the similarities held at one time.

    Raises:
        ValueError: If shapes disagree, embeddings are not finite, no query has a match, or
            ``extra_map`` holds an unknown name.

    Example:
        >>> ranking = rank_embeddings(
        ...     torch.tensor([[1.0, 0.0]]),
        ...     torch.tensor([[0.6, 0.8], [1.0, 0.0], [0.8, 0.6]]),
        ...     query_person_id=torch.tensor([7]),
        ...     gallery_person_id=torch.tensor([7, 3, 7]),
        ... )
        >>> ranking.first_hit, ranking.average_precision.round(4)
        (array([2]), array([0.5833]))
    """
    check_widths(query, gallery)
    dtype = _dtype(query)
    gallery = gallery.to(dtype)

    def fill(rows: Tensor, scores: Tensor) -> None:
        multiply_rows(query[rows.to(query.device)].to(dtype) / num_views, gallery, scores)
        # A bad gallery vector spoils every row and a bad query its whole row.
        if not bool(scores[0].isfinite().all() & scores[:, 0].isfinite().all()):
            for role, vectors in (("query", query), ("gallery", gallery)):
                bad = (~vectors.isfinite().all(dim=1)).nonzero().flatten().tolist()
                if bad:
                    raise ValueError(
                        f"{len(bad)} {role} embeddings are NaN or infinite (first: {bad[:5]}). The "
                        "encoder has diverged: lower the learning rate or use trainer.precision=32."
                    )
        if rescoring is not None:
            _rescore(rescoring, rows.numpy(), scores.numpy())

    size = (len(query), len(gallery))
    labels = _index_labels(
        size, query_person_id, gallery_person_id, query_camera_id, gallery_camera_id
    )
    if query_picture is not None and gallery_picture is not None:
        pictures = {"query_picture": query_picture.cpu(), "gallery_picture": gallery_picture.cpu()}
        labels = labels._replace(**pictures)
    return _rank(fill, size, dtype, labels, topk, extra_map, tile_bytes)


def rank_similarity(
    similarity: Tensor,
    *,
    query_person_id: Tensor,
    gallery_person_id: Tensor,
    query_camera_id: Tensor | None = None,
    gallery_camera_id: Tensor | None = None,
    topk: int = 10,
    extra_map: Sequence[str] = (),
    tile_bytes: int = COPY_BYTES,
) -> Ranking:
    """Return the ranking of all queries by given similarities (see `rank_embeddings`).

    Args:
        similarity: ``[queries, gallery]``, any finite numbers, greater is more similar.
        query_person_id: ``[queries]`` int64.
        gallery_person_id: ``[gallery]`` int64, -1 for junk.
        query_camera_id: ``[queries]`` int64, or None.
        gallery_camera_id: ``[gallery]`` int64, or None.
        topk: Length of the ranking lists that are returned.
        extra_map: Definitions of average precision measured beside the usual one, names from
            `EXTRA_MAP`.
        tile_bytes: Size of the copies held at one time.

    Raises:
        ValueError: If shapes disagree, a similarity is not finite, no query has a match, or
            ``extra_map`` holds an unknown name.

    Example:
        >>> ranking = rank_similarity(
        ...     torch.tensor([[-0.2, -0.3, -0.5, -0.9]]),
        ...     query_person_id=torch.tensor([1]),
        ...     gallery_person_id=torch.tensor([1, 2, 1, 2]),
        ... )
        >>> ranking.average_precision.round(4), ranking.inverse_negative_penalty.round(4)
        (array([0.8333]), array([0.6667]))
    """
    if similarity.ndim != 2:
        raise ValueError(
            f"similarity has shape {tuple(similarity.shape)}; give [queries, gallery]."
        )
    dtype = _dtype(similarity)

    given = similarity.detach().to("cpu", dtype).numpy()

    def fill(rows: Tensor, scores: Tensor) -> None:
        # NumPy: after an operation, torch's idle threads spin and slow down those that count.
        part = given[rows.numpy()]
        if not np.isfinite(part.min()) or not np.isfinite(part.max()):
            raise ValueError("similarity contains NaN or infinite numbers, which have no rank.")
        scores.numpy()[:] = part

    size = (similarity.shape[0], similarity.shape[1])
    labels = _index_labels(
        size, query_person_id, gallery_person_id, query_camera_id, gallery_camera_id
    )
    return _rank(fill, size, dtype, labels, topk, extra_map, tile_bytes)


def most_similar(
    query: Tensor, gallery: Tensor, count: int, *, tile_bytes: int = TILE_BYTES
) -> NDArray[np.int64]:
    """Return ``[queries, count]`` places in the gallery of the most similar items, best first.

    Of equal items the one earlier in the gallery is ahead, as in `rank_embeddings`.

    Args:
        query: ``[queries, D]`` unit vectors.
        gallery: ``[gallery, D]`` unit vectors, on the same device.
        count: Items per query; all are returned if the gallery has no more.
        tile_bytes: Size of the similarities held at one time.

    Raises:
        ValueError: If the widths differ.

    Example:
        >>> most_similar(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8], [1.0, 0.0]]), 1)
        array([[1]])
    """
    check_widths(query, gallery)
    dtype = _dtype(query)
    gallery = gallery.to(dtype)
    num_queries, num_gallery = len(query), len(gallery)
    count = min(count, num_gallery)
    width = _padded(num_gallery)
    index = np.empty((num_queries, count), np.int64)
    tile_rows = _tile_rows(num_queries, width, dtype, tile_bytes)
    tile = torch.full((tile_rows, width), -torch.inf, dtype=dtype)
    group_rows = max(1, GROUP_BYTES // (width * dtype.itemsize))
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for start in range(0, num_queries, tile_rows):
            some = query[start : start + tile_rows].to(dtype)
            multiply_rows(some, gallery, tile[: len(some), :num_gallery])
            scores = tile[: len(some)].numpy()
            groups = [scores[row : row + group_rows] for row in range(0, len(some), group_rows)]
            found = [top for _, top in pool.map(lambda group: _top(group, count), groups)]
            index[start : start + len(some)] = np.concatenate(found)
    return index


def check_widths(query: Tensor, gallery: Tensor) -> None:
    """Refuse embeddings that cannot be compared.

    Raises:
        ValueError: If they are no matrices, or not of one width.

    Example:
        >>> check_widths(torch.zeros(2, 5), torch.zeros(3, 5))
    """
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query {tuple(query.shape)} and gallery {tuple(gallery.shape)} must be [queries, D] "
            "and [gallery, D]. Give both the same views in the same order."
        )


def multiply_rows(query: Tensor, gallery: Tensor, out: Tensor) -> None:
    """Write the products of all rows into ``out``, which may lie on another device.

    In full precision, whatever is set: TF32 and bfloat16 would change ranks.

    Args:
        query: ``[queries, D]``.
        gallery: ``[gallery, D]``, on the device of the queries.
        out: ``[queries, gallery]``, overwritten.

    Example:
        >>> out = torch.empty(1, 2)
        >>> multiply_rows(torch.tensor([[1.0, 2.0]]), torch.eye(2), out)
        >>> out
        tensor([[1., 2.]])
    """
    here = out if query.device == out.device else query.new_empty(out.shape)
    with torch.autocast(query.device.type, enabled=False), full_precision():
        torch.mm(query, gallery.T, out=here)
    if here is not out:
        out.copy_(here)


def rank_k(ranking: Ranking, k: int) -> float:
    """Return the fraction of valid queries with a match among the first ``k`` items.

    Example:
        >>> rank_k(
        ...     rank_similarity(
        ...         torch.tensor([[0.9, 0.1], [0.2, 0.3]]),
        ...         query_person_id=torch.tensor([1, 1]),
        ...         gallery_person_id=torch.tensor([1, 2]),
        ...     ),
        ...     k=1,
        ... )
        0.5
    """
    return float((ranking.first_hit[ranking.valid] <= k).mean())


def mean_average_precision(ranking: Ranking, extra: str | None = None) -> float:
    """Return the mean over valid queries of their average precision.

    Args:
        ranking: What became of the queries.
        extra: A definition of `Ranking.extra_average_precision` instead of the usual one.

    Example:
        >>> mean_average_precision(
        ...     rank_similarity(
        ...         torch.tensor([[0.9, 0.1], [0.2, 0.3]]),
        ...         query_person_id=torch.tensor([1, 1]),
        ...         gallery_person_id=torch.tensor([1, 2]),
        ...     )
        ... )
        0.75
    """
    precision = (
        ranking.average_precision if extra is None else ranking.extra_average_precision[extra]
    )
    return float(precision[ranking.valid].mean())


def mean_inp(ranking: Ranking) -> float:
    """Return the mean of `Ranking.inverse_negative_penalty` over valid queries (mINP).

    Source: Ye et al., Deep learning for person re-identification: a survey and outlook, TPAMI 2021.

    Example:
        >>> mean_inp(
        ...     rank_similarity(
        ...         torch.tensor([[0.9, 0.1, 0.5]]),
        ...         query_person_id=torch.tensor([1]),
        ...         gallery_person_id=torch.tensor([1, 1, 2]),
        ...     )
        ... )
        0.6666666666666666
    """
    return float(ranking.inverse_negative_penalty[ranking.valid].mean())


def _dtype(values: Tensor) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def _padded(num_gallery: int) -> int:
    return NUM_CLASSES * -(-num_gallery // NUM_CLASSES)


def _tile_rows(num_queries: int, width: int, dtype: torch.dtype, tile_bytes: int) -> int:
    return max(1, min(num_queries, TILE_ROWS, tile_bytes // (width * dtype.itemsize)))


def _rescore(rescoring: Rescoring, rows: NDArray[np.int64], scores: NDArray[Any]) -> None:
    scores *= rescoring.slope[rows, None]
    scores += rescoring.offset[rows, None]
    bonus = rescoring.bonus[rows]
    row = np.repeat(np.arange(len(rows)), np.diff(bonus.indptr))
    scores[row, bonus.indices] += bonus.data


def _index_labels(
    size: tuple[int, int],
    query_person_id: Tensor,
    gallery_person_id: Tensor,
    query_camera_id: Tensor | None,
    gallery_camera_id: Tensor | None,
) -> _Labels:
    if (query_camera_id is None) != (gallery_camera_id is None):
        raise ValueError(
            "query_camera_id and gallery_camera_id belong together: give both, or neither."
        )
    for name, ids, length in (
        ("query_person_id", query_person_id, size[0]),
        ("gallery_person_id", gallery_person_id, size[1]),
        ("query_camera_id", query_camera_id, size[0]),
        ("gallery_camera_id", gallery_camera_id, size[1]),
    ):
        if ids is not None and ids.shape != (length,):
            raise ValueError(f"{name} has shape {tuple(ids.shape)}, expected ({length},).")
    if min(size) == 0:
        raise ValueError(
            f"there are {size[0]} queries and {size[1]} gallery items. Ranking needs both: check "
            "that the split has images and captions."
        )
    query_person_id = query_person_id.cpu().contiguous()
    gallery_person_id = gallery_person_id.cpu().contiguous()
    grouped, by_person = gallery_person_id.sort(stable=True)
    start = torch.searchsorted(grouped, query_person_id)
    num_places = torch.searchsorted(grouped, query_person_id, right=True) - start
    return _Labels(
        query_person_id,
        None if query_camera_id is None else query_camera_id.cpu(),
        None if gallery_camera_id is None else gallery_camera_id.cpu(),
        (gallery_person_id == -1).nonzero().flatten(),
        by_person,
        start,
        num_places.masked_fill(query_person_id == -1, 0),
    )


@torch.no_grad()
def _rank(
    fill: Callable[[Tensor, Tensor], None],
    size: tuple[int, int],
    dtype: torch.dtype,
    labels: _Labels,
    topk: int,
    extra_map: Sequence[str],
    tile_bytes: int,
) -> Ranking:
    """Rank with ``fill(rows, scores)``, which writes the similarities of query ``rows``."""
    check_extra_map(extra_map)
    num_queries, num_gallery = size
    topk = min(topk, num_gallery)
    width = _padded(num_gallery)
    no_score = np.full(num_queries, -np.inf, torch.empty(0, dtype=dtype).numpy().dtype)
    ranking = Ranking(
        num_matches=np.zeros(num_queries, np.int64),
        first_hit=np.zeros(num_queries, np.int64),
        average_precision=np.full(num_queries, np.nan),
        extra_average_precision={name: np.full(num_queries, np.nan) for name in extra_map},
        inverse_negative_penalty=np.full(num_queries, np.nan),
        top_index=np.full((num_queries, topk), -1, np.int64),
        top_score=no_score[:, None].repeat(topk, axis=1),
        best_score=no_score,
        best_other_score=no_score.copy(),
    )
    # Queries with similar numbers of matches stand together, so little of a group is padding.
    order = labels.num_places.argsort(descending=True, stable=True)
    tile_rows = _tile_rows(num_queries, width, dtype, tile_bytes)
    buffer = torch.full((tile_rows, width), -torch.inf, dtype=dtype)
    junk = labels.junk.numpy()
    num_ignored = 0
    first = 0
    # NumPy compares outside of Python's lock, so threads work side by side.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        while first < num_queries:
            most = int(labels.num_places[order[first]])
            rows = order[first : first + max(1, min(tile_rows, MOST_PAIRS // max(1, most)))]
            first += len(rows)
            tile = buffer[: len(rows)]
            scores = tile[:, :num_gallery]
            fill(rows, scores)
            columns, matches, ignored = _pairs(labels, rows)
            row, slot = ignored.nonzero(as_tuple=True)
            num_ignored += len(row)
            scores[row, columns[row, slot]] = -torch.inf
            if labels.query_picture is not None and labels.gallery_picture is not None:
                picture = labels.query_picture[rows, None]
                # also as another person: a copy says nothing about either
                scores[(labels.gallery_picture == picture) & (picture >= 0)] = -torch.inf
            work: tuple[NDArray[Any], ...]
            work = (rows.numpy(), tile.numpy(), columns.numpy(), matches.numpy())

            def rank_group(group: slice, work: tuple[NDArray[Any], ...] = work) -> None:
                _rank_group(ranking, junk, *(array[group] for array in work))

            for _ in pool.map(rank_group, _groups(work[-1], width)):
                pass
    if not ranking.valid.any():
        raise ValueError(_why_nothing_matches(labels, num_ignored))
    return ranking


def _groups(matches: NDArray[np.bool_], width: int) -> list[slice]:
    """Return slices of rows whose comparisons with ``width`` items fit into a thread's cache."""
    num_matches = np.minimum(matches.sum(axis=1), MANY_MATCHES)
    most = np.maximum.accumulate(num_matches[::-1])[::-1]  # of this row and all after it
    groups, start = [], 0
    while start < len(matches):
        stop = start + max(1, GROUP_BYTES // (width * max(1, int(most[start]))))
        groups.append(slice(start, stop))
        start = stop
    return groups


def _pairs(labels: _Labels, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return gallery places of the rows' persons, and which of them match or are ignored.

    All are ``[rows, slots]``, matches first; surplus slots are neither.
    """
    num_places = labels.num_places[rows, None]
    slot = torch.arange(int(num_places.max()))
    place = (labels.start[rows, None] + slot).clamp_max(len(labels.by_person) - 1)
    columns = labels.by_person[place]
    same_person = slot < num_places
    left_out = torch.zeros_like(same_person)
    for query, gallery in (
        (labels.query_camera_id, labels.gallery_camera_id),
        (labels.query_picture, labels.gallery_picture),
    ):
        if query is not None and gallery is not None:
            left_out |= (gallery[columns] == query[rows, None]) & (query[rows, None] >= 0)
    matches = same_person & ~left_out
    ignored = same_person & left_out
    order = matches.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    return columns.gather(1, order), matches.gather(1, order), ignored.gather(1, order)


def _top(scores: NDArray[Any], topk: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return scores and places of the best ``topk`` items, equal ones in gallery order."""
    num_rows, width = scores.shape
    # Of NUM_CLASSES disjoint classes of columns, at least ``topk`` have a maximum not below
    # `least`, so the best ``topk`` items are not below it either; few others are above.
    least = np.full(num_rows, -np.inf, scores.dtype)
    if topk < NUM_CLASSES:
        maxima = scores.reshape(num_rows, -1, NUM_CLASSES).max(axis=1)
        least = np.partition(maxima, NUM_CLASSES - topk, axis=1)[:, NUM_CLASSES - topk]
    place = np.flatnonzero(scores >= least[:, None])
    row, column = np.divmod(place, width)
    score = scores.ravel()[place]
    order = np.lexsort((column, -score, row))
    start = np.searchsorted(row, np.arange(num_rows))
    best = order[start[:, None] + np.arange(topk)]
    top_score, top_index = score[best], column[best]
    return top_score, np.where(top_score == -np.inf, -1, top_index)


def _best_other(
    scores: NDArray[Any], columns: NDArray[np.int64], matches: NDArray[np.bool_]
) -> NDArray[Any]:
    """Return ``[rows]`` best scores of what is no match; arguments as for `_count_ahead`."""
    row, slot = np.nonzero(matches)
    place = columns[row, slot]
    own = scores[row, place]
    scores[row, place] = -np.inf  # other items of the person are ignored, so they are out as well
    best: NDArray[Any] = scores.max(axis=1)
    scores[row, place] = own
    return best


class _Counts(NamedTuple):
    """Of each match, ``[rows, slots]``: gallery items ahead, more similar, at least as similar."""

    ahead: NDArray[np.int64]
    better: NDArray[np.int64]
    not_worse: NDArray[np.int64]


def _count_ahead(
    scores: NDArray[Any], columns: NDArray[np.int64], matches: NDArray[np.bool_]
) -> _Counts:
    """Return where each match stands, by comparing it with the gallery.

    Args:
        scores: ``[rows, width]`` similarities, -inf where ignored or beyond the gallery.
        columns: ``[rows, slots]`` gallery places.
        matches: ``[rows, slots]`` true where the place is a match.
    """
    score = np.take_along_axis(scores, columns, axis=1)
    score[~matches] = np.inf
    flags = scores[:, None] > score[..., None]
    better = _count_true(flags)
    equal = np.equal(scores[:, None], score[..., None], out=flags)
    if np.count_nonzero(equal) == np.count_nonzero(matches):
        return _Counts(better, better, better + 1)
    not_worse = better + _count_true(equal)
    ahead = better + _count_true(equal & (np.arange(scores.shape[1]) < columns[..., None]))
    return _Counts(ahead, better, not_worse)


def _count_true(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return ``flags.sum(axis=-1)``, eight flags at a time.

    The bytes of a 64-bit word add up side by side, without a carry for up to 255 words.
    """
    shape = flags.shape[:-1]
    words = flags.view(np.uint64).reshape(*shape, -1, NUM_CLASSES // 8)
    parts = [
        words[..., start : start + 255, :].sum(axis=-2).view(np.uint8).sum(axis=-1, dtype=np.int64)
        for start in range(0, words.shape[-2], 255)
    ]
    total: NDArray[np.int64] = sum(parts[1:], start=parts[0])
    return total


def _count_ahead_by_sorting(
    scores: NDArray[Any], columns: NDArray[np.int64], matches: NDArray[np.bool_]
) -> _Counts:
    """Return what `_count_ahead` returns, by sorting each row."""
    width = scores.shape[1]
    place = np.empty(scores.shape, np.int64)
    order = np.argsort(-scores, axis=1, kind="stable")
    np.put_along_axis(place, order, np.arange(width)[None], axis=1)
    ahead = np.take_along_axis(place, columns, axis=1)
    ordered = np.take_along_axis(scores, order, axis=1)
    edge = np.full((len(scores), width + 1), True)  # before an item that is less similar
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=edge[:, 1:-1])
    start = np.maximum.accumulate(np.where(edge[:, :-1], np.arange(width), 0), axis=1)
    stop = np.where(edge[:, 1:], np.arange(1, width + 1), width)[:, ::-1]
    stop = np.minimum.accumulate(stop, axis=1)[:, ::-1]
    return _Counts(ahead, *(np.take_along_axis(each, ahead, axis=1) for each in (start, stop)))


def _rank_group(
    ranking: Ranking,
    junk: NDArray[np.int64],
    rows: NDArray[np.int64],
    scores: NDArray[Any],
    columns: NDArray[np.int64],
    matches: NDArray[np.bool_],
) -> None:
    """Write the results of query ``rows``."""
    scores[:, junk] = -np.inf
    topk = ranking.top_index.shape[1]
    if topk:
        ranking.top_score[rows], ranking.top_index[rows] = _top(scores, topk)
    ranking.best_score[rows] = scores.max(axis=1)
    ranking.best_other_score[rows] = _best_other(scores, columns, matches)
    num_matches = matches.sum(axis=1)
    ranking.num_matches[rows] = num_matches
    found = np.flatnonzero(num_matches)
    if len(found) == 0:
        return
    rows, num_matches, most = rows[found], num_matches[found], int(num_matches.max())
    columns, matches = columns[found, :most], matches[found, :most]
    scores = scores if len(found) == len(scores) else scores[found]
    count = _count_ahead if most <= MANY_MATCHES else _count_ahead_by_sorting
    counts = count(scores, columns, matches)

    def ascending(values: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.sort(np.where(matches, values, np.iinfo(np.int64).max), axis=1)

    ranks = ascending(1 + counts.ahead)
    is_match = np.arange(most) < num_matches[:, None]
    ranking.first_hit[rows] = ranks[:, 0]
    ranking.average_precision[rows] = average_precision(ranks, is_match)
    last = ranks[np.arange(len(ranks)), num_matches - 1]
    ranking.inverse_negative_penalty[rows] = num_matches / last
    if ranking.extra_average_precision:
        places = MatchPlaces(ranks, ascending(counts.better), ascending(counts.not_worse), is_match)
        for name, precision in ranking.extra_average_precision.items():
            precision[rows] = EXTRA_MAP[name](places)


def _why_nothing_matches(labels: _Labels, num_ignored: int) -> str:
    junk_queries = int((labels.query_person_id == -1).sum())
    absent = int((labels.num_places == 0).sum()) - junk_queries
    reasons = []
    if absent:
        reasons.append(f"{absent} show persons that the gallery does not hold")
    if junk_queries:
        reasons.append(f"{junk_queries} are junk (person -1)")
    if num_ignored:
        rest = len(labels.num_places) - absent - junk_queries
        reasons.append(
            f"{rest} lost all their {num_ignored} matches to the camera rule (a gallery image of "
            "the same person by the same camera as the query is ignored)"
        )
    advice = (
        "Switch the rule off with data.camera_rule=false, or check the cameras of the data set: "
        "query and gallery should have different ones."
        if num_ignored
        else "Check that the person ids of query and gallery come from the same split."
    )
    return (
        f"no query has a match ({counted(len(labels.num_places), 'query')}): {'; '.join(reasons)}; "
        f"and left out of the gallery: {counted(len(labels.junk), 'junk image')} (person -1). "
        f"{advice}"
    )
