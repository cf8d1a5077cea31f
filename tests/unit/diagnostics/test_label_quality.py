import lightning.pytorch as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from crosswalk.diagnostics.label_quality import (
    LabelQuality,
    PairCounts,
    count_pairs,
    pair_quality,
)


class Truth:
    def __init__(self, person_id: list[int] | None) -> None:
        self.train_person_id = None if person_id is None else torch.tensor(person_id)


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


def take(callback: LabelQuality, outputs: object) -> None:
    callback.on_train_batch_end(None, Listener(), outputs, None, 0)


def end_epoch(callback: LabelQuality) -> list[dict[str, float]]:
    module = Listener()
    callback.on_train_epoch_end(None, module)
    return module.logged


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


def test_an_epoch_is_counted_over_its_batches_and_the_next_one_starts_anew() -> None:
    callback = LabelQuality(Truth([0, 0, 0, 1, 1]))
    take(callback, outputs_of(5, {0: [0, 1], 3: [3, 1]}))
    take(callback, outputs_of(5, {4: [4]}))

    first = end_epoch(callback)
    take(callback, outputs_of(5, {1: [0, 1, 2]}))
    second = end_epoch(callback)

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


def test_shares_of_nothing_are_left_out() -> None:
    assert pair_quality(PairCounts(3, 3, 0, 0, 0)) == {"labels_per_sample": 1.0}
    assert pair_quality(PairCounts(0, 0, 0, 0, 0)) == {}


@pytest.mark.parametrize("outputs", [None, torch.tensor(1.0), {"loss": torch.tensor(1.0)}])
def test_methods_that_return_no_labels_are_left_alone(outputs: object) -> None:
    callback = LabelQuality(Truth([0, 0]))

    take(callback, outputs)

    assert end_epoch(callback) == []


def test_unknown_identities_log_nothing() -> None:
    callback = LabelQuality(Truth(None))

    take(callback, outputs_of(2, {0: [0, 1]}))

    assert end_epoch(callback) == []


def test_a_run_resumed_in_mid_epoch_logs_the_whole_epoch() -> None:
    batches = [outputs_of(5, {0: [0, 3]}), outputs_of(5, {1: [1, 2]}), outputs_of(5, {4: [4, 3]})]
    whole, killed, resumed = (LabelQuality(Truth([0, 0, 0, 1, 1])) for _ in range(3))
    for outputs in batches:
        take(whole, outputs)

    take(killed, batches[0])
    resumed.load_state_dict(killed.state_dict())
    take(resumed, batches[1])
    take(resumed, batches[2])

    assert end_epoch(resumed) == end_epoch(whole)


def test_the_state_before_the_first_batch_can_be_taken_over() -> None:
    callback = LabelQuality(Truth([0]))

    callback.load_state_dict(callback.state_dict())

    assert end_epoch(callback) == []


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


def test_a_trainer_logs_the_quality_of_its_epoch() -> None:
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=[LabelQuality(Truth([0, 0, 0, 1, 1, 2]))],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )

    trainer.fit(Labelling(), DataLoader(torch.arange(6), batch_size=4))

    assert trainer.callback_metrics["train/labels_per_sample"] == 6
    assert trainer.callback_metrics["train/label_precision"].item() == pytest.approx(8 / 30)
    assert trainer.callback_metrics["train/label_recall"] == 1
