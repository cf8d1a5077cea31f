"""Tables of ranking lists with pictures, for W&B."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.loggers import WandbLogger
from PIL import Image, ImageOps

from crosswalk.pages import small_picture
from crosswalk.run.callbacks.retrieval import metrics_of
from crosswalk.run.ranking_lists import (
    RankingList,
    RankingListData,
    choose_queries,
    people_of,
    queries_and_gallery,
    ranking_lists,
)

RIGHT, WRONG, QUERY = (0, 160, 60), (210, 30, 40), (60, 90, 200)
BORDER = 4
LARGEST = (96, 192)
"""Width and height that no picture exceeds, border included."""


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
