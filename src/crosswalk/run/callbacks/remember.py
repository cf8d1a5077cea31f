"""Writes of queues and banks, after backward and before a checkpoint of the same step."""

from __future__ import annotations

from typing import Any, cast

import lightning.pytorch as L

from crosswalk.methods.base import Method


class StepMemory(L.Callback):
    """Hands what ``training_step`` returned to ``remember`` of methods that have memories.

    A whole bank is read by the loss, and autograd refuses to go back through a bank written in
    the meantime, so banks are written here. Lightning calls callbacks before the module's own
    ``on_train_batch_end`` and checkpoint callbacks last, so a checkpoint contains the write of
    its own step only if a callback makes it.
    """

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Let the method write its memories."""
        cast(Method[Any], pl_module).remember(outputs)
