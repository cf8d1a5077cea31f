"""Keeps what the first and the latest division of the training pairs were made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import lightning.pytorch as L
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from crosswalk.files import read_arrays, write_arrays
from crosswalk.types import DivisionData


class DivisionOutcome(Protocol):
    """A division of ``N`` pairs by several views."""

    clean: Tensor
    votes: Tensor
    prediction: Tensor
    probability: Tensor


@runtime_checkable
class KeepsDivision(Protocol):
    """A method that divides its pairs in a sweep and keeps the outcome until the next one."""

    latest_losses: dict[str, Tensor] | None
    latest_division: Any

    def wants_sweep(self, epoch: int) -> bool:
        """Return whether epoch ``epoch`` starts with a sweep."""


class DivisionRecord(NamedTuple):
    """What is known of one division of ``N`` training pairs; arrays by sample index.

    Attributes:
        epoch: 0-based epoch that was trained on it.
        views: Names of the views.
        losses: ``[views, N]`` loss of every pair, augmented as the sweep saw it.
        probability: ``[views, N]`` each view's probability that the pair is right, in [0, 1].
        prediction: ``[views, N]`` bool, true where a view calls the pair right.
        votes: ``[N]`` how many views do.
        clean: ``[N]`` bool, true where the pair was kept.
        true_pair: ``[N]`` bool, False where noise was injected; None where nobody knows.
    """

    epoch: int
    views: tuple[str, ...]
    losses: NDArray[np.float32]
    probability: NDArray[np.float64]
    prediction: NDArray[np.bool_]
    votes: NDArray[np.int64]
    clean: NDArray[np.bool_]
    true_pair: NDArray[np.bool_] | None


def division_record(
    epoch: int,
    losses: dict[str, Tensor],
    division: DivisionOutcome,
    true_pair: Tensor | None,
) -> DivisionRecord:
    """Return the record of a division.

    Example:
        >>> import torch
        >>> from crosswalk.labels.consensus_division import Division
        >>> one = torch.ones(1)
        >>> division = Division(one, one.long(), one[None].bool(), one[None].double())
        >>> division_record(0, {"global": one}, division, None).losses
        array([[1.]], dtype=float32)
    """
    return DivisionRecord(
        epoch=epoch,
        views=tuple(losses),
        losses=np.stack([each.numpy(force=True) for each in losses.values()]),
        probability=division.probability.numpy(force=True),
        prediction=division.prediction.numpy(force=True),
        votes=division.votes.numpy(force=True),
        clean=division.clean.numpy(force=True) > 0,
        true_pair=None if true_pair is None else true_pair.numpy(force=True),
    )


def division_file(folder: Path, which: str) -> Path:
    """Return the file of the "first" or the "last" division of the run in ``folder``.

    Example:
        >>> division_file(Path("runs/rde-toy"), "last").as_posix()
        'runs/rde-toy/diagnostics/division-last.npz'
    """
    return folder / "diagnostics" / f"division-{which}.npz"


def write_division(path: Path, record: DivisionRecord) -> None:
    """Write a record whole or not at all."""
    arrays: dict[str, NDArray[Any]] = {
        name: np.asarray(value) for name, value in record._asdict().items() if value is not None
    }
    write_arrays(path, arrays)


def read_division(path: Path) -> DivisionRecord:
    """Return what `write_division` wrote.

    Raises:
        FileNotFoundError: If there is no such file.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "division-last.npz"
        >>> one = np.ones((1, 1))
        >>> record = DivisionRecord(3, ("global",), one, one, one > 0, one[0], one[0] > 0, None)
        >>> write_division(path, record)
        >>> read_division(path)[:2]
        (3, ('global',))
    """
    arrays = read_arrays(path)
    return DivisionRecord(
        epoch=int(arrays["epoch"]),
        views=tuple(arrays["views"].tolist()),
        losses=arrays["losses"],
        probability=arrays["probability"],
        prediction=arrays["prediction"],
        votes=arrays["votes"],
        clean=arrays["clean"],
        true_pair=arrays.get("true_pair"),
    )


class DivisionRecorder(L.Callback):
    """Writes ``diagnostics/division-first.npz`` and ``division-last.npz`` right after the sweep.

    Comes after `EpochSweep`, whose hook makes the division, and before the first checkpoint of its
    epoch: a run that goes on within the epoch finds the file there. Only the first process writes.

    Args:
        folder: The run folder.
        data: Knows which pairs are right, or not.
    """

    def __init__(self, folder: Path, data: DivisionData) -> None:
        self.folder = Path(folder)
        self.data = data

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the division of this epoch, if it has one."""
        epoch = trainer.current_epoch
        if not trainer.is_global_zero or not isinstance(pl_module, KeepsDivision):
            return
        if not pl_module.wants_sweep(epoch) or pl_module.latest_losses is None:
            return
        record = division_record(
            epoch, pl_module.latest_losses, pl_module.latest_division, self.data.true_pairs
        )
        if self._is_first(epoch):
            write_division(division_file(self.folder, "first"), record)
        write_division(division_file(self.folder, "last"), record)

    def _is_first(self, epoch: int) -> bool:
        """Whether no earlier epoch has a file; one of a later epoch is of a run before a kill."""
        path = division_file(self.folder, "first")
        return not path.exists() or read_division(path).epoch >= epoch
