"""Positive labels of training images: how many, and how many of them are right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from crosswalk.diagnostics.base import Diagnostic, record_file
from crosswalk.diagnostics.figures import (
    BLUE,
    Curves,
    captioned,
    curve_figures,
    label,
    panels,
    side_by_side,
)
from crosswalk.files import read_arrays, write_arrays
from crosswalk.pages import Section
from crosswalk.run.run_folder import RunFolder
from crosswalk.words import counted

if TYPE_CHECKING:
    import lightning.pytorch as L
    from torch import Tensor

RECORD = "labels-last"
CURVES = (
    Curves(
        "Labels per image",
        "labels",
        {"train/labels_per_sample": "labels"},
        "Training images that an image is labelled with, itself included; 1 until labels are "
        "predicted. It should come near the number of images of a person.",
    ),
    Curves(
        "Right labels",
        "share",
        {"train/label_precision": "precision", "train/label_recall": "recall"},
        "Precision: share of the labels, own ones aside, that show the same person. Recall: share "
        "of a person's other images that are found. Precision should stay high while recall "
        "grows. Identities are only looked at here, never trained on.",
    ),
)
MOST_BARS = 40


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
        >>> import torch
        >>> labels = torch.tensor([[True, True, False, True]])
        >>> count_pairs(labels, torch.tensor([0]), torch.tensor([5, 5, 5, 8]))
        tensor([1, 3, 2, 1, 2])
    """
    import torch

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


class Labels(Diagnostic):
    """Logs how many positive labels an image has and how many are right; keeps their numbers.

    Looks at ``labels`` and ``sample_index`` of what ``training_step`` returns, as soon as it
    returns some. Every process sees the labels of the whole batch, so nothing is gathered; the
    first one writes ``diagnostics/labels-last.npz`` at the end of every epoch. Of a sample that
    comes twice in an epoch the later labels are kept. The truth is only logged, never trained on.
    """

    def __init__(self) -> None:
        self._counts: Tensor | None = None
        self._num_labels: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return what the epoch gave so far, so that a resumed run sees the whole epoch."""
        parts = {"counts": self._counts, "num_labels": self._num_labels}
        return {name: None if part is None else part.cpu() for name, part in parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what `state_dict` returned."""
        self._counts, self._num_labels = state_dict["counts"], state_dict["num_labels"]

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Count the labels of one batch."""
        if not isinstance(outputs, Mapping) or not {"labels", "sample_index"} <= outputs.keys():
            return
        labels, index = outputs["labels"], outputs["sample_index"]
        if self._num_labels is None:
            self._num_labels = index.new_full((labels.shape[1],), -1)
        self._num_labels = self._num_labels.to(labels.device)
        self._num_labels[index] = labels.sum(dim=1)
        if self.data.train_person_id is not None:
            counts = count_pairs(labels, index, self.data.train_person_id.to(labels.device))
            self._counts = counts if self._counts is None else self._counts.to(counts) + counts

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log and write the epoch, and start anew."""
        if self._counts is not None:
            quality = pair_quality(PairCounts(*self._counts.tolist()))
            pl_module.log_dict({f"train/{name}": value for name, value in quality.items()})
        if self._num_labels is not None and trainer.is_global_zero:
            num_labels = self._num_labels.numpy(force=True)
            index = np.flatnonzero(num_labels >= 0)
            arrays = {
                "epoch": np.asarray(trainer.current_epoch),
                "sample_index": index,
                "num_labels": num_labels[index],
            }
            write_arrays(record_file(self.folder, RECORD), arrays)
        self._counts = self._num_labels = None

    def shows(self, metric: str) -> bool:
        """Return whether the section has a curve of a logged metric."""
        return any(metric in curves.lines for curves in CURVES)

    def section(self, folder: RunFolder) -> Section | None:
        """Return labels per image and their quality over the epochs, and the latest numbers."""
        figures = curve_figures(folder.metrics(), CURVES)
        path = record_file(folder.path, RECORD)
        if path.exists():
            record = read_arrays(path)
            figures.append(_distribution(record["num_labels"], epoch=int(record["epoch"])))
        return Section("labels", "Labels per image", side_by_side(figures)) if figures else None


def _distribution(numbers: NDArray[np.int64], *, epoch: int) -> Markup:
    """Return a histogram of the labels per image; the last bar may hold all larger numbers."""
    from matplotlib.ticker import MaxNLocator

    largest = int(min(numbers.max(initial=1), MOST_BARS))
    counts = np.bincount(np.minimum(numbers, largest), minlength=largest + 1)
    figure, ((axes,),) = panels(1, 1)
    axes.bar(np.arange(largest + 1), counts, color=BLUE, width=0.9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    title = f"Labels per image in epoch {epoch + 1}"
    label(axes, title=title, across="labels", up="images")
    own_alone = f"{counts[1]:,} have none but their own"
    more = f" The last bar holds all with {largest} or more." if numbers.max() > largest else ""
    images = counted(len(numbers), "image")
    middle = np.median(numbers)
    look_for = (
        f"{images}; half of them have {middle:g} {'label' if middle == 1 else 'labels'} or fewer, "
        f"the most {numbers.max()}; {own_alone}.{more} A long tail means that look-alikes are put "
        "together; a bar at 1 alone, that nothing is found."
    )
    return captioned(figure, alt=title, look_for=look_for)
