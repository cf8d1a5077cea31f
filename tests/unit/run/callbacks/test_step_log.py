"""What is logged of steps: on real runs of the toy, and of a method's configuration."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as L
import pytest
import torch

from crosswalk.run.callbacks.step_log import StepLog, _num_images
from crosswalk.run.run_folder import RunFolder
from crosswalk.types import ImageBatch, SourceTargetBatch
from tests.end_to_end.toy_run import (
    NUM_EPOCHS,
    STEPS_PER_EPOCH,
    StopAt,
    Stopped,
    assert_same,
    traces,
    train_toy,
)


class Observer(StepLog):
    """Notes the gradients and rates of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.norms: list[float] = []
        self.rates: list[float] = []

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        squares = [float(p.grad.double().square().sum()) for p in pl_module.parameters()]
        self.norms.append(sum(squares) ** 0.5)
        self.rates.append(optimizer.param_groups[0]["lr"])


class Trainer:
    """As much of a trainer as `StepLog` looks at, one that logs when it is ``due``."""

    due = False

    @property
    def _logger_connector(self) -> SimpleNamespace:
        return SimpleNamespace(should_update_logs=self.due)

    fit_loop = SimpleNamespace(_should_accumulate=lambda: False)


class Module:
    def __init__(self, logged: dict[str, float]) -> None:
        self.logged = logged

    def log(self, name: str, value: float, **options: object) -> None:
        self.logged[name] = value


def step_lines(folder: Path) -> list[dict[str, Any]]:
    return [line for line in RunFolder(folder).metrics() if "grad_norm" in line]


@pytest.mark.parametrize("interval", [1, 4])
def test_gradients_rates_and_speed_are_those_of_the_step(tmp_path: Path, interval: int) -> None:
    observer = Observer()

    train_toy(tmp_path, callbacks=[observer], log_every_n_steps=interval)

    lines = step_lines(tmp_path)
    steps = [line["global_step"] for line in lines]
    assert steps == list(range(interval - 1, NUM_EPOCHS * STEPS_PER_EPOCH, interval))
    assert [line["epoch"] for line in lines] == [1 + step // STEPS_PER_EPOCH for step in steps]
    assert [line["grad_norm"] for line in lines] == pytest.approx(
        [observer.norms[step] for step in steps], rel=1e-5
    )
    assert [line["lr/0"] for line in lines] == [observer.rates[step] for step in steps]
    assert all(line["images_per_second"] >= 0 for line in lines)


def test_weights_are_the_same_however_often_steps_are_logged(tmp_path: Path) -> None:
    train_toy(tmp_path / "seldom", log_every_n_steps=1000)
    train_toy(tmp_path / "always", callbacks=[StepLog()], log_every_n_steps=1)

    seldom, always = traces(tmp_path / "seldom"), traces(tmp_path / "always")

    assert_same(always["last"], seldom["last"])
    assert_same(always["best"], seldom["best"])


def test_accumulated_steps_are_logged_once(tmp_path: Path) -> None:
    train_toy(tmp_path, callbacks=[StepLog()], accumulate_grad_batches=2)

    steps = [line["global_step"] for line in step_lines(tmp_path)]
    assert steps == list(range(NUM_EPOCHS * STEPS_PER_EPOCH // 2))


@pytest.mark.parametrize("count", [3, STEPS_PER_EPOCH + 4])
def test_a_run_stopped_within_an_epoch_logs_the_same_steps(tmp_path: Path, count: int) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_toy(whole, callbacks=[StepLog()], log_every_n_steps=2)

    with pytest.raises(Stopped):
        train_toy(parts, StopAt("step", count), callbacks=[StepLog()], log_every_n_steps=2)
    train_toy(parts, callbacks=[StepLog()], log_every_n_steps=2)

    found, expected = traces(parts), traces(whole)
    assert_same(found["metrics"], expected["metrics"])
    assert_same(found["csv"], expected["csv"])


def test_the_speed_counts_training_steps_alone() -> None:
    """A sweep and a validation of 100 seconds lie between steps of one second with 3 images."""
    times = iter([0.0, 1.0, 2.0, 102.0, 103.0])
    logged: dict[str, float] = {}
    log, trainer, module = StepLog(lambda: next(times)), Trainer(), Module(logged)
    images = ImageBatch(torch.zeros(3, 3, 1, 1), *[torch.zeros(3)] * 3, key=None)

    log.on_train_batch_start(trainer, module, images, 0)
    log.on_train_batch_end(trainer, module, None, images, 0)
    log.on_train_batch_start(trainer, module, images, 0)
    log.on_train_batch_end(trainer, module, None, images, 1)
    log.on_validation_end(trainer, module)
    log.on_train_epoch_end(trainer, module)
    log.on_train_batch_start(trainer, module, images, 0)
    trainer.due = True
    log.on_train_batch_end(trainer, module, None, images, 0)

    assert logged == {"images_per_second": 3.0}


def test_images_of_all_sets_count() -> None:
    sets = [ImageBatch(torch.zeros(n, 3, 1, 1), *[torch.zeros(n)] * 3, key=None) for n in (2, 5)]

    assert _num_images(SourceTargetBatch(*sets)) == 7
    assert _num_images(torch.zeros(4)) == 0
