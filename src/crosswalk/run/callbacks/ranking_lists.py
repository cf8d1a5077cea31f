"""Ranking lists to look at: a few queries with what was found for them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import lightning.pytorch as L
import numpy as np
from lightning.pytorch.loggers import WandbLogger
from numpy.typing import NDArray
from PIL import Image, ImageOps

from crosswalk.metrics.queries import QueryResults
from crosswalk.pages import small_picture
from crosswalk.run.callbacks.retrieval import metrics_of

RIGHT, WRONG, QUERY = (0, 160, 60), (210, 30, 40), (60, 90, 200)
BORDER = 4
LARGEST = (96, 192)
"""Width and height that no picture exceeds, border included."""


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


def framed_picture(path: Path, frame: tuple[int, int, int]) -> Image.Image:
    """Return the image, made small, in a frame: green for a match, red for none, blue for a query.

    The colours are those of the frames in ``templates/page.css``.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "large.png"
        >>> Image.new("RGB", (300, 900)).save(path)
        >>> picture = framed_picture(path, RIGHT)
        >>> picture.size, picture.getpixel((0, 0))
        ((69, 192), (0, 160, 60))
    """
    picture = small_picture(path, (LARGEST[0] - 2 * BORDER, LARGEST[1] - 2 * BORDER))
    return ImageOps.expand(picture, BORDER, frame)


class RankingLists(L.Callback):
    """Logs a table of ranking lists with pictures to W&B when a checkpoint is tested.

    There is one table for each checkpoint that a run tests, such as its best and its last epoch.
    Queries that are images are shown ahead of what was found for them. Without a W&B logger
    nothing happens. Needs `RetrievalMetrics` before it among the callbacks.

    Args:
        num_random: Queries drawn by ``seed``, the same in every table.
        num_hardest: Further queries, those of lowest average precision.
        length: Images per query.
        seed: Seed of the choice.
        split: The split whose queries are shown.
    """

    def __init__(
        self,
        *,
        num_random: int = 16,
        num_hardest: int = 8,
        length: int = 10,
        seed: int = 0,
        split: str = "test",
    ) -> None:
        self.num_random = num_random
        self.num_hardest = num_hardest
        self.length = length
        self.seed = seed
        self.split = split

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the table of the checkpoint under test."""
        loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        if not loggers or not trainer.is_global_zero:
            return
        data: RankingListData = trainer.datamodule  # type: ignore[attr-defined]
        metrics = metrics_of(trainer, self.split)
        if metrics is None:
            return
        direction = data.directions[0]
        results = metrics.results[self.split].queries[direction]
        rows = choose_queries(
            results, num_random=self.num_random, num_hardest=self.num_hardest, seed=self.seed
        )
        lists = ranking_lists(
            results,
            rows,
            *queries_and_gallery(data, self.split, direction),
            people=people_of(data),
            length=self.length,
        )
        key = f"ranking_lists/{self.split}-{metrics.tested(trainer)}"
        for logger in loggers:
            # pictures are files of W&B, and may fail as it may
            kept = getattr(logger, "kept_from_the_run", contextlib.nullcontext)
            with kept():
                columns, cells = self._table(lists)
                logger.log_table(key, columns=columns, data=cells)

    def _table(self, lists: Sequence[RankingList]) -> tuple[list[str], list[list[Any]]]:
        import wandb  # slow to import, and only needed with a W&B logger

        def picture(path: Path, frame: tuple[int, int, int], caption: str) -> wandb.Image:
            return wandb.Image(framed_picture(path, frame), caption=caption, file_type="jpg")

        longest = max((len(each.found) for each in lists), default=0)
        columns = ["sample", "choice", "caption", "person", "rank of first hit", "AP"]
        if any(isinstance(each.query, Path) for each in lists):
            columns = [*(name for name in columns if name != "caption"), "query"]
        cells = []
        for number, each in enumerate(lists):
            query = each.query
            facts = {
                "sample": each.sample_index,
                "choice": "random" if number < self.num_random else "hardest",
                "caption": query,
                "person": each.person_id,
                "rank of first hit": each.first_hit,
                "AP": each.average_precision,
                "query": picture(query, QUERY, query.name) if isinstance(query, Path) else query,
            }
            pictures: list[Any] = [
                picture(Path(found.item), RIGHT if found.is_match else WRONG, f"{found.score:.3f}")
                for found in each.found
            ]
            pictures += [None] * (longest - len(pictures))
            cells.append([*(facts[name] for name in columns), *pictures])
        return [*columns, *(f"#{rank}" for rank in range(1, longest + 1))], cells
