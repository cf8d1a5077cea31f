"""What a step asks of the device it runs on, and whether everything it uses is there.

A value that the host reads, or a shape that follows from values, makes the host wait until the
device is done with all before, and the device wait for the host afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning.pytorch as L
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only

from crosswalk.config.build import build
from crosswalk.config.check import check
from crosswalk.data.pipeline import transforms
from crosswalk.files import lock
from crosswalk.host import HostCopy
from crosswalk.methods.base import Method
from crosswalk.run.callbacks.run_record import RunRecord
from crosswalk.run.run_folder import RunFolder
from crosswalk.run.train import make_trainer
from tests.ddp.small_fits import composed
from tests.end_to_end.device_reads import DeviceReads
from tests.end_to_end.small_runs import METHODS, small_run

BOUNDS = {
    # As many of a caption's words as chance has it are hidden. To classify all places is 7 times
    # the work of a head with 49,408 classes.
    "irra": 1,
    # Images have few hard agents among thousands. A product with all is more work, and rounds
    # otherwise.
    "mar": 1,
    # How many rows are similar, and how many of the first 8 are checked; wider lists are checked in
    # rounds of 16, 32, ... with one reading each. All lists at once are many times the work.
    "mmcl": 2,
    # Half of the images get noise, which costs more than the rest of the augmentation.
    "clip_reid": 1,
}
"""Readings of a whole training step: transform, forward, backward, optimizer and memories."""


class WholeSteps(L.Callback):
    """Counts from the moment that a step has its batch to the moment that its memories are written.

    Args:
        steps: Takes what each step read.
    """

    def __init__(self, steps: list[DeviceReads]) -> None:
        self.steps = steps

    def on_train_batch_start(self, *_: object) -> None:
        self.steps.append(DeviceReads())
        self.counting = self.steps[-1].counting()
        self.counting.__enter__()

    def stop(self) -> L.Callback:
        """Return the callback behind those that belong to a step."""
        return _Stop(self)


class _Stop(L.Callback):
    def __init__(self, steps: WholeSteps) -> None:
        self.steps = steps

    def on_train_batch_end(self, *_: object) -> None:
        self.steps.counting.__exit__(None, None, None)


def counted(function: Callable[..., Any], calls: list[DeviceReads]) -> Callable[..., Any]:
    """Return the function, which appends what each call reads."""

    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        calls.append(DeviceReads())
        with calls[-1].counting():
            return function(*args, **kwargs)

    return call


class Trained:
    """A small training of a method, with what its parts read."""

    def __init__(self, name: str, folder: Path, cache: Path) -> None:
        os.environ["CROSSWALK_CACHE"] = str(cache)
        L.seed_everything(1, verbose=False)
        config = composed(small_run(name, "protocol=official", "trainer.devices=1"))
        self.run = build(check(config))
        run_folder = RunFolder(folder)
        self.run.trainer["enable_progress_bar"] = False  # reads the loss now and then
        self.steps: list[DeviceReads] = []
        self.transforms: list[DeviceReads] = []
        self.sweeps: list[DeviceReads] = []
        self.evaluations: list[DeviceReads] = []
        method, data = self.run.method, self.run.data
        data.transform_batch = counted(data.transform_batch, self.transforms)
        method.sweep_step = counted(method.sweep_step, self.sweeps)  # type: ignore[operator]
        method.validation_step = counted(method.validation_step, self.evaluations)
        trainer = make_trainer(self.run, run_folder, RunRecord(run_folder, seeds={}))
        whole = WholeSteps(self.steps)
        # the checkpoint is written behind a step, and is no part of it
        *parts, checkpoints = trainer.callbacks
        trainer.callbacks = [whole, *parts, whole.stop(), checkpoints]
        trainer.fit(method, datamodule=data)


@pytest.fixture(scope="module", params=METHODS)
def trained(
    request: pytest.FixtureRequest,
    shared: Path,
    cache: Path,
    tmp_path_factory: Any,  # noqa: ANN401
) -> Trained:
    as_on_a_device = patch.object(transforms, "augment_on_cpu", transforms.augment_at_once)
    with lock(shared / "waiting.lock"), as_on_a_device:  # its data are made once
        return Trained(request.param, tmp_path_factory.mktemp(request.param), cache)


@pytest.fixture
def name(request: pytest.FixtureRequest, trained: Trained) -> str:
    return request.node.callspec.params["trained"]


def most(calls: list[DeviceReads]) -> tuple[int, DeviceReads]:
    """Return the call that read most often."""
    return max(((each.found.total(), each) for each in calls), key=lambda pair: pair[0])


def test_a_training_step_asks_the_device_for_nothing(trained: Trained, name: str) -> None:
    in_step, of_step = most(trained.steps)
    in_transform, of_transform = most(trained.transforms)

    assert len(trained.steps) >= 4
    assert in_step + in_transform <= BOUNDS.get(name, 0), (of_step.found, of_transform.found)


def test_sweeps_and_evaluations_ask_the_device_for_nothing(trained: Trained) -> None:
    assert len(trained.evaluations) >= 2
    for calls in filter(None, (trained.sweeps, trained.evaluations)):
        times, reads = most(calls)
        assert times == 0, reads.found


PRETENDED = torch.device("cuda:0")
GRU_CELL = "aten::_thnn_fused_gru_cell"
"""What newer releases of torch, not yet 2.10, can run without values."""


def pretended(values: Any) -> Any:  # noqa: ANN401
    """Return tensors without values on the pretended device for those in ``values``."""

    def there(tensor: Tensor) -> Tensor:
        options = {"dtype": tensor.dtype, "device": PRETENDED}
        return torch.empty_strided(tensor.shape, tensor.stride(), **options)

    return tree_map_only(Tensor, there, values)


def move(module: nn.Module) -> None:
    """Put all parameters and buffers of a module on the pretended device, shared ones once.

    What the host has read of a buffer stays known to it.
    """
    moved: dict[Tensor, Tensor] = {}
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            for key, tensor in held.items():
                if tensor is None:
                    continue
                if tensor not in moved:
                    moved[tensor] = pretended(tensor)
                    if isinstance(tensor, nn.Parameter):
                        moved[tensor] = nn.Parameter(moved[tensor], tensor.requires_grad)
                held[key] = moved[tensor]
    for part in module.modules():
        for copy in vars(part).values():
            if isinstance(copy, HostCopy) and copy._buffer is not None:
                copy._buffer = moved[copy._buffer]
                copy._version = copy._buffer._version


@contextmanager
def on_pretended_device(method: Method[Any]) -> Iterator[None]:
    """Let a method be on a device that no driver is needed for: nothing is computed there.

    Two devices that meet are an error, as on a real one.
    """
    before = [(part, dict(part._parameters), dict(part._buffers)) for part in method.modules()]
    try:
        with torch.backends.cudnn.flags(enabled=False), FakeTensorMode(allow_non_fake_inputs=True):
            move(method)
            yield
    finally:
        for part, parameters, buffers in before:
            part._parameters.update(parameters)
            part._buffers.update(buffers)


def test_everything_that_meets_is_on_one_device(
    trained: Trained, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, data = trained.run.method, trained.run.data
    recurrent = any(isinstance(module, nn.RNNBase) for module in method.modules())
    if recurrent and not torch._C._dispatch_has_kernel_for_dispatch_key(GRU_CELL, "Meta"):
        pytest.skip(f"torch {torch.__version__} cannot pretend a recurrent cell on a device")
    kind = type(method)
    sweeps = kind.sweep_step is not Method.sweep_step
    training = next(iter(data.train_dataloader()))
    sweep = next(iter(data.sweep_dataloader(0))) if sweeps else None
    evaluation = [next(iter(loader)) for loader in data.val_dataloader()]
    reads = DeviceReads()
    # without a trainer, late in the training, when all losses take part
    monkeypatch.setattr(kind, "current_epoch", 99)
    for log in ("log", "log_dict"):
        monkeypatch.setattr(kind, log, lambda *_, **__: None)

    def there(batch: Any) -> Any:  # noqa: ANN401
        return type(data).transform_batch(data, pretended(batch))

    with on_pretended_device(method), reads.counting(pretended=True):
        outputs = kind.training_step(method, there(training), 0)
        method.remember(outputs)
        embedded = [kind.validation_step(method, there(batch), 0) for batch in evaluation]
        rows = [kind.sweep_step(method, there(sweep))] if sweeps else []

    loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
    assert loss.device == PRETENDED
    assert loss.requires_grad
    for columns in (*embedded, *rows):
        assert {column.device for column in columns.values()} == {PRETENDED}
    assert reads.found.total() <= BOUNDS.get(name, 0), reads.found


ROWS = torch.tensor([[3.0, 1.0], [2.0, 5.0]])
READINGS: dict[str, tuple[Callable[[Tensor], object], int]] = {
    "a number": (lambda rows: float(rows[0, 0]), 1),
    "a condition": (lambda rows: bool((rows > 0).all()), 1),
    "a comparison": (lambda rows: torch.equal(rows, rows), 1),
    "a list": (lambda rows: rows.tolist(), 1),
    "an array": (lambda rows: rows.numpy(force=True), 1),
    "a copy": (lambda rows: rows.cpu(), 1),
    "places": (lambda rows: (rows > 2).nonzero(), 1),
    "a mask that chooses": (lambda rows: rows[rows > 2], 1),
    "a mask that is written by": (
        lambda rows: rows.clone().index_put_((rows > 2,), rows[0, :1]),
        1,
    ),
    "different values": (lambda rows: rows.unique(), 1),
    "repetitions": (lambda rows: rows.repeat_interleave(torch.tensor([1, 2]), dim=0), 1),
    "repetitions of known number": (
        lambda rows: rows.repeat_interleave(torch.tensor([1, 2]), dim=0, output_size=3),
        0,
    ),
    "a row": (lambda rows: rows[torch.tensor([1])], 0),
    "a choice": (lambda rows: rows.where(rows > 2, 0).masked_fill(rows > 4, 1).sort(), 0),
}


@pytest.mark.parametrize("reading", READINGS)
def test_what_reads_values_is_counted(reading: str) -> None:
    function, expected = READINGS[reading]
    reads = DeviceReads()

    with reads.counting():
        function(ROWS)

    assert reads.found.total() == expected


def test_copies_from_the_pretended_device_are_counted() -> None:
    reads = DeviceReads()

    with FakeTensorMode(allow_non_fake_inputs=True):
        rows, place = pretended(ROWS), pretended(torch.tensor([1]))
        with reads.counting(pretended=True):
            rows.to("cpu")
            rows[place].to(torch.float64)
            torch.zeros(2, 2).copy_(rows)

    assert reads.found.total() == 2


def test_two_devices_that_meet_are_an_error() -> None:
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(RuntimeError, match="cuda:0"):
        pretended(ROWS) + ROWS
