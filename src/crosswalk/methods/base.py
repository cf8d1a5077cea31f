"""What all methods share. It wires; it holds no encoder, loss, label, metric or flag.

A line belongs here only if every method uses it unchanged; what four of five use is a function
that four call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic

import lightning.pytorch as L
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from crosswalk.distributed import local_slice
from crosswalk.types import BatchT, ImageBatch, Needs, TextBatch

OptimFactory = Callable[[nn.Module], OptimizerLRScheduler]


class Method(L.LightningModule, Generic[BatchT]):
    """A published method: its `training_step` reads like the paper's algorithm box.

    The hooks between `training_step` and `configure_optimizers` do nothing here: a method defines
    those that its box has.

    Args:
        optim: Builds the optimizer and its schedule from the module's parameters.
    """

    needs: ClassVar[Needs]
    """Read by `crosswalk.config.check` before anything is built."""
    starts_with: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Parameters that ``checkpoint=`` must hold beside an encoder, each with the names that a
    checkpoint of a run may have for it."""
    may_start_with: ClassVar[tuple[str, ...]] = ()
    """Submodules that ``checkpoint=`` may hold beside an encoder; without them they start anew."""
    step_is_logged = False
    """Whether single values of this step are logged, ``trainer.log_every_n_steps``."""

    def __init__(self, optim: OptimFactory) -> None:
        super().__init__()
        self.optim = optim

    def embed(self, batch: ImageBatch | TextBatch) -> dict[str, Tensor]:
        """Return the ``[b, D]`` unit vectors compared at test, by view."""
        raise NotImplementedError(f"{type(self).__name__} does not define embed()")

    def training_step(self, batch: BatchT, batch_idx: int) -> Any:  # noqa: ANN401
        """Return the loss of the global batch, the same on every process."""
        raise NotImplementedError(f"{type(self).__name__} does not define training_step()")

    def wants_sweep(self, epoch: int) -> bool:
        """Return whether epoch ``epoch`` starts with a look at the whole training set."""
        return False

    def sweep_step(self, batch: Any) -> dict[str, Tensor]:  # noqa: ANN401
        """Return one row per sample of this process's batch, by column name."""
        raise NotImplementedError(f"{type(self).__name__} wants a sweep without sweep_step()")

    def on_sweep_end(self, table: dict[str, Tensor]) -> None:
        """Take the assembled table: ``[num_samples, ...]`` per column, row i of sample i."""

    def plan_labels(self) -> Tensor | None:
        """Return ``[num_samples]`` int64 labels that batches are made by, -1 = outlier."""
        return None

    @classmethod
    def gives_plan_labels(cls) -> bool:
        """Return whether the method makes labels for batches."""
        return cls.plan_labels is not Method.plan_labels

    def pseudo_labels(self) -> dict[str, Tensor]:
        """Return clusters by name, -1 = outlier; empty before there are any.

        Names that begin with "image" have ``[num_images]`` labels, the others ``[num_samples]``,
        or ``[num_images]`` where the captions of an image share a label.
        """
        return {}

    def remember(self, outputs: dict[str, Any]) -> None:
        """Write what ``training_step`` returned into queues or banks, after backward."""

    def encoder_loaded(self) -> None:
        """Take weights that were loaded into the encoder over into copies of it."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return what the optimizer builder makes of this module."""
        return self.optim(self)

    def validation_step(
        self, batch: ImageBatch | TextBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Return the embeddings of one evaluation batch for the metrics callback."""
        return self.embed(batch)

    def test_step(
        self, batch: ImageBatch | TextBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Return the embeddings of one evaluation batch for the metrics callback."""
        return self.embed(batch)

    def local_rows(self, columns: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return this process's rows of columns that cover the global batch."""
        rows = {}
        for name, column in columns.items():
            start, end = local_slice(len(column))
            rows[name] = column[start:end]
        return rows

    def log_total(self, prefix: str, losses: dict[str, Tensor]) -> Tensor:
        """Log every term and their sum as ``<prefix>/loss``; return the sum.

        The values of a step that is logged have ``_step`` behind their names.
        """
        total = sum(losses.values(), start=next(iter(losses.values())).new_zeros(()))
        terms = {f"{prefix}/loss_{name}": loss.detach() for name, loss in losses.items()}
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": 1}
        self.log(f"{prefix}/loss", total.detach(), **options)
        self.log_dict(terms, **options)
        if self.step_is_logged:
            for name, value in {f"{prefix}/loss": total.detach(), **terms}.items():
                self.log(f"{name}_step", value, on_step=True, on_epoch=False, batch_size=1)
        return total
