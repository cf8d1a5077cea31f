"""An epoch with labels and memories of every image method, on one process and on several."""

import os
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch

from crosswalk.callbacks.run_record import RunRecord
from crosswalk.config import Run, build, compose
from crosswalk.run_folder import RunFolder
from crosswalk.train import make_trainer
from crosswalk.types import ImageBatch, SourceTargetBatch
from tests.ddp.processes import run_on_processes
from tests.end_to_end.small_runs import IMAGE_METHODS, small_image_overrides, tiny_images
from tests.end_to_end.toy_run import Stopped


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_images(tmp_path_factory.mktemp("data"))


def in_float64(run: Run) -> None:
    """A tiny ResNet multiplies rounding errors several times a step: let them start small."""
    run.method.double()
    transform = run.data.transform_batch

    def widened(batch: ImageBatch | SourceTargetBatch) -> ImageBatch | SourceTargetBatch:
        batch = transform(batch)
        if isinstance(batch, SourceTargetBatch):
            return SourceTargetBatch(*(part._replace(image=part.image.double()) for part in batch))
        return batch._replace(image=batch.image.double())

    run.data.transform_batch = widened


class StopBefore(L.Callback):
    """Ends the run before training step ``count``."""

    def __init__(self, count: int) -> None:
        self.left = count

    def on_train_batch_start(self, *_: object) -> None:
        self.left -= 1
        if self.left < 0:
            raise Stopped


def two_epochs(
    kind: str, data: Path, folder: Path, devices: int, more: list[str], stop: int | None = None
) -> dict[str, Any]:
    """Return all state and all metrics after two epochs and an evaluation.

    With ``stop`` the run ends before that step, and another trainer goes on from its checkpoint.
    """
    if stop is not None:
        with pytest.raises(Stopped):
            fit(kind, data, folder, devices, more, stop)
    return fit(kind, data, folder, devices, more)


def fit(
    kind: str, data: Path, folder: Path, devices: int, more: list[str], stop: int | None = None
) -> dict[str, Any]:
    """Train, from the folder's checkpoint if there is one."""
    torch.set_num_threads(1)
    os.environ["CROSSWALK_CACHE"] = str(data / "cache")
    L.seed_everything(1, verbose=False)
    config = compose(
        small_image_overrides(kind, data, f"trainer.devices={devices}", "protocol=official", *more)
    )
    run = build(config)
    in_float64(run)
    run_folder = RunFolder(folder)
    trainer = make_trainer(run, run_folder, RunRecord(run_folder, seeds={}))
    if stop is not None:
        trainer.callbacks.append(StopBefore(stop))
    trainer.fit(run.method, datamodule=run.data, ckpt_path=run_folder.resume_checkpoint)
    return {
        "state": run.method.state_dict(),
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
    }


def assert_equal_to_one_process(alone: dict[str, Any], outcome: dict[str, Any]) -> None:
    for name, expected in alone["state"].items():
        found = outcome["state"][name]
        if expected.dtype.is_floating_point:
            error = (found - expected).abs().max()
            assert error <= 1e-7 * expected.abs().max(), name
        else:
            assert torch.equal(found, expected), name
    assert outcome["metrics"].keys() == alone["metrics"].keys()
    for name, expected in alone["metrics"].items():
        assert outcome["metrics"][name] == pytest.approx(expected, rel=1e-5, abs=1e-7), name


@pytest.mark.parametrize("kind", IMAGE_METHODS)
def test_several_processes_train_what_one_trains(kind: str, data: Path, tmp_path: Path) -> None:
    more: list[str] = []
    alone = run_on_processes(two_epochs, 1, kind, data, tmp_path / "1", 1, more)[0]

    outcomes = run_on_processes(two_epochs, 2, kind, data, tmp_path / "2", 2, more)

    for outcome in outcomes:
        assert_equal_to_one_process(alone, outcome)


@pytest.mark.parametrize("kind", ["mmcl", "mar"])
def test_statistics_over_groups_are_the_same_on_three_processes(
    kind: str, data: Path, tmp_path: Path
) -> None:
    # 12 samples on 3 processes: groups of 6 end in the middle of a process
    more = ["bn_group_size=6", "data.batch_size=12"]
    alone = run_on_processes(two_epochs, 1, kind, data, tmp_path / "1", 1, more)[0]

    outcomes = run_on_processes(two_epochs, 3, kind, data, tmp_path / "3", 3, more)

    for outcome in outcomes:
        assert_equal_to_one_process(alone, outcome)


@pytest.mark.parametrize(
    # in the second epoch, behind a checkpoint in its middle
    ("kind", "stop"),
    [("supervised", 5), ("mmcl", 7), ("mmcl_transfer", 11), ("mar", 11)],
)
def test_two_processes_go_on_exactly_where_they_stopped(
    kind: str, stop: int, data: Path, tmp_path: Path
) -> None:
    more = ["checkpoint_every_n_steps=2"]
    whole = run_on_processes(two_epochs, 2, kind, data, tmp_path / "whole", 2, more)

    parts = run_on_processes(two_epochs, 2, kind, data, tmp_path / "parts", 2, more, stop)

    for once, twice in zip(whole, parts, strict=True):
        assert once["metrics"] == twice["metrics"]
        for name, expected in once["state"].items():
            assert torch.equal(twice["state"][name], expected), name
