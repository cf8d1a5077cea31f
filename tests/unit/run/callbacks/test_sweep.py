import io
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import lightning.pytorch as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from crosswalk.run.callbacks.progress import Progress
from crosswalk.run.callbacks.sweep import EpochSweep
from crosswalk.types import DataSpec


class Rows(NamedTuple):
    value: Tensor
    sample_index: Tensor


class FourSamples:
    spec = DataSpec(num_samples=4, num_images=4, num_person_ids=2)

    def __init__(self, batches: list[list[int]]) -> None:
        self.batches = batches

    def sweep_dataloader(self, epoch: int) -> Iterator[Rows]:
        for batch in self.batches:
            index = torch.tensor(batch)
            yield Rows(index.float() + 10 * epoch, index)


class Toy(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Linear(1, 1)
        self.frozen = nn.Dropout().eval()
        self.tables: list[list[float]] = []
        self.modes: list[tuple[bool, bool]] = []

    def wants_sweep(self, epoch: int) -> bool:
        return epoch != 1

    def sweep_step(self, batch: Rows) -> dict[str, Tensor]:
        self.modes.append((self.training, torch.is_grad_enabled()))
        return {"value": 2 * batch.value}

    def on_sweep_end(self, table: dict[str, Tensor]) -> None:
        self.tables.append(table["value"].tolist())

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        assert self.training
        assert not self.frozen.training
        return self.scale(batch[0]).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(method: Toy, data: FourSamples, track: Callable[..., Any] | None = None) -> None:
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        callbacks=[EpochSweep(data, track)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(method, DataLoader(TensorDataset(torch.ones(2, 1))))


def test_a_sweep_hands_over_the_rows_in_sample_order_in_the_epochs_that_want_it() -> None:
    method = Toy()

    fit(method, FourSamples([[2, 0], [3], [1]]))

    assert method.tables == [[0.0, 2.0, 4.0, 6.0], [40.0, 42.0, 44.0, 46.0]]


def test_a_sweep_runs_in_eval_mode_without_gradient_and_restores_frozen_parts() -> None:
    method = Toy()

    fit(method, FourSamples([[0, 1, 2, 3]]))

    assert method.modes == [(False, False), (False, False)]


def test_users_are_told_what_a_sweep_does_not_its_name() -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream, terminal=False, interval=0)

    fit(Toy(), FourSamples([[2, 0], [3], [1]]), progress.track)

    assert stream.getvalue().startswith("embedding the training set 1/")


def test_a_sweep_that_misses_a_sample_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"missing \[1\] \(1 in all\)"):
        fit(Toy(), FourSamples([[0, 2, 3]]))
