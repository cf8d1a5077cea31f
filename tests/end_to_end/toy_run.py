"""A small training run that can be stopped anywhere, and what it left behind.

The model draws random numbers in training, in validation and at the start of every epoch, so a
step that is repeated, left out or done in another order changes its weights.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from crosswalk.data.pipeline.loaders import BatchRequest, EpochLoader
from crosswalk.data.pipeline.plans import SequentialBatches, ShuffledBatches
from crosswalk.distributed import all_gather_rows, on_rank_zero
from crosswalk.run.callbacks.checkpoints import AtomicCheckpointIO, Checkpoints
from crosswalk.run.callbacks.remember import StepMemory
from crosswalk.run.run_folder import RunFolder
from crosswalk.run.tracking import RunLogger
from tests.ddp.processes import PRELOADED, REPOSITORY

NUM_SAMPLES, NUM_EPOCHS, STEPS_PER_EPOCH = 22, 3, 6


class ToyBatch(NamedTuple):
    rows: Tensor
    sample_index: Tensor


class ToyDataset:
    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(5)
        self.rows = torch.randn(NUM_SAMPLES, 4, generator=generator)

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __getitems__(self, request: BatchRequest) -> ToyBatch:
        index = torch.from_numpy(request.sample_index)
        return ToyBatch(self.rows[index], index)


class Stopped(Exception):
    """Stands for whatever ends a run."""


TIMES = ("time", "images_per_second")
"""What is logged of a clock, in no two runs the same."""


@dataclass
class StopAt:
    """Ends the run when an event has happened ``count`` times.

    Events: ``step`` (in training_step), ``stepped`` (after the step and its checkpoint),
    ``sweep``, ``validation``, ``validated``, ``writing`` (a checkpoint half written),
    ``replacing``, ``replaced`` (before and after a file takes its place).
    """

    event: str = "never"
    count: int = 0
    kill: bool = False
    signal: int | None = None

    def __call__(self, event: str) -> None:
        if event != self.event:
            return
        self.count -= 1
        if self.count == 0:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.signal is None:
                raise Stopped
            number, self.signal, self.event = self.signal, None, "never"
            os.kill(os.getpid(), number)


class ToyMethod(L.LightningModule):
    memory: Tensor
    labels: Tensor

    def __init__(self, stop: Callable[[str], None]) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3))
        self.head = nn.Linear(8, 1)
        self.register_buffer("memory", torch.zeros(NUM_SAMPLES))
        self.register_buffer("labels", torch.zeros(NUM_SAMPLES))
        self.stop = stop

    def configure_optimizers(self) -> dict[str, object]:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
        by_epoch = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2], gamma=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": by_epoch}}

    def on_train_epoch_start(self) -> None:
        self.labels.copy_(on_rank_zero(torch.rand, NUM_SAMPLES) + self.head.weight.sum().detach())
        self.log("train/labels", self.labels.mean())
        self.stop("sweep")

    def training_step(self, batch: ToyBatch, batch_idx: int) -> dict[str, Tensor]:
        output = self.head(self.net(batch.rows)).flatten()
        target = self.labels[batch.sample_index] + self.memory[batch.sample_index]
        loss = (output - target).square().mean() + 0 * torch.rand(())
        self.log("train/step_loss", loss, on_step=True, on_epoch=False)
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        self.log("train/most", loss, on_step=False, on_epoch=True, reduce_fx="max", sync_dist=True)
        self.stop("step")
        index, output = all_gather_rows(batch.sample_index), all_gather_rows(output.detach())
        return {"loss": loss, "index": index, "output": output}

    def remember(self, outputs: dict[str, Tensor]) -> None:
        self.memory[outputs["index"]] += 0.1 * outputs["output"] + 0.01

    def validation_step(self, batch: ToyBatch, batch_idx: int) -> None:
        self.stop("validation")
        noise = torch.rand(len(batch.rows))
        score = (self.head(self.net(batch.rows)).flatten() + noise).mean()
        self.log("val/score", score, sync_dist=True)

    def on_train_batch_start(self, batch: ToyBatch, batch_idx: int) -> None:
        self.stop("stepped")

    def on_train_epoch_end(self) -> None:
        self.stop("validated")


@contextmanager
def stopping_in_files(stop: Callable[[str], None]) -> Iterator[None]:
    """Let ``stop`` end a run while a checkpoint is written or takes its place.

    Files are not forced to the disk meanwhile, which can take long and matters to a machine that
    loses power, not to a process that is killed.
    """
    save, replace, fsync = torch.save, os.replace, os.fsync

    def stopping_save(value: object, path: object, **options: object) -> None:
        save(value, path, **options)
        if not isinstance(path, Path):
            return
        whole = Path(path).read_bytes()
        Path(path).write_bytes(whole[: len(whole) // 2])
        stop("writing")
        Path(path).write_bytes(whole)

    def stopping_replace(source: Path, target: Path) -> None:
        stop("replacing")
        replace(source, target)
        stop("replaced")

    torch.save, os.replace, os.fsync = stopping_save, stopping_replace, lambda file: None
    try:
        yield
    finally:
        torch.save, os.replace, os.fsync = save, replace, fsync


def toy_trainer(folder: Path, stop: Callable[[str], None], **options: object) -> L.Trainer:
    every_n_steps = options.pop("every_n_steps", 2)
    callbacks = [
        Checkpoints(
            folder,
            record={"config": {"seed": 0}},
            monitor="val/score",
            every_n_steps=every_n_steps,
        ),
        StepMemory(),
    ]
    return L.Trainer(
        accelerator="cpu",
        callbacks=[*callbacks, *options.pop("callbacks", [])],
        logger=[RunLogger(folder)],
        plugins=[AtomicCheckpointIO()],
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=options.pop("num_sanity_val_steps", 0),
        **{"max_epochs": NUM_EPOCHS, "devices": 1, "log_every_n_steps": 1, **options},
    )


def train_toy(
    folder: Path, stop: StopAt | None = None, num_workers: int = 0, **options: object
) -> None:
    """Start the run in ``folder``, or continue it from its last checkpoint if it has one."""
    torch.set_num_threads(1)
    stop = stop or StopAt()
    L.seed_everything(3 + int(os.environ.get("LOCAL_RANK", "0")), verbose=False)
    method = ToyMethod(stop)
    dataset = ToyDataset()
    train = EpochLoader(
        dataset,
        ShuffledBatches(NUM_SAMPLES, batch_size=4, seed=1),
        seed=1,
        num_workers=num_workers,
    )
    val = EpochLoader(
        dataset, SequentialBatches(NUM_SAMPLES, 8), seed=None, num_workers=num_workers
    )
    last = folder / "last.ckpt"
    with stopping_in_files(stop):
        toy_trainer(folder, stop, **options).fit(
            method, train, val, ckpt_path=str(last) if last.exists() else None
        )


def _with_forked_workers(function: Callable[..., None], args: tuple[object, ...]) -> None:
    # A process of a fork server would start its loaders' workers from a new fork server.
    multiprocessing.set_start_method("fork", force=True)
    function(*args)


def from_fork_server(
    function: Callable[..., None], *args: object
) -> multiprocessing.process.BaseProcess:
    """Start a process that does nothing but ``function(*args)`` and has little to import."""
    if str(REPOSITORY) not in sys.path:
        sys.path.insert(0, str(REPOSITORY))  # the process imports the function's module by name
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED])
    process = context.Process(target=_with_forked_workers, args=(function, args))
    process.start()
    return process


def exit_code_of(function: Callable[..., None], *args: object) -> int | None:
    """Return how a process ends that does nothing but ``function(*args)``."""
    process = from_fork_server(function, *args)
    process.join(300)  # a busy machine takes its time
    code = process.exitcode
    process.kill()
    return code


def traces(folder: Path) -> dict[str, Any]:
    """Return everything about a run that must not depend on whether it was interrupted."""
    last = torch.load(folder / "last.ckpt", weights_only=True)
    best = None  # where nothing is chosen
    if (folder / "best.ckpt").exists():
        chosen = torch.load(folder / "best.ckpt", weights_only=True)
        resume = chosen["resume"]
        best = (chosen["state_dict"], resume["best_score"], resume["best_epoch"])
    lines = RunFolder(folder).metrics()
    return {
        "last": {key: last[key] for key in ("state_dict", "optimizer_states", "lr_schedulers")},
        "random": last["resume"]["processes"],
        "best": best,
        "step": last["global_step"],
        "metrics": [{k: v for k, v in line.items() if k not in TIMES} for line in lines],
        "csv": [
            {k: v for k, v in row.items() if k not in TIMES}
            for row in csv.DictReader((folder / "metrics.csv").open(encoding="utf-8"))
        ],
        "files": sorted(path.name for path in folder.iterdir()),
        "diagnostics": {
            path.name: _values(path) for path in sorted((folder / "diagnostics").glob("*.npz"))
        },
    }


def _values(path: Path) -> dict[str, Any]:
    """Return the arrays of a file: tensors, and lists where they hold text."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file}
    return {
        name: array.tolist() if array.dtype.kind == "U" else torch.from_numpy(array)
        for name, array in arrays.items()
    }


def assert_same(found: object, expected: object, where: str = "") -> None:
    """Check that two nested containers are equal; every number of a tensor, NaN like NaN."""
    if isinstance(expected, Tensor):
        assert_close(
            found, expected, rtol=0, atol=0, equal_nan=True, msg=lambda text: f"{where}: {text}"
        )
    elif isinstance(expected, dict):
        assert list(found) == list(expected), where
        for key, value in expected.items():
            assert_same(found[key], value, f"{where}.{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), where
        for place, value in enumerate(expected):
            assert_same(found[place], value, f"{where}[{place}]")
    else:
        assert found == expected, where
