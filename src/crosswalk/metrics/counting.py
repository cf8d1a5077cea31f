"""Counts, block by block of similarities, how many gallery items are ahead of each match.

The rank of a match is the number of items ahead of it, which needs no sorting. Blocks hold the
similarities of all queries in question to a range of the gallery, and may come in any number as
long as the ranges ascend, so a tile serves both directions: its rows are queries, and its columns
are queries of the other direction.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crosswalk.compiled import compiled

GROUP_BYTES = 2**20
"""Size of the similarities that a thread takes at one time."""
FLAG_BYTES = 2**28
"""Size of the comparisons held at one time on a GPU."""


class Labels(NamedTuple):
    """Whom each query and each gallery item shows, all ``[queries]`` or ``[gallery]`` int64."""

    query_person_id: Tensor
    gallery_person_id: Tensor
    query_camera_id: Tensor | None = None
    gallery_camera_id: Tensor | None = None
    query_picture: Tensor | None = None
    gallery_picture: Tensor | None = None

    def reversed(self) -> Labels:
        """Return those of the gallery as queries and the queries as gallery."""
        return Labels(*(self[number ^ 1] for number in range(len(self))))  # type: ignore[arg-type]


class Places(NamedTuple):
    """Gallery places of each query, those of a query together and ascending.

    Attributes:
        start: ``[queries + 1]`` int64 number of places ahead of each query's.
        query: ``[places]`` int64 the query that each belongs to.
        place: ``[places]`` int64.
    """

    start: Tensor
    query: Tensor
    place: Tensor


class _Pairs(NamedTuple):
    """Queries and gallery places, those of a query together."""

    query: NDArray[np.int64]
    place: NDArray[np.int64]

    def only(self, kept: NDArray[np.bool_]) -> _Pairs:
        return _Pairs(self.query[kept], self.place[kept])


class _Grouped:
    """Gallery places by an id."""

    def __init__(self, ids: NDArray[np.int64]) -> None:
        self.order = np.argsort(ids, kind="stable")
        self.ids = ids[self.order]

    def pairs(self, wanted: NDArray[np.int64], known: NDArray[np.bool_]) -> _Pairs:
        """Return where ``[queries]`` ids are, if they are known."""
        first = np.searchsorted(self.ids, wanted)
        count = np.where(known, np.searchsorted(self.ids, wanted, side="right") - first, 0)
        query = np.repeat(np.arange(len(wanted)), count)
        offset = first - np.cumsum(count) + count
        return _Pairs(query, self.order[offset[query] + np.arange(len(query))])


class Found(NamedTuple):
    """What the gallery has of some queries."""

    num_queries: int
    matches: _Pairs
    ignored: _Pairs


class Index:
    """Finds the gallery places that match queries, and those that are ignored.

    In NumPy: after any operation, torch's idle threads spin and slow down those that count.

    Args:
        labels: On the CPU.

    Example:
        >>> index = Index(Labels(torch.tensor([7]), torch.tensor([3, 7, -1, 7])))
        >>> index.found(slice(None)).matches.place, index.junk
        (array([1, 3]), array([2]))
    """

    def __init__(self, labels: Labels) -> None:
        self.labels = [None if ids is None else ids.numpy() for ids in labels]
        self.gallery_person_id = labels.gallery_person_id.numpy()
        self.query_person_id = labels.query_person_id.numpy()
        self.junk = np.flatnonzero(self.gallery_person_id == -1)
        self.persons = _Grouped(self.gallery_person_id)
        pictures = self.labels[5]
        self.pictures = None if pictures is None else _Grouped(pictures)

    def found(self, rows: slice) -> Found:
        """Return the places of the queries in ``rows``, which are numbered from 0."""
        person_id = self.query_person_id[rows]
        pairs = self.persons.pairs(person_id, person_id != -1)
        left_out = np.zeros(len(pairs.place), np.bool_)
        for query, gallery in (self.labels[2:4], self.labels[4:6]):
            if query is not None and gallery is not None:
                mine = query[rows][pairs.query]
                left_out |= (gallery[pairs.place] == mine) & (mine >= 0)
        ignored = pairs.only(left_out)
        if self.pictures is not None and self.labels[4] is not None:
            # also as another person: a copy says nothing about either
            picture = self.labels[4][rows]
            copies = self.pictures.pairs(picture, picture >= 0)
            others = self.gallery_person_id[copies.place] != person_id[copies.query]
            both = zip(ignored, copies.only(others), strict=True)
            ignored = _Pairs(*(np.concatenate(each) for each in both))
            order = np.argsort(ignored.query, kind="stable")
            ignored = _Pairs(ignored.query[order], ignored.place[order])
        return Found(len(person_id), pairs.only(~left_out), ignored)


class Tally(NamedTuple):
    """What was counted so far; all on the device of the similarities.

    Attributes:
        matches: Of each query.
        ignored: Of each query.
        junk: Gallery places that every query ignores, ascending.
        score: ``[matches]`` their similarities, by `take_scores`.
        ahead: ``[matches]`` int64 items that are more similar, or as similar and earlier.
        better: ``[matches]`` int64 items that are more similar; empty if not asked for.
        not_worse: ``[matches]`` int64 items that are at least as similar; empty likewise.
        top_score: ``[queries, topk]`` the greatest similarities, -inf where there are no more.
        top_index: ``[queries, topk]`` int64 their places, equal similarities by place.
        best_other: ``[queries]`` the greatest similarity of an item that is no match.
    """

    matches: Places
    ignored: Places
    junk: Tensor
    score: Tensor
    ahead: Tensor
    better: Tensor
    not_worse: Tensor
    top_score: Tensor
    top_index: Tensor
    best_other: Tensor


def nothing_found(num_queries: int) -> Found:
    """Return what the gallery has of queries that nobody is known of.

    Example:
        >>> len(nothing_found(5).matches.place)
        0
    """
    none = _Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64))
    return Found(num_queries, none, none)


def new_tally(
    found: Found, like: Tensor, *, junk: NDArray[np.int64], topk: int, all_counts: bool = False
) -> Tally:
    """Return the tally of queries before their first block.

    Args:
        found: Places of the queries' persons.
        like: Has the device and the type of the similarities.
        junk: ``[junk]`` gallery places that every query ignores.
        topk: Length of the lists of greatest similarities; > 0.
        all_counts: Whether ``better`` and ``not_worse`` are counted too.

    Example:
        >>> tally = new_tally(nothing_found(1), torch.zeros(0), junk=np.zeros(0, np.int64), topk=1)
        >>> tally.top_score, tally.top_index
        (tensor([[-inf]]), tensor([[-1]]))
    """

    def there(values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(like.device)

    def places(pairs: _Pairs) -> Places:
        start = np.searchsorted(pairs.query, np.arange(found.num_queries + 1))
        return Places(*map(there, (start, *pairs)))

    num_matches = len(found.matches.place)
    num_counts = num_matches if all_counts else 0
    return Tally(
        places(found.matches),
        places(found.ignored),
        there(junk),
        like.new_zeros(num_matches),
        like.new_zeros(num_matches, dtype=torch.int64),
        like.new_zeros(num_counts, dtype=torch.int64),
        like.new_zeros(num_counts, dtype=torch.int64),
        like.new_full((found.num_queries, topk), -torch.inf),
        like.new_full((found.num_queries, topk), -1, dtype=torch.int64),
        like.new_full((found.num_queries,), -torch.inf),
    )


def take_scores(tally: Tally, scores: Tensor, first: int) -> None:
    """Note the similarities of the matches in ``[queries, items]``; item 0 has place ``first``.

    Example:
        >>> found = Index(Labels(torch.tensor([7]), torch.tensor([3, 7]))).found(slice(None))
        >>> tally = new_tally(found, torch.zeros(0), junk=np.zeros(0, np.int64), topk=1)
        >>> take_scores(tally, torch.tensor([[0.5]]), 1)
        >>> tally.score
        tensor([0.5000])
    """
    parts: list[Any] = [tally.score, scores, tally.matches.query, tally.matches.place]
    if scores.device.type == "cpu":
        parts = [part.numpy() for part in parts]
    score, scores, query, place = parts
    inside = (place >= first) & (place < first + scores.shape[1])
    score[inside] = scores[query[inside], place[inside] - first]


def state_of(tally: Tally) -> tuple[Tensor, ...]:
    """Return what `count_block` wrote, on the CPU, for `add_up`.

    Example:
        >>> tally = new_tally(nothing_found(1), torch.zeros(0), junk=np.zeros(0, np.int64), topk=1)
        >>> len(state_of(tally))
        6
    """
    return tuple(part.cpu() for part in tally[4:])


def add_up(tally: Tally, states: list[tuple[Tensor, ...]]) -> Tally:
    """Return the tally of all blocks from states of some blocks each.

    Args:
        tally: Of any of them.
        states: Of all, in the order of the gallery.

    Example:
        >>> found = Index(Labels(torch.tensor([7]), torch.tensor([3, 7]))).found(slice(None))
        >>> parts = []
        >>> for place, score in enumerate((0.75, 0.5)):
        ...     tally = new_tally(found, torch.zeros(0), junk=np.zeros(0, np.int64), topk=1)
        ...     tally.score.fill_(0.5)
        ...     count_block(tally, torch.tensor([[score]]), place, None)
        ...     parts.append(state_of(tally))
        tensor([0.5000])
        0
        tensor([0.5000])
        0
        >>> add_up(tally, parts).ahead
        tensor([1])
    """
    ahead, better, not_worse, scores, index, best_other = zip(*states, strict=True)
    best = _first_of(torch.cat(scores, dim=1), torch.cat(index, dim=1), scores[0].shape[1])
    return tally._replace(
        ahead=torch.stack(ahead).sum(dim=0),
        better=torch.stack(better).sum(dim=0),
        not_worse=torch.stack(not_worse).sum(dim=0),
        top_score=best[0],
        top_index=best[1],
        best_other=torch.stack(best_other).amax(dim=0),
    )


def _first_of(score: Tensor, index: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    """Return the greatest scores of each row and their indices; equal ones keep their order."""
    score, order = score.sort(dim=1, descending=True, stable=True)
    return score[:, :topk], index.gather(1, order)[:, :topk]


def count_block(tally: Tally, scores: Tensor, first: int, pool: ThreadPoolExecutor | None) -> int:
    """Count a block of similarities, and return how many of them are not finite.

    The similarities of all matches must be known. Blocks ascend in the gallery.

    Args:
        tally: Is written to, unless a similarity is not finite.
        scores: ``[queries, items]`` similarities, not written to.
        first: Place in the gallery of the first item.
        pool: Threads of the CPU to use, or None for the calling one alone.

    Example:
        >>> found = Index(Labels(torch.tensor([7]), torch.tensor([3, 7, 7]))).found(slice(None))
        >>> tally = new_tally(found, torch.zeros(0), junk=np.zeros(0, np.int64), topk=2)
        >>> scores = torch.tensor([[0.75, 0.5, 0.75]])
        >>> take_scores(tally, scores, 0)
        >>> count_block(tally, scores, 0, None)
        0
        >>> tally.ahead, tally.top_index, tally.best_other
        (tensor([2, 1]), tensor([[0, 2]]), tensor([0.7500]))
    """
    counter = COUNTERS.get(scores.device.type, _count_by_torch)
    return counter(tally, scores, first, pool)


def _count_compiled(
    tally: Tally, scores: Tensor, first: int, pool: ThreadPoolExecutor | None
) -> int:
    """Count by compiled loops, queries side by side in threads; see `count_block`."""
    values: NDArray[Any] = scores.numpy()
    junk = tally.junk.numpy() - first
    junk = np.ascontiguousarray(junk[(junk >= 0) & (junk < values.shape[1])])
    state = (
        *(part.numpy() for part in (tally.ignored.start, tally.ignored.place)),
        *(part.numpy() for part in (tally.matches.start, tally.matches.place)),
        *(part.numpy() for part in tally[3:]),
    )
    size = max(1, GROUP_BYTES // (values.shape[1] * values.itemsize))

    def count_group(begin: int) -> int:
        # contiguous: a group of columns is turned into rows while it stays in a core's cache
        group = np.ascontiguousarray(values[begin : begin + size])
        return _count_rows(group, begin, first, junk, *state)

    begins = range(0, len(values), size)
    return sum(map(count_group, begins) if pool is None else pool.map(count_group, begins))


def _signature(real: str) -> str:
    ids, reals = "i8[::1]", f"{real}[::1]"
    places = f"{ids}, {ids}, {ids}, {ids}"
    counts = f"{reals}, {ids}, {ids}, {ids}, {real}[:, ::1], i8[:, ::1], {reals}"
    return f"i8({real}[:, ::1], i8, i8, {ids}, {places}, {counts})"


@compiled(_signature("f4"), _signature("f8"))
def _count_rows(
    scores: NDArray[Any],
    begin: int,
    first: int,
    junk: NDArray[np.int64],
    ignored_start: NDArray[np.int64],
    ignored_place: NDArray[np.int64],
    start: NDArray[np.int64],
    place: NDArray[np.int64],
    score: NDArray[Any],
    ahead: NDArray[np.int64],
    better: NDArray[np.int64],
    not_worse: NDArray[np.int64],
    top_score: NDArray[Any],
    top_index: NDArray[np.int64],
    best_other: NDArray[Any],
) -> int:
    """Count the queries from ``begin`` on; junk is numbered from the block's first item."""
    num_queries, width = scores.shape
    last = top_score.shape[1] - 1
    row = np.empty_like(scores[0])
    is_match = np.zeros(width, np.bool_)
    wrong = 0
    for number in range(num_queries):
        query = begin + number
        not_finite = 0
        for item in range(width):
            row[item] = scores[number, item]
            not_finite += row[item] - row[item] != 0  # NaN, and so is inf - inf
        wrong += not_finite
        for item in junk:
            row[item] = -np.inf
        for ignored in range(ignored_start[query], ignored_start[query + 1]):
            item = ignored_place[ignored] - first
            if 0 <= item < width:
                row[item] = -np.inf

        for match in range(start[query], start[query + 1]):
            own, item = score[match], place[match] - first
            if 0 <= item < width:
                is_match[item] = True
            # slices and 32 bits: loops that the compiler turns into vector instructions
            earlier = row[: min(max(item, 0), width)]
            later = row[len(earlier) :]
            found = np.int32(0)
            for other in range(len(earlier)):
                found = np.int32(found + (earlier[other] >= own))
            for other in range(len(later)):
                found = np.int32(found + (later[other] > own))
            ahead[match] += found
            if len(better):
                greater, as_great = np.int32(0), np.int32(0)
                for other in range(width):
                    greater = np.int32(greater + (row[other] > own))
                    as_great = np.int32(as_great + (row[other] >= own))
                better[match] += greater
                not_worse[match] += as_great

        best, where = top_score[query], top_index[query]
        least = min(best[last], best_other[query])
        for edge in range(0, width, 64):
            chunk = row[edge : edge + 64]
            found = np.int32(0)
            for item in range(len(chunk)):
                found = np.int32(found + (chunk[item] > least))
            if found == 0:
                continue
            for item in range(edge, edge + len(chunk)):
                value = row[item]
                if not value > least:
                    continue
                if value > best_other[query] and not is_match[item]:
                    best_other[query] = value
                if value > best[last]:
                    slot = last
                    while slot > 0 and value > best[slot - 1]:
                        best[slot], where[slot] = best[slot - 1], where[slot - 1]
                        slot -= 1
                    best[slot], where[slot] = value, first + item
                least = min(best[last], best_other[query])
        for match in range(start[query], start[query + 1]):
            item = place[match] - first
            if 0 <= item < width:
                is_match[item] = False
    return wrong


def _count_by_torch(
    tally: Tally,
    scores: Tensor,
    first: int,
    pool: ThreadPoolExecutor | None,  # a GPU needs none
) -> int:
    """Count by operations on whole blocks, on any device; see `count_block`."""
    wrong = int((~scores.isfinite()).sum())
    if wrong:
        return wrong
    num_queries, width = scores.shape
    items = first + torch.arange(width, device=scores.device)

    def left_out(values: Tensor, places: Places) -> Tensor:
        inside = (places.place >= first) & (places.place < first + width)
        values[places.query[inside], places.place[inside] - first] = -torch.inf
        return values

    values = left_out(scores.clone(memory_format=torch.contiguous_format), tally.ignored)
    values[:, torch.isin(items, tally.junk)] = -torch.inf

    start, query, place = tally.matches
    slot = torch.arange(len(place), device=place.device) - start[query]
    num_slots = int(slot.max()) + 1 if len(slot) else 0
    own = values.new_full((num_queries, num_slots), torch.inf)
    own[query, slot] = tally.score
    own_place = place.new_zeros((num_queries, num_slots))
    own_place[query, slot] = place
    size = max(1, FLAG_BYTES // max(1, num_slots * width))
    counts = []
    for begin in range(0, num_queries, size):
        some = slice(begin, begin + size)
        others, mine = values[some, None], own[some, :, None]
        equal = others == mine
        earlier = (equal & (items < own_place[some, :, None])).sum(dim=2)
        counts.append(torch.stack([(others > mine).sum(dim=2), equal.sum(dim=2), earlier]))
    better, equal, earlier = torch.cat(counts, dim=1)[:, query, slot]
    tally.ahead.add_(better + earlier)
    if len(tally.better):
        tally.better.add_(better)
        tally.not_worse.add_(better + equal)

    found = min(tally.top_score.shape[1], width)
    least = values.topk(found, dim=1).values[:, -1:]
    above, equal = values > least, values == least
    chosen = above | (equal & (equal.cumsum(dim=1) <= found - above.sum(dim=1, keepdim=True)))
    index = chosen.nonzero()[:, 1].view(num_queries, found)
    score = torch.cat([tally.top_score, values.gather(1, index)], dim=1)
    index = torch.cat([tally.top_index, first + index], dim=1)
    score, index = _first_of(score, index, tally.top_score.shape[1])
    tally.top_score.copy_(score)
    tally.top_index.copy_(index)
    best_other = left_out(values, tally.matches).amax(dim=1)
    tally.best_other.copy_(torch.maximum(tally.best_other, best_other))
    return 0


COUNTERS: dict[str, Callable[[Tally, Tensor, int, ThreadPoolExecutor | None], int]] = {
    "cpu": _count_compiled
}
"""By the type of the device; all others count by torch."""
