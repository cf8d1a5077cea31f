from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from crosswalk.diagnostics.base import record_file
from crosswalk.diagnostics.labels import RECORD, Labels, PairCounts, count_pairs, pair_quality
from crosswalk.files import read_arrays, write_arrays
from crosswalk.run.callbacks.observer import Observer
from tests.unit.diagnostics.pages import folder_with, section_of, titles


class Listener:
    """Stands for a module: keeps what is logged."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []

    def log_dict(self, values: dict[str, float]) -> None:
        self.logged.append(values)


def outputs_of(num_samples: int, labels: dict[int, list[int]]) -> dict[str, Tensor]:
    matrix = torch.zeros(len(labels), num_samples, dtype=torch.bool)
    for row, positives in enumerate(labels.values()):
        matrix[row, positives] = True
    return {"labels": matrix, "sample_index": torch.tensor(list(labels))}


def watching(folder: Path, person_id: list[int] | None) -> Labels:
    known = None if person_id is None else torch.tensor(person_id)
    diagnostic = Labels()
    diagnostic.watch(folder, SimpleNamespace(train_person_id=known))
    return diagnostic


def take(diagnostic: Labels, outputs: object) -> None:
    diagnostic.on_train_batch_end(None, None, outputs, None, 0)  # type: ignore[arg-type]


def end_epoch(diagnostic: Labels, *, epoch: int = 0, rank: int = 0) -> list[dict[str, float]]:
    module = Listener()
    trainer = SimpleNamespace(current_epoch=epoch, is_global_zero=rank == 0)
    diagnostic.on_train_epoch_end(trainer, module)  # type: ignore[arg-type]
    return module.logged


def written(folder: Path) -> dict[str, object] | None:
    path = record_file(folder, RECORD)
    if not path.exists():
        return None
    return {name: array.tolist() for name, array in read_arrays(path).items()}


@pytest.mark.parametrize("num_people", [1, 3, 7])
def test_pairs_are_counted_as_by_a_loop_over_them(num_people: int) -> None:
    generator = torch.Generator().manual_seed(num_people)
    person_id = torch.randint(0, num_people, (13,), generator=generator)
    index = torch.randperm(13, generator=generator)[:5]
    labels = torch.rand(5, 13, generator=generator) < 0.4
    labels[torch.arange(5), index] = True

    counts = PairCounts(*count_pairs(labels, index, person_id).tolist())

    predicted = right = true = 0
    for row, sample in enumerate(index.tolist()):
        for other in range(13):
            if other == sample:
                continue
            same = bool(person_id[other] == person_id[sample])
            predicted += bool(labels[row, other])
            true += same
            right += same and bool(labels[row, other])
    assert counts == PairCounts(5, int(labels.sum()), predicted, right, true)


def test_an_epoch_is_counted_over_its_batches_and_the_next_one_starts_anew(tmp_path: Path) -> None:
    diagnostic = watching(tmp_path, [0, 0, 0, 1, 1])
    take(diagnostic, outputs_of(5, {0: [0, 1], 3: [3, 1]}))
    take(diagnostic, outputs_of(5, {4: [4]}))

    first = end_epoch(diagnostic)
    take(diagnostic, outputs_of(5, {1: [0, 1, 2]}))
    second = end_epoch(diagnostic, epoch=1)

    assert first == [
        {
            "train/labels_per_sample": 5 / 3,
            "train/label_precision": 1 / 2,
            "train/label_recall": 1 / 4,  # true pairs: two of sample 0, one of 3, one of 4
        }
    ]
    assert second == [
        {
            "train/labels_per_sample": 3.0,
            "train/label_precision": 1.0,
            "train/label_recall": 1.0,
        }
    ]
    assert written(tmp_path) == {"epoch": 1, "sample_index": [1], "num_labels": [3]}


def test_labels_of_unknown_people_are_only_counted_the_latest_of_an_image(tmp_path: Path) -> None:
    diagnostic = watching(tmp_path, None)
    for labels in ({6: [6], 0: [0, 3]}, {3: [0, 1, 2, 3]}, {0: [0], 1: [1, 2]}):
        take(diagnostic, outputs_of(7, labels))

    logged = end_epoch(diagnostic)

    assert logged == []
    assert written(tmp_path) == {
        "epoch": 0,
        "sample_index": [0, 1, 3, 6],
        "num_labels": [1, 2, 4, 1],
    }


def test_shares_of_nothing_are_left_out() -> None:
    assert pair_quality(PairCounts(3, 3, 0, 0, 0)) == {"labels_per_sample": 1.0}
    assert pair_quality(PairCounts(0, 0, 0, 0, 0)) == {}


@pytest.mark.parametrize("outputs", [None, torch.tensor(1.0), {"loss": torch.tensor(1.0)}])
def test_steps_that_return_no_labels_are_left_alone(outputs: object, tmp_path: Path) -> None:
    diagnostic = watching(tmp_path, [0, 0])

    take(diagnostic, outputs)

    assert end_epoch(diagnostic) == []
    assert written(tmp_path) is None


def test_a_run_resumed_in_mid_epoch_sees_the_whole_epoch(tmp_path: Path) -> None:
    batches = [outputs_of(5, {0: [0, 3]}), outputs_of(5, {1: [1, 2]}), outputs_of(5, {4: [4, 3]})]
    folders = [tmp_path / name for name in ("whole", "killed", "resumed")]
    whole, killed, resumed = (watching(folder, [0, 0, 0, 1, 1]) for folder in folders)
    for outputs in batches:
        take(whole, outputs)

    take(killed, batches[0])
    resumed.load_state_dict(killed.state_dict())
    take(resumed, batches[1])
    take(resumed, batches[2])

    assert end_epoch(resumed) == end_epoch(whole)
    assert written(folders[2]) == written(folders[0])
    assert written(folders[0]) is not None


def test_the_state_between_epochs_can_be_taken_over(tmp_path: Path) -> None:
    diagnostic = watching(tmp_path, [0])

    diagnostic.load_state_dict(diagnostic.state_dict())

    assert end_epoch(diagnostic) == []
    assert written(tmp_path) is None


def test_other_processes_log_the_same_and_write_nothing(tmp_path: Path) -> None:
    diagnostic = watching(tmp_path, [0, 0, 1])
    take(diagnostic, outputs_of(3, {0: [0]}))

    assert end_epoch(diagnostic, rank=1) != []
    assert written(tmp_path) is None


class Labelling(L.LightningModule):
    """Labels everything positive, through a real trainer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: Tensor, batch_idx: int) -> dict[str, Tensor]:
        labels = torch.ones(len(batch), 6, dtype=torch.bool)
        return {"loss": self.weight.sum(), "labels": labels, "sample_index": batch}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_trainer_logs_the_quality_of_its_epoch(tmp_path: Path) -> None:
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=[Observer(watching(tmp_path, [0, 0, 0, 1, 1, 2]))],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )

    trainer.fit(Labelling(), DataLoader(torch.arange(6), batch_size=4))

    assert trainer.callback_metrics["train/labels_per_sample"] == 6
    assert trainer.callback_metrics["train/label_precision"].item() == pytest.approx(8 / 30)
    assert trainer.callback_metrics["train/label_recall"] == 1


def test_labels_per_image_come_with_their_distribution(tmp_path: Path) -> None:
    history = [{"epoch": 0, "train/labels_per_sample": 2.0, "train/label_precision": 0.5}]
    folder = folder_with(tmp_path, history)
    numbers = np.array([1, 1, 2, 60, 3])
    arrays = {"epoch": np.array(6), "sample_index": np.arange(5), "num_labels": numbers}
    write_arrays(record_file(tmp_path, RECORD), arrays)

    section = section_of(Labels(), folder)

    assert titles(section) == [
        *("Labels per image by epoch", "Right labels by epoch", "Labels per image in epoch 7"),
    ]
    assert (
        "5 images; half of them have 2 labels or fewer, the most 60; 2 have none but their own. "
        "The last bar holds all with 40 or more."
    ) in section.body


def test_one_label_is_one_label(tmp_path: Path) -> None:
    arrays = {"epoch": np.array(0), "sample_index": np.arange(3), "num_labels": np.ones(3, int)}
    write_arrays(record_file(tmp_path, RECORD), arrays)

    section = section_of(Labels(), folder_with(tmp_path, []))

    assert "3 images; half of them have 1 label or fewer, the most 1; 3 have" in section.body
