from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from crosswalk.diagnostics.label_record import LabelRecorder, label_file, read_labels


def outputs_of(num_samples: int, num_labels: dict[int, int]) -> dict[str, Tensor]:
    """Label every sample with itself and the samples after it."""
    labels = torch.zeros(len(num_labels), num_samples, dtype=torch.bool)
    for row, (sample, number) in enumerate(num_labels.items()):
        labels[row, torch.arange(sample, sample + number) % num_samples] = True
    return {"labels": labels, "sample_index": torch.tensor(list(num_labels))}


def take(callback: LabelRecorder, outputs: object) -> None:
    callback.on_train_batch_end(None, None, outputs, None, 0)  # type: ignore[arg-type]


def end_epoch(callback: LabelRecorder, epoch: int, *, rank: int = 0) -> None:
    trainer = SimpleNamespace(current_epoch=epoch, is_global_zero=rank == 0)
    callback.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]


def test_labels_are_counted_by_image_and_the_next_epoch_starts_anew(tmp_path: Path) -> None:
    callback = LabelRecorder(tmp_path)
    for epoch, batches in enumerate([[{6: 1, 0: 2}], [{3: 5}, {0: 1, 1: 4}]]):
        for batch in batches:
            take(callback, outputs_of(7, batch))
        end_epoch(callback, epoch)

    record = read_labels(label_file(tmp_path))

    assert record.epoch == 1
    assert record.sample_index.tolist() == [0, 1, 3]
    assert record.num_labels.tolist() == [1, 4, 5]


def test_a_run_resumed_in_mid_epoch_keeps_the_whole_epoch(tmp_path: Path) -> None:
    killed, resumed = LabelRecorder(tmp_path), LabelRecorder(tmp_path)
    take(killed, outputs_of(5, {4: 2}))

    resumed.load_state_dict(killed.state_dict())
    take(resumed, outputs_of(5, {2: 3}))
    end_epoch(resumed, 0)

    assert read_labels(label_file(tmp_path)).num_labels.tolist() == [3, 2]


def test_the_state_between_epochs_can_be_taken_over(tmp_path: Path) -> None:
    callback = LabelRecorder(tmp_path)

    callback.load_state_dict(callback.state_dict())
    end_epoch(callback, 0)

    assert not label_file(tmp_path).exists()


@pytest.mark.parametrize("outputs", [None, torch.tensor(1.0), {"loss": torch.tensor(1.0)}])
def test_methods_that_return_no_labels_are_left_alone(outputs: object, tmp_path: Path) -> None:
    callback = LabelRecorder(tmp_path)

    take(callback, outputs)
    end_epoch(callback, 0)

    assert not label_file(tmp_path).exists()


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    callback = LabelRecorder(tmp_path)
    take(callback, outputs_of(3, {0: 1}))

    end_epoch(callback, 0, rank=1)

    assert not label_file(tmp_path).exists()
