"""Looks at which patches and words a model selects, when a checkpoint is tested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import lightning.pytorch as L
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from crosswalk.diagnostics.token_selection_record import (
    SelectedCaption,
    SelectedImage,
    TokenSelectionRecord,
    present,
    token_selection_file,
    write_token_selection,
)
from crosswalk.metrics.retrieval import QueryResults
from crosswalk.pages import small_picture
from crosswalk.run.callbacks.ranking_lists import choose_queries
from crosswalk.run.callbacks.retrieval import RetrievalMetrics, checkpoint_name
from crosswalk.run.callbacks.sweep import evaluating

LARGEST = (128, 256)
"""Width and height that no picture exceeds."""
DIRECTION = "text_to_image"


@runtime_checkable
class SelectsTokens(Protocol):
    """An encoder that embeds images and captions by some of their tokens."""

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Rows and columns of patches that an image is cut into."""

    def selected_patches(self, image: Tensor) -> Tensor:
        """Return ``[B, k]`` patches, numbered by rows, best first."""

    def selected_words(self, tokens: Tensor) -> Tensor:
        """Return ``[B, k]`` places of the token ids, best first, -1 behind them."""


@runtime_checkable
class DecodesTokens(Protocol):
    """A tokenizer whose ids stand for pieces of text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``; a space stands behind every word."""


def choose_examples(results: QueryResults, *, num_drawn: int, seed: int) -> dict[int, str]:
    """Return rows of ``results`` to show with the reason: drawn ones, best, median and worst.

    Queries without a match are never shown, and none is shown twice.

    Args:
        results: Per-query results.
        num_drawn: Queries drawn by ``seed``, the same for every checkpoint.
        seed: Seed of the draw.

    Example:
        >>> precision = np.array([0.9, np.nan, 0.1, 0.5])
        >>> zero = np.zeros(4, np.int64)
        >>> results = QueryResults(
        ...     np.arange(4), zero, np.array([1, 0, 1, 1]), zero, precision, *[zero] * 4
        ... )
        >>> choose_examples(results, num_drawn=0, seed=0)
        {0: 'best', 3: 'median', 2: 'worst'}
    """
    drawn = choose_queries(results, num_random=num_drawn, num_hardest=0, seed=seed)
    chosen = dict.fromkeys(drawn.tolist(), "drawn")
    rest = np.setdiff1d(np.flatnonzero(results.num_matches), drawn)
    order = rest[np.argsort(-results.average_precision[rest], kind="stable")].tolist()
    if order:
        for choice, place in (("best", 0), ("median", len(order) // 2), ("worst", -1)):
            chosen.setdefault(order[place], choice)
    return chosen


class TokenSelectionRecorder(L.Callback):
    """Writes ``diagnostics/token_selection-<checkpoint>.npz`` when a checkpoint is tested.

    The queries are a few drawn ones, the same for every checkpoint, and those of best, median and
    worst average precision; the images are those found first for them. Works for an encoder that
    `SelectsTokens` of a tokenizer that `DecodesTokens`, leaves others alone. Needs
    `RetrievalMetrics` before it among the callbacks. The first process looks and writes alone.

    Args:
        folder: The run folder.
        num_drawn: Queries drawn by ``seed``.
        num_found: Images per query.
        seed: Seed of the draw.
        split: The split whose queries are shown.
    """

    def __init__(
        self,
        folder: Path,
        *,
        num_drawn: int = 6,
        num_found: int = 3,
        seed: int = 0,
        split: str = "test",
    ) -> None:
        self.folder = Path(folder)
        self.num_drawn = num_drawn
        self.num_found = num_found
        self.seed = seed
        self.split = split

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the file of the checkpoint under test."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        encoder = getattr(pl_module, "encoder", None)
        tokenizer = getattr(data, "tokenizer", None)
        if not isinstance(encoder, SelectsTokens) or not isinstance(tokenizer, DecodesTokens):
            return
        metrics = self._metrics(trainer)
        if metrics is None or not trainer.is_global_zero:
            return
        results = metrics.results[self.split].queries[DIRECTION]
        roles = list(data.evaluation_roles("test"))
        loaders = [
            trainer.test_dataloaders[roles.index((self.split, role))]  # type: ignore[index]
            for role in ("query", "gallery")
        ]
        chosen = choose_examples(results, num_drawn=self.num_drawn, seed=self.seed)
        rows = np.array(list(chosen), dtype=np.int64)
        found = results.top_index[rows, : self.num_found]
        with evaluating(pl_module), trainer.precision_plugin.test_step_context():
            captions = self._captions(trainer, encoder, loaders[0], results.sample_index[rows])
            images = self._images(trainer, encoder, loaders[1], np.unique(found[found >= 0]))
        record = TokenSelectionRecord(
            encoder.patch_grid,
            tuple(
                SelectedCaption(
                    sample_index=int(results.sample_index[row]),
                    choice=choice,
                    pieces=tuple(tokenizer.decode([number]) for number in ids),
                    selected=tuple(place for place in selected if 0 <= place < len(ids)),
                    average_precision=float(results.average_precision[row]),
                    found=present(top),
                    is_match=tuple(
                        (results.top_person_id[row, : self.num_found] == results.person_id[row])[
                            top >= 0
                        ].tolist()
                    ),
                )
                for (row, choice), (ids, selected), top in zip(
                    chosen.items(), captions, found, strict=True
                )
            ),
            images,
        )
        tag = metrics.tag or checkpoint_name(trainer)
        write_token_selection(token_selection_file(self.folder, tag), record)

    def _metrics(self, trainer: L.Trainer) -> RetrievalMetrics | None:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RetrievalMetrics) and self.split in callback.results:
                return callback
        return None

    def _captions(
        self,
        trainer: L.Trainer,
        encoder: SelectsTokens,
        loader: Any,  # noqa: ANN401
        index: NDArray[np.int64],
    ) -> list[tuple[list[int], list[int]]]:
        """Return the ids between start and end of each caption, and the selected ones of them."""
        tokens = trainer.strategy.batch_to_device(loader.batch_of(index)).tokens
        selected = encoder.selected_words(tokens) - 1  # counted behind the start token
        ends = tokens.argmax(dim=1).tolist()
        return [
            (ids[1:end], places)
            for ids, end, places in zip(tokens.tolist(), ends, selected.tolist(), strict=True)
        ]

    def _images(
        self,
        trainer: L.Trainer,
        encoder: SelectsTokens,
        loader: Any,  # noqa: ANN401
        index: NDArray[np.int64],
    ) -> dict[int, SelectedImage]:
        batch = loader.batch_of(index)
        pixels = batch.image.permute(0, 2, 3, 1).numpy()
        selected = encoder.selected_patches(trainer.strategy.batch_to_device(batch).image)
        return {
            sample: SelectedImage(small_picture(Image.fromarray(each), LARGEST), tuple(places))
            for sample, each, places in zip(index.tolist(), pixels, selected.tolist(), strict=True)
        }
