"""Checkpoints from which a run continues as if it had never stopped.

Lightning saves its loops in the middle of a hook and guesses at a restart where it was. Here a
checkpoint is taken at two kinds of points only, and its loop counters say exactly which:

- the end of an epoch, after validation and all other epoch-end work: a resumed run starts the
  next epoch afresh;
- the end of a training step that is not the last before a validation: a resumed run takes the
  next step.

A file is written beside the current one and takes its place at the next hook, when the metrics
of the step or epoch it belongs to have been logged. A run killed in between continues from the
checkpoint before, so that no line of the log is ever missing.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from crosswalk.distributed import gather_objects, rank_and_world_size
from crosswalk.files import sync_to_disk, whole
from crosswalk.run.callbacks.process_state import (
    random_state,
    restore_random_state,
    restore_running_means,
    running_means,
)
from crosswalk.run.tracking import RunLogger
from crosswalk.weight_files import read_weight_file, state_dict_of
from crosswalk.words import counted


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, and loads plain containers and tensors only.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "last.ckpt"
        >>> counters = {"epoch": 0, "global_step": 3, "loops": {}}
        >>> AtomicCheckpointIO().save_checkpoint(
        ...     {"state_dict": {"w": torch.ones(2)}, **counters}, path
        ... )
        >>> AtomicCheckpointIO().load_checkpoint(path)["state_dict"]
        {'w': tensor([1., 1.])}
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,  # noqa: ANN401
    ) -> None:
        """Write ``checkpoint`` whole or not at all."""
        with whole(Path(path)) as unfinished:
            torch.save(checkpoint, unfinished)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, location: storage,
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Return the checkpoint at ``path``, on the CPU; code inside a file is never run."""
        if not Path(path).exists():
            raise FileNotFoundError(
                f"checkpoint {path} is missing. A run folder has last.ckpt after its first epoch "
                "or its first checkpoint_every_n_steps steps."
            )
        return read_checkpoint(Path(path))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint of a run, on the CPU.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged, or no checkpoint of a run; the message names the file.
    """
    checkpoint = read_weight_file(path)
    state_dict_of(checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None, path)
    missing = [name for name in ("epoch", "global_step", "loops") if name not in checkpoint]
    if missing:
        raise ValueError(
            f"{path} is no checkpoint of a run: it has no {missing[0]!r}. Put back a copy, or use "
            "it as weights of a new run: checkpoint=<file>."
        )
    whole_checkpoint: dict[str, Any] = checkpoint
    return whole_checkpoint


class Checkpoints(Checkpoint):
    """Keeps ``last.ckpt``, from which a run continues exactly, and ``best.ckpt``.

    Args:
        folder: Where the two files go.
        record: Plain dictionary stored under the key ``crosswalk`` of each checkpoint: config,
            version, commit, W&B run id.
        monitor: Metric of validation by which an epoch is better, the larger the better; the
            first of equal epochs is kept. None keeps no best epoch.
        every_n_steps: Optimizer steps between checkpoints inside an epoch; 0 for none.
    """

    def __init__(
        self,
        folder: Path,
        *,
        record: Mapping[str, Any],
        monitor: str | None = "val/rank1",
        every_n_steps: int = 0,
    ) -> None:
        self.last = Path(folder) / "last.ckpt"
        self.best = Path(folder) / "best.ckpt"
        self.monitor = monitor
        self.every_n_steps = every_n_steps
        self.record = dict(record)
        self.best_score: float | None = None
        self.best_epoch: int | None = None
        self._next = self.last.with_name("last.ckpt.next")
        self._waiting = False
        self._at_epoch_end = False
        self._validated = False
        self._step_of_last = 0
        self._step_before = 0
        self._loaded: dict[str, Any] | None = None

    # What is saved

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what Lightning leaves out, and make the loop counters say where the run is."""
        epoch_loop = trainer.fit_loop.epoch_loop
        means = [] if self._at_epoch_end else running_means(trainer)
        mine = {"random": random_state(), "means": means}
        checkpoint["crosswalk"] = dict(self.record)
        checkpoint["resume"] = {
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "log_step": epoch_loop._batches_that_stepped + (not self._at_epoch_end),
            "processes": gather_objects(mine),
        }
        if self._at_epoch_end:
            # Counters of a finished epoch, so that Lightning neither validates again nor takes
            # the last epoch for unfinished, and of a next epoch of which nothing was done.
            loops = checkpoint["loops"]["fit_loop"]
            for count in loops["epoch_progress"].values():
                count["completed"] = count["processed"]
            for loop in ("epoch_loop.batch_progress", "epoch_loop.val_loop.batch_progress"):
                loops[loop]["current"] = dict.fromkeys(loops[loop]["current"], 0)
                loops[loop]["is_last_batch"] = False
            loops["state_dict"].pop("combined_loader", None)

    # When it is saved

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Save if ``every_n_steps`` optimizer steps have passed."""
        step = trainer.global_step
        just_stepped = step > self._step_before  # gradients still accumulating are not saved
        self._step_before = step
        due = self.every_n_steps and step - self._step_of_last >= self.every_n_steps
        if due and just_stepped and batch_idx + 1 < trainer.num_training_batches:
            self._save(trainer, at_epoch_end=False)

    def on_train_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Let the waiting file take its place: the metrics of its step are logged now."""
        self._take_place(trainer)
        if self._loaded is not None:
            # Lightning resets the means of the epoch at what it takes for the first batch.
            trainer._logger_connector._first_loop_iter = False
            self._loaded = None

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Drop the waiting file: Lightning, restarted from it, would skip this validation."""
        if self._waiting and not trainer.sanity_checking:
            self._waiting = False
            if trainer.is_global_zero:
                self._next.unlink(missing_ok=True)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note that the monitored metric is new."""
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, and keep a copy if validation found the best epoch so far."""
        better = self._is_best(trainer)
        self._save(trainer, at_epoch_end=True)
        # Before the file becomes last.ckpt, which already contains the new best score.
        if better and trainer.is_global_zero:
            self._copy(self._next, self.best)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let the file of the last epoch take its place: the epoch's metrics are logged now."""
        self._take_place(trainer)
        self._loaded = None

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let the file of the last epoch take its place."""
        self._take_place(trainer)

    # How a run continues

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep what the next two hooks put back."""
        if trainer.state.fn != "fit":
            return
        if "resume" not in checkpoint:
            raise RuntimeError(
                "this checkpoint was not written by `crosswalk train`, so no run can continue from "
                "it. Use it as weights of a new run (checkpoint=<file>), without resume."
            )
        self._loaded = checkpoint["resume"]
        if trainer.is_global_zero:
            counters = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
            step = f", step {counters['ready']}" if counters["ready"] else ""
            print(
                f"{self.last.parent} continues behind epoch {1 + checkpoint['epoch']}{step}.",
                file=sys.stderr,
            )

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put back the best score and cut the log back to the checkpoint.

        Not later: of a run that only its evaluation is missing of, Lightning starts no training.
        """
        self._waiting = False
        if trainer.is_global_zero:
            for leftover in self.last.parent.glob("*.ckpt.*"):  # of a killed run
                leftover.unlink()
        log_step = 0
        if self._loaded is not None:
            num_processes, world_size = len(self._loaded["processes"]), rank_and_world_size()[1]
            if num_processes != world_size:
                raise RuntimeError(
                    f"this run was on {counted(num_processes, 'process')} and can only continue on "
                    f"as many, but there are {world_size}. Set trainer.devices accordingly."
                )
            self.best_score = self._loaded["best_score"]
            self.best_epoch = self._loaded["best_epoch"]
            log_step = self._loaded["log_step"]
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.cut(log_step)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put back the means and the random generators, once everything else is set up."""
        if any(config.reduce_on_plateau for config in trainer.lr_scheduler_configs):
            raise ValueError(
                "ReduceLROnPlateau is stepped after the checkpoint of its epoch, so a run with it "
                "cannot resume exactly. Choose a schedule that depends on steps or epochs (optim=)."
            )
        if self._loaded is not None:
            mine = self._loaded["processes"][rank_and_world_size()[0]]
            restore_running_means(trainer, mine["means"])
            restore_random_state(mine["random"])
        self._step_of_last = self._step_before = trainer.global_step

    # Parts

    def _is_best(self, trainer: L.Trainer) -> bool:
        if self.monitor is None or not self._validated:
            return False
        self._validated = False
        score: float | Tensor | None = trainer.callback_metrics.get(self.monitor)
        if score is None:
            known = ", ".join(sorted(str(name) for name in trainer.callback_metrics))
            raise ValueError(
                f"{self.monitor}, which chooses the best epoch (protocol=), is not among the "
                f"metrics of validation: {known}"
            )
        score = float(score)
        if math.isnan(score) or (self.best_score is not None and score <= self.best_score):
            return False
        self.best_score, self.best_epoch = score, trainer.current_epoch
        return True

    def _save(self, trainer: L.Trainer, *, at_epoch_end: bool) -> None:
        self._at_epoch_end = at_epoch_end
        trainer.save_checkpoint(self._next, weights_only=False)
        self._waiting = True

    def _take_place(self, trainer: L.Trainer) -> None:
        if not self._waiting:
            return
        self._waiting = False
        self._step_of_last = trainer.global_step
        if trainer.is_global_zero:
            os.replace(self._next, self.last)
            sync_to_disk(self.last.parent)

    def _copy(self, source: Path, target: Path) -> None:
        with whole(target) as unfinished:
            try:
                os.link(source, unfinished)
            except OSError:  # a file system without hard links
                shutil.copyfile(source, unfinished)
