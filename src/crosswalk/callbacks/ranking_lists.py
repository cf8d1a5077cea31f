"""Ranking lists to look at: a few queries with the images that were found for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import lightning.pytorch as L
import numpy as np
from lightning.pytorch.loggers import WandbLogger
from numpy.typing import NDArray
from PIL import Image, ImageOps

from crosswalk.callbacks.retrieval import RetrievalMetrics, checkpoint_name
from crosswalk.metrics.retrieval import QueryResults

RIGHT, WRONG = (0, 160, 60), (210, 30, 40)
BORDER = 4
LARGEST = (128, 256)
"""Width and height that no picture exceeds, border included."""


class RankingListData(Protocol):
    """What `RankingLists` needs of a data module."""

    def evaluation_captions(self, split: str) -> Sequence[str]:
        """Return the caption of every query, by sample index."""

    def evaluation_images(self, split: str) -> Sequence[Path]:
        """Return the file of every gallery image, by sample index."""


class RankedImage(NamedTuple):
    """One image of a ranking list."""

    path: Path
    score: float
    is_match: bool


class RankingList(NamedTuple):
    """One query and the images ranked first for it.

    Attributes:
        sample_index: Sample index of the query.
        caption: Its text.
        person_id: Its person.
        first_hit: Rank of the best match, from 1; 0 without a match.
        average_precision: In [0, 1]; NaN without a match.
        images: The best images, best first.
    """

    sample_index: int
    caption: str
    person_id: int
    first_hit: int
    average_precision: float
    images: tuple[RankedImage, ...]


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
    captions: Sequence[str],
    images: Sequence[Path],
    *,
    length: int = 10,
) -> list[RankingList]:
    """Return the ranking lists of some queries.

    Args:
        results: Per-query results of text-to-image retrieval.
        rows: Which rows of ``results``.
        captions: Caption of every query, by sample index.
        images: File of every gallery image, by sample index.
        length: Images per list, at most as many as ``results`` holds.

    Example:
        >>> one = np.ones(1, np.int64)
        >>> results = QueryResults(
        ...     0 * one, 7 * one, one, one, 1.0 * one, 1.0 * one,
        ...     np.array([[1, 0, -1]]), np.array([[7, 8, -1]]), np.array([[0.75, 0.25, -np.inf]]),
        ... )
        >>> found = ranking_lists(results, [0], ["a red coat"], [Path("a.jpg"), Path("b.jpg")])
        >>> [(image.path.name, image.score, image.is_match) for image in found[0].images]
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
                captions[sample_index],
                person_id,
                int(results.first_hit[row]),
                float(results.average_precision[row]),
                tuple(
                    RankedImage(Path(images[index]), score, other == person_id)
                    for index, other, score in found
                    if index >= 0
                ),
            )
        )
    return lists


def framed_picture(image: RankedImage) -> Image.Image:
    """Return the image, made small, in a green frame if it is a match and in a red one if not.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "large.png"
        >>> Image.new("RGB", (300, 900)).save(path)
        >>> picture = framed_picture(RankedImage(path, 0.5, is_match=True))
        >>> picture.size, picture.getpixel((0, 0))
        ((91, 256), (0, 160, 60))
    """
    with Image.open(image.path) as file:
        picture = file.convert("RGB")
    picture.thumbnail((LARGEST[0] - 2 * BORDER, LARGEST[1] - 2 * BORDER))
    return ImageOps.expand(picture, BORDER, RIGHT if image.is_match else WRONG)


class RankingLists(L.Callback):
    """Logs a table of ranking lists with pictures to W&B when a checkpoint is tested.

    A run tests its best and its last epoch, so there is one table for each. Without a W&B logger
    nothing happens. Needs `RetrievalMetrics` before it among the callbacks.

    Args:
        num_random: Queries drawn by ``seed``, the same in every table.
        num_hardest: Further queries, those of lowest average precision.
        length: Images per query.
        seed: Seed of the choice.
        split: The split whose queries are shown.
        direction: The retrieval direction; its queries must be captions.
    """

    def __init__(
        self,
        *,
        num_random: int = 32,
        num_hardest: int = 8,
        length: int = 10,
        seed: int = 0,
        split: str = "test",
        direction: str = "text_to_image",
    ) -> None:
        self.num_random = num_random
        self.num_hardest = num_hardest
        self.length = length
        self.seed = seed
        self.split = split
        self.direction = direction

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the table of the checkpoint under test."""
        loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        if not loggers or not trainer.is_global_zero:
            return
        results = self._results(trainer)
        if results is None:
            return
        data: RankingListData = trainer.datamodule  # type: ignore[attr-defined]
        rows = choose_queries(
            results, num_random=self.num_random, num_hardest=self.num_hardest, seed=self.seed
        )
        lists = ranking_lists(
            results,
            rows,
            data.evaluation_captions(self.split),
            data.evaluation_images(self.split),
            length=self.length,
        )
        columns, cells = self._table(lists)
        key = f"ranking_lists/{self.split}-{checkpoint_name(trainer)}"
        for logger in loggers:
            logger.log_table(key, columns=columns, data=cells)

    def _results(self, trainer: L.Trainer) -> QueryResults | None:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RetrievalMetrics) and self.split in callback.results:
                return callback.results[self.split].queries.get(self.direction)
        return None

    def _table(self, lists: Sequence[RankingList]) -> tuple[list[str], list[list[Any]]]:
        import wandb  # slow to import, and only needed with a W&B logger

        longest = max((len(each.images) for each in lists), default=0)
        columns = ["sample", "choice", "caption", "person", "rank of first hit", "AP"]
        cells = []
        for number, each in enumerate(lists):
            pictures: list[Any] = [
                wandb.Image(framed_picture(image), caption=f"{image.score:.3f}", file_type="jpg")
                for image in each.images
            ]
            pictures += [None] * (longest - len(pictures))
            choice = "random" if number < self.num_random else "hardest"
            facts = [each.sample_index, choice, each.caption, each.person_id]
            cells.append([*facts, each.first_hit, each.average_precision, *pictures])
        return [*columns, *(f"#{rank}" for rank in range(1, longest + 1))], cells
