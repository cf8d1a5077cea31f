"""Tells how many samples the batch of a step has on all processes, which its plan knows."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L

from crosswalk.distributed import expect_rows
from crosswalk.types import SourceTargetBatch


class KnownRows(L.Callback):
    """Keeps processes from asking each other for numbers of samples in a training step.

    Two sets of different sizes in one batch are left out: what is a row of which is not known.
    """

    def on_train_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Tell it for this step."""
        parts = batch if isinstance(batch, SourceTargetBatch) else (batch,)
        known = {None if each.whole is None else len(each.whole.sample_index) for each in parts}
        expect_rows(known.pop() if len(known) == 1 else None)

    def on_train_batch_end(self, *_: object) -> None:
        """Forget it: what follows, such as a validation, has other batches."""
        expect_rows(None)

    def on_exception(self, *_: object) -> None:
        """Forget it, too."""
        expect_rows(None)
