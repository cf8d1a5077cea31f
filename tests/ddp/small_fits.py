"""Training of real configurations on one process or several, for `run_on_processes`.

``-m tests.ddp.small_fits FOLDER``, started by torchrun, trains what `ask_for` wrote there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from torch.testing import assert_close

from crosswalk.config.build import Run, build
from crosswalk.config.check import check
from crosswalk.config.compose import compose
from crosswalk.config.plain import to_plain
from crosswalk.run.callbacks.run_record import RunRecord
from crosswalk.run.run_folder import RunFolder
from crosswalk.run.train import make_trainer
from crosswalk.types import ImageBatch, PairBatch, SourceTargetBatch
from tests.end_to_end.small_runs import small_run
from tests.end_to_end.toy_run import Stopped

Outcomes = Callable[[str], list[dict[str, Any]]]
"""Returns what `fit` returned for a kind of run, by rank."""


def in_float64(run: Run) -> None:
    """A tiny ResNet multiplies rounding errors several times a step: let them start small."""
    run.method.double()
    transform = run.data.transform_batch

    def widened(
        batch: ImageBatch | PairBatch | SourceTargetBatch,
    ) -> ImageBatch | PairBatch | SourceTargetBatch:
        batch = transform(batch)
        if isinstance(batch, SourceTargetBatch):
            return SourceTargetBatch(*(part._replace(image=part.image.double()) for part in batch))
        return batch._replace(image=batch.image.double()) if hasattr(batch, "image") else batch

    run.data.transform_batch = widened


class StopBefore(L.Callback):
    """Ends the run before training step ``count``."""

    def __init__(self, count: int) -> None:
        self.left = count

    def on_train_batch_start(self, *_: object) -> None:
        self.left -= 1
        if self.left < 0:
            raise Stopped


def composed(overrides: list[str]) -> dict[str, Any]:
    """Return a configuration for `fit`; this takes longer than to hand it to several processes."""
    return to_plain(compose(overrides))


def run_of(kind: str, cache: Path, *more: str) -> tuple[dict[str, Any], Path]:
    """Return the configuration, with an evaluation behind each epoch, and the cache folder."""
    # a checkpoint in the middle of the second epoch
    always = ("protocol=official", "checkpoint_every_n_steps=2")
    return composed(small_run(kind, *always, *more)), cache


def fit(
    config: dict[str, Any],
    cache: Path,
    folder: Path,
    devices: int,
    *,
    stop: int | None = None,
) -> dict[str, Any]:
    """Train in float64, from the folder's checkpoint if there is one; return all that it leaves.

    Args:
        config: From `composed`.
        cache: The cache folder.
        folder: Of the run.
        devices: Number of processes on each machine.
        stop: Before which step the run ends by raising `Stopped`.
    """
    torch.set_num_threads(1)
    os.environ["CROSSWALK_CACHE"] = str(cache)
    L.seed_everything(1, verbose=False)
    run = build(check({**config, "trainer": {**config["trainer"], "devices": devices}}))
    in_float64(run)
    run_folder = RunFolder(folder)
    trainer = make_trainer(run, run_folder, RunRecord(run_folder, seeds={}))
    if stop is not None:
        trainer.callbacks.append(StopBefore(stop))
    trainer.fit(run.method, datamodule=run.data, ckpt_path=run_folder.resume_checkpoint)
    return {
        "steps": trainer.global_step,
        "state": run.method.state_dict(),
        "optimizer": _by_name(trainer.optimizers[0].state_dict()["state"]),
        # in an order of their own: that of Lightning is the order in which they were first logged
        "metrics": {name: float(value) for name, value in sorted(trainer.callback_metrics.items())},
        "lines": [
            {name: value for name, value in sorted(line.items()) if name != "time"}
            for line in (run_folder.metrics() if trainer.is_global_zero else [])
        ],
    }


def _by_name(state: dict[int, dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Return what an optimizer keeps, one level deep; momenta that have not begun are None."""
    return {
        f"{parameter}.{name}": torch.as_tensor(value)
        for parameter, kept in state.items()
        for name, value in kept.items()
        if value is not None
    }


def fit_in_parts(
    config: dict[str, Any], cache: Path, folder: Path, devices: int, stop: int
) -> dict[str, Any]:
    """End a run before step ``stop``, let another trainer go on from its checkpoint."""
    with pytest.raises(Stopped):
        fit(config, cache, folder, devices, stop=stop)
    return fit(config, cache, folder, devices)


def assert_equal_to_one_process(alone: dict[str, Any], outcome: dict[str, Any]) -> None:
    """Check what `fit` returned: integers are equal, other numbers to 1e-7 of their tensor."""
    assert outcome["steps"] == alone["steps"]
    for part in ("state", "optimizer"):
        assert outcome[part].keys() == alone[part].keys()
        for name, expected in alone[part].items():
            size = float(expected.abs().nan_to_num().max()) if expected.is_floating_point() else 0.0
            assert_close(
                outcome[part][name],
                expected,
                rtol=0,
                # momenta of gradients that are 0 hold the rounding of their sum
                atol=1e-7 * size + (1e-11 if part == "optimizer" else 0),
                equal_nan=True,
                msg=lambda text, name=f"{part}, {name}": f"{name}: {text}",
            )
    assert_same_numbers(outcome["metrics"], alone["metrics"])
    if outcome["lines"]:  # the first process writes them
        assert len(outcome["lines"]) == len(alone["lines"])
        for found, expected in zip(outcome["lines"], alone["lines"], strict=True):
            assert_same_numbers(found, expected)


def assert_same_numbers(found: dict[str, float], expected: dict[str, float]) -> None:
    """Check that metrics are equal up to the rounding of sums."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-7, nan_ok=True), name


def ask_for(folder: Path, runs: Mapping[str, tuple[dict[str, Any], Path]]) -> None:
    """Write what processes that something else starts are to train, one run after the other."""
    torch.save(dict(runs), folder / "asked.pt")


def outcomes_of(folder: Path, kind: str, world_size: int) -> list[dict[str, Any]]:
    """Return what `fit` returned for a run that was asked for, by rank."""
    paths = [folder / kind / f"{rank}.pt" for rank in range(world_size)]
    return [torch.load(path, weights_only=False) for path in paths]


def train_what_was_asked_for(folder: Path) -> None:
    """Be one of the processes: its machine has no other."""
    for kind, (config, cache) in torch.load(folder / "asked.pt", weights_only=False).items():
        (folder / kind).mkdir(exist_ok=True)
        outcome = fit(config, cache, folder / kind / "run", 1)
        torch.save(outcome, folder / kind / f"{os.environ['RANK']}.pt")


if __name__ == "__main__":
    train_what_was_asked_for(Path(sys.argv[1]))
