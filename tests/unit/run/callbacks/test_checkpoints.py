import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from crosswalk.run.callbacks.checkpoints import AtomicCheckpointIO, Checkpoints
from crosswalk.run.tracking import RunLogger
from tests.end_to_end.toy_run import StopAt, Stopped, train_toy


def load(path: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    return checkpoint


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)

    def full_disk(value: object, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)

    assert load(path) == {"step": 1}
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"last\.ckpt is missing\. A run folder has"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.getcwd, ()


def test_code_inside_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"evil": Evil()}, tmp_path / "last.ckpt")

    with pytest.raises(Exception, match=r"last\.ckpt holds more than tensors"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt", weights_only=False)


def test_a_whole_run_leaves_its_last_and_its_best_epoch_and_nothing_else(tmp_path: Path) -> None:
    train_toy(tmp_path)

    last, best = load(tmp_path / "last.ckpt"), load(tmp_path / "best.ckpt")
    assert sorted(os.listdir(tmp_path)) == [
        "best.ckpt",
        "last.ckpt",
        "metrics.csv",
        "metrics.jsonl",
    ]
    assert last["crosswalk"] == {"config": {"seed": 0}}
    assert last["global_step"] == 18
    assert best["global_step"] == 6 * (best["resume"]["best_epoch"] + 1)
    assert last["resume"]["best_score"] == best["resume"]["best_score"]


@pytest.mark.parametrize(
    ("scores", "best_epoch"),
    [
        ([0.1, 0.3, 0.2], 1),
        ([0.3, 0.3, 0.3], 0),
        ([float("nan"), 0.1, float("nan")], 1),
        ([0.0, -1.0, 0.5], 2),
    ],
)
def test_the_first_of_the_best_epochs_is_kept(scores: list[float], best_epoch: int) -> None:
    callback = Checkpoints(Path("nowhere"), record={}, monitor="val/rank1")
    for epoch, score in enumerate(scores):
        metrics = {"val/rank1": torch.tensor(score)}
        trainer: Any = SimpleNamespace(
            callback_metrics=metrics, current_epoch=epoch, sanity_checking=False
        )
        callback.on_validation_end(trainer, None)  # type: ignore[arg-type]
        callback._is_best(trainer)

    assert callback.best_epoch == best_epoch


def test_a_monitor_that_nobody_logs_is_named_with_what_there_is() -> None:
    callback = Checkpoints(Path("nowhere"), record={}, monitor="val/rank2")
    trainer: Any = SimpleNamespace(
        callback_metrics={"val/rank1": torch.tensor(0.5)}, sanity_checking=False
    )
    callback.on_validation_end(trainer, None)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=r"val/rank2, which chooses the best epoch .*: val/rank1"):
        callback._is_best(trainer)


def test_a_checkpoint_of_other_software_is_refused(tmp_path: Path) -> None:
    train_toy(tmp_path)
    foreign = load(tmp_path / "last.ckpt")
    del foreign["resume"]
    torch.save(foreign, tmp_path / "last.ckpt")

    with pytest.raises(RuntimeError, match="was not written by `crosswalk train`"):
        train_toy(tmp_path)


def test_a_run_of_two_processes_is_not_continued_on_one(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train_toy(tmp_path, StopAt("step", 5))
    checkpoint = load(tmp_path / "last.ckpt")
    checkpoint["resume"]["processes"] *= 2
    torch.save(checkpoint, tmp_path / "last.ckpt")

    with pytest.raises(RuntimeError, match=r"on 2 processes .* there are 1\. Set trainer.devices"):
        train_toy(tmp_path)


@pytest.mark.parametrize(
    ("stop", "said"),
    [(StopAt("step", 5), "epoch 1, step 4."), (StopAt("step", 8), "epoch 1.")],
)
def test_a_run_that_goes_on_says_where(
    tmp_path: Path, stop: StopAt, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Stopped):
        train_toy(tmp_path, stop)
    assert "continues" not in capsys.readouterr().err

    train_toy(tmp_path)

    assert f"{tmp_path} continues behind {said}\n" in capsys.readouterr().err


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    train_toy(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    train_toy(tmp_path)

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_an_interrupted_evaluation_logged_is_dropped(tmp_path: Path) -> None:
    train_toy(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_text()
    RunLogger(tmp_path).log_metrics({"test/rank1": 0.5}, step=18)

    train_toy(tmp_path)

    assert (tmp_path / "metrics.jsonl").read_text() == before
