"""Ranking lists to look at: a few queries with what was found for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from crosswalk.metrics.queries import QueryResults


class RankingListData(Protocol):
    """What `RankingLists` needs of a data module, beside its queries."""

    directions: Sequence[str]
    """Retrieval directions; the lists are those of the first one."""

    def evaluation_images(self, split: str) -> Sequence[Path]:
        """Return the file of every gallery image, by sample index."""


@runtime_checkable
class CaptionQueries(Protocol):
    """A data module whose queries are captions."""

    def evaluation_captions(self, split: str) -> Sequence[str]:
        """Return the caption of every query, by sample index."""


@runtime_checkable
class ImageQueries(Protocol):
    """A data module whose queries are images."""

    def evaluation_queries(self, split: str) -> Sequence[Path]:
        """Return the file of every query, by sample index."""


class RankedItem(NamedTuple):
    """One item of a ranking list: the file of an image, or a caption.

    ``person_id`` is its person as the data call it, None where it is not known.
    """

    item: Path | str
    score: float
    is_match: bool
    person_id: int | str | None = None


class RankingList(NamedTuple):
    """One query and what is ranked first for it.

    Attributes:
        sample_index: Sample index of the query.
        query: Its text, or its file.
        person_id: Its person, as the data call it.
        first_hit: Rank of the best match, from 1; 0 without a match.
        average_precision: In [0, 1]; NaN without a match.
        found: The best items of the gallery, best first.
    """

    sample_index: int
    query: Path | str
    person_id: int | str
    first_hit: int
    average_precision: float
    found: tuple[RankedItem, ...]


def choose_queries(
    results: QueryResults, *, num_random: int, num_hardest: int, seed: int
) -> NDArray[np.int64]:
    """Return which rows of ``results`` to show: random ones, then those of lowest AP.

    The random ones depend on the seed and the queries alone, so they are the same at every epoch
    and can be compared. No row is returned twice, queries without a match never.

    Args:
        results: Per-query results.
        num_random: Number of random queries.
        num_hardest: Number of further queries of lowest average precision.
        seed: Seed of the choice.

    Example:
        >>> precision = np.array([0.9, np.nan, 0.1, 0.5])
        >>> zero = np.zeros(4, np.int64)
        >>> results = QueryResults(
        ...     np.arange(4), zero, np.array([1, 0, 1, 1]), zero, precision, *[zero] * 4
        ... )
        >>> choose_queries(results, num_random=0, num_hardest=2, seed=0)
        array([2, 3])
    """
    valid = np.flatnonzero(results.num_matches)
    chosen = np.sort(np.random.default_rng(seed).permutation(valid)[:num_random])
    rest = np.setdiff1d(valid, chosen)
    hardest = rest[np.argsort(results.average_precision[rest], kind="stable")[:num_hardest]]
    return np.concatenate([chosen, hardest])


def ranking_lists(
    results: QueryResults,
    rows: Sequence[int] | NDArray[np.int64],
    queries: Sequence[str] | Sequence[Path],
    gallery: Sequence[str] | Sequence[Path],
    *,
    people: Mapping[int, str] | None = None,
    length: int = 10,
) -> list[RankingList]:
    """Return the ranking lists of some queries.

    Args:
        results: Per-query results.
        rows: Which rows of ``results``.
        queries: Caption or file of every query, by sample index.
        gallery: Caption or file of everything that can be found, by sample index.
        people: What the data call a person, where that is not the number.
        length: Items per list, at most as many as ``results`` holds.

    Example:
        >>> one = np.ones(1, np.int64)
        >>> results = QueryResults(
        ...     0 * one, 7 * one, one, one, 1.0 * one, 1.0 * one,
        ...     np.array([[1, 0, -1]]), np.array([[7, 8, -1]]), np.array([[0.75, 0.25, -np.inf]]),
        ... )
        >>> lists = ranking_lists(results, [0], ["a red coat"], [Path("a.jpg"), Path("b.jpg")])
        >>> [(found.item.name, found.score, found.is_match) for found in lists[0].found]
        [('b.jpg', 0.75, True), ('a.jpg', 0.25, False)]
    """
    lists = []
    for row in rows:
        person_id = int(results.person_id[row])
        found = zip(
            results.top_index[row, :length].tolist(),
            results.top_person_id[row, :length].tolist(),
            results.top_score[row, :length].tolist(),
            strict=True,
        )
        sample_index = int(results.sample_index[row])
        lists.append(
            RankingList(
                sample_index,
                queries[sample_index],
                (people or {}).get(person_id, person_id),
                int(results.first_hit[row]),
                float(results.average_precision[row]),
                tuple(
                    RankedItem(
                        gallery[index], score, other == person_id, (people or {}).get(other, other)
                    )
                    for index, other, score in found
                    if index >= 0
                ),
            )
        )
    return lists


def people_of(data: object) -> Mapping[int, str]:
    """Return what the data call a person, where that is not the number; data need not say it."""
    people: Mapping[int, str] = getattr(data, "people", {})
    return people


def queries_and_gallery(
    data: RankingListData, split: str, direction: str
) -> tuple[Sequence[str] | Sequence[Path], Sequence[str] | Sequence[Path]]:
    """Return every query and everything that can be found, by sample index.

    Args:
        data: The data module.
        split: The split.
        direction: Retrieval direction, one of `crosswalk.metrics.retrieval.DIRECTIONS`.

    Raises:
        RuntimeError: If the data cannot name their queries.

    Example:
        >>> class Pairs:
        ...     directions = ("text_to_image", "image_to_text")
        ...     def evaluation_images(self, split): return [Path("a.jpg")]
        ...     def evaluation_captions(self, split): return ["a red coat", "a bag"]
        >>> queries_and_gallery(Pairs(), "test", "image_to_text")[1]
        ['a red coat', 'a bag']
    """
    images = data.evaluation_images(split)
    if isinstance(data, ImageQueries):
        return data.evaluation_queries(split), images
    if not isinstance(data, CaptionQueries):
        raise RuntimeError(
            f"{type(data).__name__} cannot name its queries, which ranking lists show. Give it "
            "evaluation_captions(split) or evaluation_queries(split)."
        )
    captions = data.evaluation_captions(split)
    return (images, captions) if direction == "image_to_text" else (captions, images)
