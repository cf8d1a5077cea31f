"""One pass over the training set at the start of an epoch, for methods that ask for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from crosswalk.distributed import gather_table
from crosswalk.methods.base import Method
from crosswalk.types import SweepData

SHOWN = "embedding the training set"
"""What users are told of a sweep, whose name `crosswalk sweep` bears, too."""


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put ``module`` into eval mode and restore every submodule's own mode afterwards.

    A plain ``module.train()`` afterwards would also wake norm layers that a method keeps frozen.

    Example:
        >>> model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
        >>> with evaluating(model):
        ...     print(model[0].training, model[1].training)
        False False
        >>> print(model[0].training, model[1].training)
        True False
    """
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


class EpochSweep(L.Callback):
    """Feeds the training set to ``sweep_step`` and the assembled table to ``on_sweep_end``.

    Hooks run outside Lightning's precision context, so the sweep enters it itself. When a run
    resumes in mid-epoch, Lightning skips this hook: what a sweep decides must be a buffer.

    Args:
        data: Gives the pass over the training set; the data module decides order and
            augmentation.
        track: ``(batches, SHOWN) -> batches`` shows how far a sweep is.
    """

    def __init__(
        self, data: SweepData, track: Callable[[Iterable[Any], str], Iterable[Any]] | None = None
    ) -> None:
        self.data = data
        self.track = track

    @torch.no_grad()
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Run the sweep if the method wants one for this epoch."""
        epoch = trainer.current_epoch
        method = cast(Method[Any], pl_module)
        if not method.wants_sweep(epoch):
            return
        columns: dict[str, list[Tensor]] = defaultdict(list)
        index: list[Tensor] = []
        with evaluating(pl_module), trainer.precision_plugin.val_step_context():
            batches = self.data.sweep_dataloader(epoch)
            for batch in self.track(batches, SHOWN) if self.track else batches:
                batch = trainer.strategy.batch_to_device(batch)
                index.append(batch.sample_index)
                for name, rows in method.sweep_step(batch).items():
                    columns[name].append(rows)
        sample_index = torch.cat(index)
        num_samples = self.data.spec.num_samples
        method.on_sweep_end(
            {
                name: gather_table(sample_index, torch.cat(rows), num_samples)
                for name, rows in columns.items()
            }
        )
