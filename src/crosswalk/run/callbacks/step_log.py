"""What is logged of single steps beside their losses: gradients, learning rates, speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import lightning.pytorch as L
import torch
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from crosswalk.distributed import rank_and_world_size
from crosswalk.methods.base import Method


class StepLog(L.Callback):
    """Logs ``grad_norm``, ``lr/<group>`` and ``images_per_second`` every ``log_every_n_steps``.

    It tells the method to log the losses of these steps, too.

    The norm is that of all gradients before they are clipped; the rates are those of the step; the
    speed is that of the steps since it was last logged, sweeps and validations left out. Nothing
    is measured at the steps between.

    Args:
        now: Clock in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self._last: float | None = None
        self._seconds, self._images = 0.0, 0

    def on_train_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Start the clock, after whatever came before the first step, and tell the method."""
        cast(Method[Any], pl_module).step_is_logged = _is_logged(trainer)
        if self._last is None:
            self._last = self.now()

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer
    ) -> None:
        """Log gradients and rates of this step."""
        if not _is_logged(trainer):
            return
        values = {
            # a plain number would be rounded to float32
            f"lr/{group.get('name', number)}": torch.tensor(float(group["lr"]), dtype=torch.float64)
            for number, group in enumerate(optimizer.param_groups)
        }
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        values["grad_norm"] = get_total_norm(
            [each.grad for each in parameters if each.grad is not None]
        )
        pl_module.log_dict(values, on_step=True, on_epoch=False, batch_size=1)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Count images and seconds, and log the speed of all processes together."""
        now = self.now()
        self._seconds += 0.0 if self._last is None else now - self._last
        self._last = now
        self._images += _num_images(batch) * rank_and_world_size()[1]
        if _is_logged(trainer):
            speed = self._images / max(self._seconds, 1e-9)
            pl_module.log("images_per_second", speed, on_step=True, on_epoch=False, batch_size=1)
            self._seconds, self._images = 0.0, 0

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock: what comes before the next step is no training step."""
        self._last = None

    on_validation_end = on_train_epoch_end


def _is_logged(trainer: L.Trainer) -> bool:
    """Return whether Lightning will log this step."""
    accumulates = trainer.fit_loop._should_accumulate()
    return bool(trainer._logger_connector.should_update_logs) and not accumulates


def _num_images(batch: Any) -> int:  # noqa: ANN401
    """Return the images of this process's part of a batch, of all its sets."""
    if hasattr(batch, "image"):
        return len(batch.image)
    return sum(map(_num_images, batch)) if isinstance(batch, tuple) else 0
