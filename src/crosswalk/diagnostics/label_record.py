"""Keeps how many positive labels each training image was given in the latest epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crosswalk.files import read_arrays, write_arrays


class LabelRecord(NamedTuple):
    """How many labels the images of an epoch were given.

    Attributes:
        epoch: 0-based epoch.
        sample_index: Training samples that were labelled, ascending.
        num_labels: Labels of each, its own included.
    """

    epoch: int
    sample_index: NDArray[np.int64]
    num_labels: NDArray[np.int64]


def label_file(folder: Path) -> Path:
    """Return the file of the latest epoch of the run in ``folder``.

    Example:
        >>> label_file(Path("runs/mmcl-toy")).as_posix()
        'runs/mmcl-toy/diagnostics/labels-last.npz'
    """
    return folder / "diagnostics" / "labels-last.npz"


def read_labels(path: Path) -> LabelRecord:
    """Return what `LabelRecorder` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    arrays = read_arrays(path)
    return LabelRecord(int(arrays["epoch"]), arrays["sample_index"], arrays["num_labels"])


class LabelRecorder(L.Callback):
    """Writes ``diagnostics/labels-last.npz`` at the end of every epoch.

    Looks at ``labels`` and ``sample_index`` of what ``training_step`` returns; methods that return
    no such labels are left alone. Every process sees the labels of the whole batch; the first one
    writes. Of a sample that comes twice in an epoch, the later labels count.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._num_labels: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the numbers of the epoch so far, so that a resumed run keeps the whole epoch."""
        return {"num_labels": None if self._num_labels is None else self._num_labels.cpu()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what `state_dict` returned."""
        self._num_labels = state_dict["num_labels"]

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Take the numbers of one batch."""
        if not isinstance(outputs, Mapping) or not {"labels", "sample_index"} <= outputs.keys():
            return
        labels: Tensor = outputs["labels"]
        if self._num_labels is None:
            self._num_labels = torch.full((labels.shape[1],), -1)
        self._num_labels = self._num_labels.to(labels.device)
        self._num_labels[outputs["sample_index"]] = labels.sum(dim=1)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the epoch and start anew."""
        if self._num_labels is None:
            return
        num_labels = self._num_labels.numpy(force=True)
        self._num_labels = None
        if trainer.is_global_zero:
            index = np.flatnonzero(num_labels >= 0)
            arrays = {
                "epoch": np.asarray(trainer.current_epoch),
                "sample_index": index,
                "num_labels": num_labels[index],
            }
            write_arrays(label_file(self.folder), arrays)
