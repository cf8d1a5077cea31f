"""How well predicted positive labels of a training set agree with its true identities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import lightning.pytorch as L
import torch
from torch import Tensor


class LabelQualityData(Protocol):
    """What `LabelQuality` needs of a data module."""

    @property
    def train_person_id(self) -> Tensor | None:
        """``[num_samples]`` true person of every training sample; None where nobody knows."""


class PairCounts(NamedTuple):
    """Counts of label pairs; a sample with itself is no pair.

    Attributes:
        samples: Samples that were given labels.
        labels: Labels they were given, their own included.
        predicted: Pairs of a sample and another one labelled positive.
        right: Those that show one person.
        true: All pairs of a sample and another one of the same person.
    """

    samples: int
    labels: int
    predicted: int
    right: int
    true: int


def count_pairs(labels: Tensor, sample_index: Tensor, person_id: Tensor) -> Tensor:
    """Return ``[5]`` int64, the fields of `PairCounts` for a batch.

    Args:
        labels: ``[B, N]`` bool, true where a training sample is labelled positive.
        sample_index: ``[B]`` int64 the samples labelled.
        person_id: ``[N]`` true person of every training sample.

    Example:
        >>> labels = torch.tensor([[True, True, False, True]])
        >>> count_pairs(labels, torch.tensor([0]), torch.tensor([5, 5, 5, 8]))
        tensor([1, 3, 2, 1, 2])
    """
    other = sample_index[:, None] != torch.arange(labels.shape[1], device=labels.device)
    same = (person_id[sample_index][:, None] == person_id) & other
    counts = (labels.new_ones(len(labels)), labels, labels & other, labels & same, same)
    return torch.stack([count.sum() for count in counts])


def pair_quality(counts: PairCounts) -> dict[str, float]:
    """Return precision and recall of the label pairs, and the labels per sample.

    Shares of nothing are left out.

    Example:
        >>> pair_quality(PairCounts(samples=1, labels=3, predicted=2, right=1, true=4))
        {'labels_per_sample': 3.0, 'label_precision': 0.5, 'label_recall': 0.25}
    """
    shares = {
        "labels_per_sample": (counts.labels, counts.samples),
        "label_precision": (counts.right, counts.predicted),
        "label_recall": (counts.right, counts.true),
    }
    return {name: part / whole for name, (part, whole) in shares.items() if whole}


class LabelQuality(L.Callback):
    """Logs precision and recall of the positive labels of an epoch, and how many an image has.

    Looks at ``labels`` and ``sample_index`` of what ``training_step`` returns; methods that return
    no such labels are left alone. Every process sees the labels of the whole batch, so nothing is
    gathered. The truth is only logged, never trained on.
    """

    def __init__(self, data: LabelQualityData) -> None:
        self.data = data
        self._counts: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the counts of the epoch so far, so that a resumed run logs the whole epoch."""
        return {"counts": None if self._counts is None else self._counts.tolist()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what `state_dict` returned."""
        counts = state_dict["counts"]
        self._counts = None if counts is None else torch.tensor(counts)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Count the pairs of one batch."""
        if not isinstance(outputs, Mapping) or not {"labels", "sample_index"} <= outputs.keys():
            return
        person_id = self.data.train_person_id
        if person_id is None:
            return
        labels = outputs["labels"]
        counts = count_pairs(labels, outputs["sample_index"], person_id.to(labels.device))
        self._counts = counts if self._counts is None else self._counts.to(counts) + counts

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the epoch and start anew."""
        if self._counts is None:
            return
        quality = pair_quality(PairCounts(*self._counts.tolist()))
        self._counts = None
        pl_module.log_dict({f"train/{name}": value for name, value in quality.items()})
