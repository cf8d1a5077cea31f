"""Ranks a gallery for every query, without ever holding or sorting the whole similarity matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from crosswalk.compiled import threads
from crosswalk.metrics.average_precision import (
    EXTRA_MAP,
    MatchPlaces,
    average_precision,
    check_extra_map,
)
from crosswalk.metrics.counting import (
    Index,
    Labels,
    Tally,
    add_up,
    count_block,
    new_tally,
    nothing_found,
    state_of,
    take_scores,
)
from crosswalk.nearest import full_precision
from crosswalk.words import counted

TILE_BYTES = 64 * 2**20
"""Size of the similarities computed at one time."""
TILE_ROWS = 1024
"""Most queries of a tile; more do not multiply faster."""
LEAST_ROWS = 8
"""Rows that every product has at least, zeros if need be."""
NUM_TILES = 8
"""The number of tiles is a multiple of this, so that processes get equal shares."""
HELD_BYTES = 80 * 2**20
"""Similarities up to this size are kept for the other direction; more are computed again."""


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


class Processes(NamedTuple):
    """Who ranks together; each takes its share of the queries.

    Attributes:
        rank: This process, from 0.
        world_size: How many there are.
        gather: Returns every process's value of an object, in rank order.
    """

    rank: int
    world_size: int
    gather: Callable[[Any], list[Any]]


ALONE = Processes(0, 1, lambda value: [value])


class Rankings(NamedTuple):
    """Rankings by the same similarities.

    Attributes:
        joint: Of the queries, by the mean over views.
        views: Of the queries by each view, without ranking lists; empty if not asked for.
        backward: Of the gallery as queries and the queries as gallery, or None.
    """

    joint: Ranking
    views: list[Ranking]
    backward: Ranking | None


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
    labels = Labels(
        query_person_id,
        gallery_person_id,
        query_camera_id,
        gallery_camera_id,
        query_picture,
        gallery_picture,
    )
    return rank_views(
        query,
        gallery,
        labels,
        widths=[query.shape[-1] // num_views] * num_views,
        topk=topk,
        extra_map=extra_map,
        rescoring=rescoring,
        tile_bytes=tile_bytes,
    ).joint


@torch.no_grad()
def rank_views(
    query: Tensor,
    gallery: Tensor,
    labels: Labels,
    *,
    widths: Sequence[int],
    by_view: bool = False,
    both_ways: bool = False,
    topk: int = 10,
    extra_map: Sequence[str] = (),
    rescoring: Rescoring | None = None,
    processes: Processes = ALONE,
    tile_bytes: int = TILE_BYTES,
) -> Rankings:
    """Return all rankings that one product of all queries with the gallery gives.

    Tiles are the same on any number of processes, and so are the results, to the last digit.

    Args:
        query: ``[queries, D]`` unit vectors of all views side by side.
        gallery: ``[gallery, D]`` the same, on the same device, which also counts.
        labels: Whom they show; see `rank_embeddings`.
        widths: Length of the vectors of each view; together D.
        by_view: Whether each view is ranked by itself too.
        both_ways: Whether the gallery is ranked for the queries too. Similarities of more than
            `HELD_BYTES` are computed twice for it.
        topk: Length of the ranking lists that are returned.
        extra_map: Definitions of average precision measured beside the usual one.
        rescoring: By whose scores ``joint`` is ranked instead, and ``backward``.
        processes: Who calls this with the same arguments and ranks a share of the queries.
        tile_bytes: Size of the similarities held at one time, but for those kept.

    Raises:
        ValueError: See `rank_embeddings`; every process raises it.

    Example:
        >>> vectors, ids = torch.eye(2).repeat(1, 2), torch.tensor([7, 8])
        >>> found = rank_views(vectors, vectors, Labels(ids, ids), widths=[2, 2], by_view=True)
        >>> found.joint.first_hit, len(found.views)
        (array([1, 1]), 2)
    """
    check_widths(query, gallery)
    dtype = _dtype(query)
    gallery = gallery.to(dtype)
    views = [slice(end - width, end) for width, end in zip(widths, np.cumsum(widths), strict=True)]
    joins = len(views) > 1
    size = (len(query), len(gallery))
    labels = _checked(labels, size)
    shape = _tile_shape(size, dtype, tile_bytes // (2 if joins else 1))
    spare = gallery.new_empty(shape if joins else 0)

    def tile(rows: slice, joint: Tensor) -> Iterator[Tensor]:
        part = query[rows].to(dtype)
        number = len(part)
        if number < len(joint):  # of the same shape, a product rounds in the same way
            part = torch.cat([part, part.new_zeros(len(joint) - number, part.shape[1])])
        for view, columns in enumerate(views):
            product = spare if joins else joint
            multiply_rows(part[:, columns], gallery[:, columns], product)
            if by_view:
                yield product[:number]
            if joins and view == 0:
                joint.copy_(spare)
            elif joins:
                joint.add_(spare)
        joint = joint[:number]
        if joins:
            joint.div_(len(views))
        if rescoring is not None:
            _rescore(rescoring, rows, joint)
        yield joint

    def why_not_finite() -> str:
        for role, vectors in (("query", query), ("gallery", gallery)):
            bad = (~vectors.isfinite().all(dim=1)).nonzero().flatten().tolist()
            if bad:
                return (
                    f"{len(bad)} {role} embeddings are NaN or infinite (first: {bad[:5]}). The "
                    "encoder has diverged: lower the learning rate or use trainer.precision=32."
                )
        return "similarities are NaN or infinite though no embedding is: give unit vectors."

    return _rank(
        tile,
        shape,
        gallery.new_empty,
        labels,
        topks=[0] * len(views) * by_view + [topk],
        extra_map=extra_map,
        both_ways=both_ways,
        processes=processes,
        why_not_finite=why_not_finite,
    )


def rank_similarity(
    similarity: Tensor,
    *,
    query_person_id: Tensor,
    gallery_person_id: Tensor,
    query_camera_id: Tensor | None = None,
    gallery_camera_id: Tensor | None = None,
    topk: int = 10,
    extra_map: Sequence[str] = (),
    tile_bytes: int = TILE_BYTES,
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
        tile_bytes: Size of the similarities looked at together.

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
    given = similarity.detach()
    dtype = _dtype(given)
    labels = Labels(query_person_id, gallery_person_id, query_camera_id, gallery_camera_id)
    size = (given.shape[0], given.shape[1])
    labels = _checked(labels, size)
    return _rank(
        lambda rows, _: iter([given[rows].to(dtype)]),
        _tile_shape(size, dtype, tile_bytes),
        lambda _: given.new_empty(0, dtype=dtype),
        labels,
        topks=[topk],
        extra_map=extra_map,
        both_ways=False,
        processes=ALONE,
        why_not_finite=lambda: "similarity contains NaN or infinite numbers, which have no rank.",
    ).joint


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
    shape = _tile_shape((len(query), len(gallery)), dtype, tile_bytes)
    buffer = gallery.new_empty(shape)
    count = min(count, len(gallery))
    index = [np.empty((0, count), np.int64)]
    no_junk = np.zeros(0, np.int64)
    with threads() as pool:
        for start in range(0, len(query), len(buffer)):
            some = query[start : start + len(buffer)].to(dtype)
            scores = buffer[: len(some)]
            multiply_rows(some, gallery, scores)
            tally = new_tally(nothing_found(len(some)), scores, junk=no_junk, topk=max(1, count))
            if count_block(tally, scores, 0, pool):
                raise ValueError("embeddings are NaN or infinite; the encoder has diverged.")
            index.append(tally.top_index[:, :count].cpu().numpy())
    return np.concatenate(index)


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
    """Write the products of all rows into ``out``.

    In full precision, whatever is set: TF32 and bfloat16 would change ranks.

    Args:
        query: ``[queries, D]``.
        gallery: ``[gallery, D]``, on the device of the queries.
        out: ``[queries, gallery]`` on the same device, overwritten.

    Example:
        >>> out = torch.empty(1, 2)
        >>> multiply_rows(torch.tensor([[1.0, 2.0]]), torch.eye(2), out)
        >>> out
        tensor([[1., 2.]])
    """
    with torch.autocast(query.device.type, enabled=False), full_precision():
        torch.mm(query, gallery.T, out=out)


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


def _tile_shape(size: tuple[int, int], dtype: torch.dtype, tile_bytes: int) -> tuple[int, int]:
    """Return rows and columns of all tiles; the last one may need less."""
    num_queries, num_gallery = size
    most = min(TILE_ROWS, max(1, tile_bytes // max(1, num_gallery * dtype.itemsize)))
    num_tiles = NUM_TILES * -(-num_queries // (most * NUM_TILES))
    rows = -(-num_queries // max(1, num_tiles))
    return max(rows, min(LEAST_ROWS, most)), num_gallery


def _rescore(rescoring: Rescoring, rows: slice, scores: Tensor) -> None:
    bonus = rescoring.bonus[rows]
    row = np.repeat(np.arange(len(scores)), np.diff(bonus.indptr))
    place = [torch.from_numpy(each).to(scores.device, torch.int64) for each in (row, bonus.indices)]
    slope, offset, more = (
        torch.from_numpy(each).to(scores.device)
        for each in (rescoring.slope[rows], rescoring.offset[rows], bonus.data)
    )
    scores.mul_(slope[:, None]).add_(offset[:, None])
    scores[place[0], place[1]] = (scores[place[0], place[1]] + more).to(scores.dtype)


def _checked(labels: Labels, size: tuple[int, int]) -> Labels:
    """Return the labels on the CPU."""
    if (labels.query_camera_id is None) != (labels.gallery_camera_id is None):
        raise ValueError(
            "query_camera_id and gallery_camera_id belong together: give both, or neither."
        )
    for number, (name, ids) in enumerate(labels._asdict().items()):
        length = size[number % 2]
        if ids is not None and ids.shape != (length,):
            raise ValueError(f"{name} has shape {tuple(ids.shape)}, expected ({length},).")
    if min(size) == 0:
        raise ValueError(
            f"there are {size[0]} queries and {size[1]} gallery items. Ranking needs both: check "
            "that the split has images and captions."
        )
    return Labels(*(None if ids is None else ids.cpu() for ids in labels))  # type: ignore[arg-type]


@torch.no_grad()
def _rank(
    tile: Callable[[slice, Tensor], Iterator[Tensor]],
    shape: tuple[int, int],
    new_empty: Callable[[tuple[int, int]], Tensor],
    labels: Labels,
    *,
    topks: list[int],
    extra_map: Sequence[str],
    both_ways: bool,
    processes: Processes,
    why_not_finite: Callable[[], str],
) -> Rankings:
    """Rank by similarities of the queries in ``rows``, which ``tile(rows, buffer)`` yields.

    It yields one matrix for each of ``topks``, the lengths of their lists; the last lies in the
    buffer and is the one ranked in the other direction too.
    """
    check_extra_map(extra_map)
    num_queries = len(labels.query_person_id)
    index = Index(labels)
    buffer = new_empty(shape)
    starts = range(0, num_queries, shape[0])
    shares = [
        len(starts) * rank // processes.world_size for rank in range(processes.world_size + 1)
    ]
    mine = [
        slice(start, min(start + shape[0], num_queries))
        for start in starts[shares[processes.rank] : shares[processes.rank + 1]]
    ]
    hold = both_ways and len(mine) * buffer.nbytes <= HELD_BYTES
    kept: list[Tensor] = []
    back = None
    if both_ways:
        reverse = Index(labels.reversed())
        back = new_tally(
            reverse.found(slice(None)),
            buffer,
            junk=reverse.junk,
            topk=max(1, topks[-1]),
            all_counts=bool(extra_map),
        )
    parts: list[list[Ranking]] = []
    wrong = 0
    with threads() as pool:
        for rows in mine:
            found = index.found(rows)
            parts.append([])
            for topk, scores in zip(topks, tile(rows, buffer), strict=True):
                topk = min(topk, shape[1])
                tally = new_tally(
                    found,
                    buffer,
                    junk=index.junk,
                    topk=max(1, topk),
                    all_counts=bool(extra_map),
                )
                take_scores(tally, scores, 0)
                wrong += count_block(tally, scores, 0, pool)
                parts[-1].append(_summary(tally, topk, extra_map))
            if back is not None:
                take_scores(back, scores.T, rows.start)
            if hold:
                kept.append(scores)
                buffer = new_empty(shape)
        everybody = processes.gather((wrong, parts))
        if any(wrong for wrong, _ in everybody):
            raise ValueError(why_not_finite())
        *views, joint = (
            _concatenated(list(tiles))
            for tiles in zip(*(tile for _, parts in everybody for tile in parts), strict=True)
        )
        if not joint.valid.any():
            raise ValueError(_why_nothing_matches(index))
        if back is None:
            return Rankings(joint, views, None)
        # a match may be on any process, and is needed before anything is compared with it
        back.score.copy_(sum(processes.gather(back.score.cpu())))
        for number, rows in enumerate(mine):
            if not hold:
                *_, scores = tile(rows, buffer)
            else:
                scores = kept[number]
            count_block(back, scores.T, rows.start, pool)
    back = add_up(back, processes.gather(state_of(back)))
    return Rankings(joint, views, _summary(back, min(topks[-1], num_queries), extra_map))


def _summary(tally: Tally, topk: int, extra_map: Sequence[str]) -> Ranking:
    """Return what the counts say, after the last block."""
    query = tally.matches.query.cpu().numpy()
    num_queries = len(tally.best_other)
    num_matches = np.bincount(query, minlength=num_queries)
    most = max(1, int(num_matches.max()))
    is_match = np.arange(most) < num_matches[:, None]

    def ascending(values: Tensor) -> NDArray[np.int64]:
        padded = np.full(is_match.shape, np.iinfo(np.int64).max)
        padded[is_match] = values.cpu().numpy()
        padded.sort(axis=1)
        return padded

    ranks = ascending(1 + tally.ahead)
    valid = num_matches > 0
    last = ranks[np.arange(num_queries), num_matches - 1]
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN where nothing matches
        extra = {}
        if extra_map:
            counts = (ascending(tally.better), ascending(tally.not_worse))
            places = MatchPlaces(ranks, *counts, is_match)
            extra = {name: EXTRA_MAP[name](places) for name in extra_map}
        precision = average_precision(ranks, is_match)
    top_score = tally.top_score.cpu().numpy()
    top_index = np.where(top_score == -np.inf, -1, tally.top_index.cpu().numpy())
    return Ranking(
        num_matches,
        np.where(valid, ranks[:, 0], 0),
        precision,
        extra,
        np.where(valid, num_matches / last, np.nan),
        top_index[:, :topk],
        top_score[:, :topk],
        top_score[:, 0],
        tally.best_other.cpu().numpy(),
    )


def _concatenated(parts: list[Ranking]) -> Ranking:
    """Return the results of all queries from those of some each."""
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in Ranking._fields
        if name != "extra_average_precision"
    }
    joined["extra_average_precision"] = {
        name: np.concatenate([part.extra_average_precision[name] for part in parts])
        for name in parts[0].extra_average_precision
    }
    return Ranking(**joined)


def _why_nothing_matches(index: Index) -> str:
    persons = index.query_person_id
    junk_queries = int((persons == -1).sum())
    absent = int((~np.isin(persons, index.gallery_person_id) & (persons != -1)).sum())
    ignored = index.found(slice(None)).ignored
    same = index.gallery_person_id[ignored.place] == persons[ignored.query]
    num_ignored = int(same.sum())
    reasons = []
    if absent:
        reasons.append(f"{absent} show persons that the gallery does not hold")
    if junk_queries:
        reasons.append(f"{junk_queries} are junk (person -1)")
    if num_ignored:
        rest = len(persons) - absent - junk_queries
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
        f"no query has a match ({counted(len(persons), 'query')}): {'; '.join(reasons)}; "
        f"and left out of the gallery: {counted(len(index.junk), 'junk image')} (person -1). "
        f"{advice}"
    )
