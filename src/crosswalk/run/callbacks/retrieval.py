"""Retrieval metrics of every evaluation, for any method that returns embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from crosswalk.files import write_arrays
from crosswalk.metrics.reranking import Reranking
from crosswalk.metrics.retrieval import RetrievalResult, RetrievalScores
from crosswalk.run.run_folder import RunFolder
from crosswalk.types import EvaluationData, ImageBatch, TextBatch


class RetrievalMetrics(L.Callback):
    """Ranks the gallery for every query once all evaluation batches are through.

    Collects what ``validation_step`` and ``test_step`` return (``{view: [b, D] unit vectors}``);
    the data module (`crosswalk.types.EvaluationData`) says which loader holds queries and which
    the gallery, what is looked for in what, whether the camera rule holds, and which further
    definitions of average precision are measured. Logs ``<split>/rank1``, ``rank5``, ``rank10``,
    ``map`` and ``minp`` as fractions, the same value on every process, further directions,
    definitions and single views as `RetrievalScores` names them, and the number of queries that
    were skipped because nothing matches them. Without validation loaders it waits for a test.
    A re-ranking is measured in tests only (``<split>/reranked/rank1``): it takes its time, and no
    epoch is chosen by it.

    Per-query results go to ``<folder>/queries/<split>-<tag>.npz`` (`RunFolder.queries`): tag "last"
    after every validation during training, "best" after one that is better than all before it;
    outside of training the name of the checkpoint, "current" without one.

    A test also writes the embeddings of a few persons of the test split, always the same ones, to
    ``<folder>/diagnostics/embeddings-<tag>.npz`` (`crosswalk.metrics.samples.DrawnSamples`, the
    embeddings as float16), for a map of them.

    Args:
        topk: Length of the ranking lists kept per query.
        monitor: The measure that decides which validation is the best, strictly greater is;
            None: none is.
        folder: Run folder; None: the trainer's ``default_root_dir``.
        reranking: A function of `crosswalk.metrics.reranking` with its numbers set, or None.
        num_drawn_persons: Persons whose embeddings a test writes.
    """

    def __init__(
        self,
        *,
        topk: int = 10,
        monitor: str | None = "rank1",
        folder: str | Path | None = None,
        reranking: Reranking | None = None,
        num_drawn_persons: int = 20,
    ) -> None:
        self.topk = topk
        self.monitor = monitor
        self.folder = folder
        self.reranking = reranking
        self.num_drawn_persons = num_drawn_persons
        self.tag: str | None = None
        """Name of what is tested, where the trainer loads no checkpoint by itself."""
        self.results: dict[str, RetrievalResult] = {}
        """Of the latest evaluation, by split."""
        self._best: dict[str, float] = {}
        self._roles: list[tuple[str, str]] = []
        self._scores: dict[str, RetrievalScores] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the best value of each split, so that a resumed run keeps its best results."""
        return {"best": dict(self._best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what `state_dict` returned."""
        self._best = dict(state_dict["best"])

    def tested(self, trainer: L.Trainer) -> str:
        """Return the name of what is evaluated, "current" for weights in memory."""
        return self.tag or (Path(trainer.ckpt_path).stem if trainer.ckpt_path else "current")

    def measured(self) -> dict[str, float]:
        """Return what the latest evaluation measured, by ``<split>/<measure>``, unrounded."""
        return {
            f"{split}/{name}": value
            for split, result in self.results.items()
            for name, value in result.values.items()
        }

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start with empty metrics."""
        self.results = {}
        self._roles, self._scores = [], {}
        # A partial gallery has no meaning.
        if trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        data: EvaluationData | None = trainer.datamodule  # type: ignore[attr-defined]
        if data is None:
            raise RuntimeError(
                "retrieval metrics need a data module that tells queries from gallery. Call the "
                "trainer with datamodule=..., not with single loaders."
            )
        stage = "test" if trainer.testing else "validate"
        self._roles = list(data.evaluation_roles(stage))
        self._scores = {
            split: RetrievalScores(
                num_query=data.num_evaluation_samples(split, "query"),
                num_gallery=data.num_evaluation_samples(split, "gallery"),
                camera_rule=data.camera_rule,
                same_pictures=data.same_pictures(split),
                topk=self.topk,
                directions=data.directions,
                extra_map=data.extra_map,
                reranking=self.reranking if stage == "test" else None,
                num_drawn_persons=self.num_drawn_persons if stage == split == "test" else 0,
            ).to(pl_module.device)
            for split, _ in self._roles
        }

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: STEP_OUTPUT,
        batch: TextBatch | ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take one batch."""
        if not self._scores:
            return
        if not isinstance(outputs, Mapping):
            raise RuntimeError(
                "validation_step and test_step must return {view: [b, D] unit vectors} for the "
                f"retrieval metrics, not {type(outputs).__name__}."
            )
        split, role = self._roles[dataloader_idx]
        views: Mapping[str, Tensor] = outputs
        self._scores[split].update(
            role, views, batch.person_id, batch.camera_id, batch.sample_index
        )

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log, and keep the per-query results of the last and of the best validation."""
        self._finish(trainer, pl_module)
        for split, result in self.results.items():
            if trainer.state.fn != TrainerFn.FITTING:
                self._write(trainer, split, self.tested(trainer))
                continue
            self._write(trainer, split, "last")
            if self.monitor is None:
                continue
            if result.values[self.monitor] > self._best.get(split, -1.0):
                self._best[split] = result.values[self.monitor]
                self._write(trainer, split, "best")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log, and keep the per-query results and some embeddings."""
        self._finish(trainer, pl_module)
        tag = self.tested(trainer)
        for split, result in self.results.items():
            self._write(trainer, split, tag)
            if result.drawn is not None and trainer.is_global_zero:
                arrays = result.drawn._asdict()
                arrays["embedding"] = arrays["embedding"].astype(np.float16)
                write_arrays(self._folder(trainer).embeddings_file(tag), arrays)

    def _folder(self, trainer: L.Trainer) -> RunFolder:
        return RunFolder(Path(self.folder or trainer.default_root_dir))

    def _finish(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.results = {split: scores.compute() for split, scores in self._scores.items()}
        self._scores = {}  # the embeddings are not needed any more
        for result in self.results.values():
            if self.monitor is not None and self.monitor not in result.values:
                raise ValueError(
                    f"monitor={self.monitor!r} of the retrieval metrics is not measured; choose "
                    f"one of {sorted(result.values)}."
                )
        measured = self.measured()
        for name, value in measured.items():
            # Equal on all processes; Lightning asks for a reduction, and max keeps every bit.
            pl_module.log(
                name,
                value,
                on_step=False,
                on_epoch=True,
                sync_dist=True,
                reduce_fx="max",
                add_dataloader_idx=False,
                batch_size=1,
                logger=False,
            )
        # a test repeats an epoch's evaluation: no further point of its curves
        if measured and not trainer.testing:
            # by ourselves, as what Lightning hands to loggers it has rounded to float32
            step = trainer.fit_loop.epoch_loop._batches_that_stepped
            for logger in trainer.loggers:
                logger.log_metrics({**measured, "epoch": trainer.current_epoch}, step)

    def _write(self, trainer: L.Trainer, split: str, tag: str) -> None:
        if trainer.is_global_zero:
            self._folder(trainer).save_queries(split, tag, self.results[split].queries)


def metrics_of(trainer: L.Trainer, split: str) -> RetrievalMetrics | None:
    """Return the callback of ``trainer`` that has evaluated ``split``; None if none has."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, RetrievalMetrics) and split in callback.results:
            return callback
    return None
