from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crosswalk.diagnostics.division_record import DivisionRecorder, division_file, read_division
from crosswalk.labels.consensus_division import Division, divide

SETTINGS = {"max_iter": 10, "tol": 1e-2, "reg_covar": 5e-4}


class Dividing:
    """Stands for a method that divides 7 pairs from epoch 1 on."""

    def __init__(self, epoch: int) -> None:
        generator = torch.Generator().manual_seed(epoch)
        self.latest_losses: dict[str, Tensor] | None = {
            view: torch.rand(7, generator=generator) for view in ("global", "token_selection")
        }
        self.latest_division: Division | None = divide(
            *self.latest_losses.values(), seed=epoch, **SETTINGS
        )

    def wants_sweep(self, epoch: int) -> bool:
        return epoch >= 1


def start_epoch(
    folder: Path, epoch: int, method: object, *, true_pairs: Tensor | None = None, rank: int = 0
) -> None:
    trainer: Any = SimpleNamespace(current_epoch=epoch, is_global_zero=rank == 0)
    recorder = DivisionRecorder(folder, SimpleNamespace(true_pairs=true_pairs))
    recorder.on_train_epoch_start(trainer, method)  # type: ignore[arg-type]


def test_a_record_holds_what_the_division_was_made_of(tmp_path: Path) -> None:
    method = Dividing(1)
    true_pairs = torch.tensor([True, False, True, True, False, True, True])

    start_epoch(tmp_path, 1, method, true_pairs=true_pairs)
    record = read_division(division_file(tmp_path, "last"))

    assert method.latest_losses is not None
    assert method.latest_division is not None
    assert (record.epoch, record.views) == (1, ("global", "token_selection"))
    for row, losses in enumerate(method.latest_losses.values()):
        assert record.losses[row].tolist() == losses.tolist()
    for name in ("probability", "prediction", "votes"):
        found, expected = getattr(record, name), getattr(method.latest_division, name)
        assert found.tolist() == expected.tolist()
    assert record.clean.tolist() == [kept == 1 for kept in method.latest_division.clean.tolist()]
    assert record.true_pair is not None
    assert record.true_pair.tolist() == true_pairs.tolist()


def test_the_first_file_keeps_the_first_epoch_and_the_last_file_follows(tmp_path: Path) -> None:
    for epoch in (0, 1, 2, 3):
        start_epoch(tmp_path, epoch, Dividing(epoch))

    first, last = (read_division(division_file(tmp_path, which)) for which in ("first", "last"))

    assert (first.epoch, last.epoch) == (1, 3)
    assert first.losses[0].tolist() == Dividing(1).latest_losses["global"].tolist()  # type: ignore[index]
    assert first.true_pair is None


def test_a_run_that_starts_anew_after_a_kill_writes_its_first_division_again(
    tmp_path: Path,
) -> None:
    start_epoch(tmp_path, 2, Dividing(9))

    start_epoch(tmp_path, 1, Dividing(1))

    assert read_division(division_file(tmp_path, "first")).epoch == 1


@pytest.mark.parametrize("case", ["other process", "before the first sweep", "no such method"])
def test_nothing_is_written_where_there_is_nothing_to_write(tmp_path: Path, case: str) -> None:
    method: object = SimpleNamespace() if case == "no such method" else Dividing(1)

    start_epoch(
        tmp_path,
        epoch=0 if case == "before the first sweep" else 1,
        method=method,
        rank=1 if case == "other process" else 0,
    )

    assert list(tmp_path.rglob("*")) == []


def test_no_unfinished_file_is_left(tmp_path: Path) -> None:
    start_epoch(tmp_path, 1, Dividing(1))

    names = sorted(path.name for path in (tmp_path / "diagnostics").iterdir())
    assert names == ["division-first.npz", "division-last.npz"]
    with np.load(division_file(tmp_path, "last"), allow_pickle=False) as file:
        assert "true_pair" not in file
