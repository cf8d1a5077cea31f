import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from crosswalk.run.callbacks.run_record import RunRecord
from crosswalk.run.run_folder import RunFolder
from tests.ddp.processes import run_on_processes
from tests.end_to_end.toy_run import (
    NUM_EPOCHS,
    STEPS_PER_EPOCH,
    StopAt,
    Stopped,
    assert_same,
    exit_code_of,
    traces,
    train_toy,
)

Uninterrupted = Callable[[str], dict[str, Any]]
NUM_STEPS = NUM_EPOCHS * STEPS_PER_EPOCH
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "workers": {"num_workers": 2},
    "epochs only": {"every_n_steps": 0},
    "every step": {"every_n_steps": 1},
    "accumulated": {"accumulate_grad_batches": 2, "every_n_steps": 1},
    "val within epochs": {"val_check_interval": 0.5, "every_n_steps": 1},
    "val every two epochs": {"check_val_every_n_epoch": 2},
    "max steps": {"max_epochs": -1, "max_steps": 15},
    "sanity check": {"num_sanity_val_steps": 1},
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    known: dict[str, Any] = {}

    def traces_of(variant: str) -> dict[str, Any]:
        if variant not in known:
            folder = tmp_path_factory.mktemp("whole")
            train_toy(folder, **VARIANTS[variant])
            known[variant] = traces(folder)
        return known[variant]

    return traces_of


@pytest.mark.parametrize(
    ("event", "count"),
    [
        ("step", 1),
        ("step", 3),
        ("step", 4),
        ("step", STEPS_PER_EPOCH),
        ("step", STEPS_PER_EPOCH + 1),
        ("step", STEPS_PER_EPOCH + 4),
        ("stepped", 5),
        ("stepped", STEPS_PER_EPOCH + 1),
        ("sweep", 2),
        ("validation", 1),
        ("validation", 5),
        ("validated", 1),
        ("validated", NUM_EPOCHS),
        ("writing", 1),
        ("writing", 2),
        ("writing", 3),
        ("writing", 4),
        ("replacing", 3),
        ("replaced", 3),
        ("replacing", 4),
        ("replaced", 4),
    ],
)
@pytest.mark.parametrize("variant", ["plain", "every step"])
def test_a_run_stopped_anywhere_ends_as_if_it_had_not_been(
    tmp_path: Path, uninterrupted: Uninterrupted, variant: str, event: str, count: int
) -> None:
    with pytest.raises(Stopped):
        train_toy(tmp_path, StopAt(event, count), **VARIANTS[variant])

    train_toy(tmp_path, **VARIANTS[variant])

    assert_same(traces(tmp_path), uninterrupted(variant))


@pytest.mark.parametrize("variant", sorted(VARIANTS.keys() - {"plain", "every step"}))
@pytest.mark.parametrize(
    ("event", "count"), [("step", 5), ("step", STEPS_PER_EPOCH + 5), ("validation", 2)]
)
def test_every_kind_of_run_continues_exactly(
    tmp_path: Path, uninterrupted: Uninterrupted, variant: str, event: str, count: int
) -> None:
    with pytest.raises(Stopped):
        train_toy(tmp_path, StopAt(event, count), **VARIANTS[variant])

    train_toy(tmp_path, **VARIANTS[variant])

    assert_same(traces(tmp_path), uninterrupted(variant))


def test_a_run_stopped_at_every_second_step_ends_as_if_it_had_not_been(
    tmp_path: Path, uninterrupted: Uninterrupted
) -> None:
    for _ in range(NUM_STEPS):
        try:
            train_toy(tmp_path, StopAt("step", 3))
            break
        except Stopped:
            pass

    assert_same(traces(tmp_path), uninterrupted("plain"))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_killed_inside_an_epoch_in_validation_and_while_writing_ends_the_same(
    tmp_path: Path, uninterrupted: Uninterrupted, num_workers: int
) -> None:
    kills = [
        StopAt("step", 5, kill=True),
        StopAt("writing", 2, kill=True),
        StopAt("validation", 2, kill=True),
        StopAt("replaced", 1, kill=True),
        StopAt("validated", 1, kill=True),
    ]
    for kill in kills:
        assert exit_code_of(train_toy, tmp_path, kill, num_workers) == -signal.SIGKILL

    train_toy(tmp_path, num_workers=num_workers)

    assert_same(traces(tmp_path), uninterrupted("workers" if num_workers else "plain"))


def test_the_number_of_workers_does_not_matter(uninterrupted: Uninterrupted) -> None:
    assert_same(uninterrupted("workers"), uninterrupted("plain"))


def train_whole_and_in_parts(whole: Path, parts: Path, stop: StopAt) -> bool:
    options: dict[str, Any] = {"devices": 2, "strategy": "ddp", "max_epochs": 2}
    train_toy(whole, **options)
    stopped = False
    try:
        train_toy(parts, stop, **options)
    except Stopped:
        stopped = True
    torch.distributed.barrier()
    train_toy(parts, **options)
    return stopped


def test_two_processes_continue_with_the_random_numbers_each_had(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"

    stopped = run_on_processes(train_whole_and_in_parts, 2, whole, parts, StopAt("step", 9))

    assert stopped == [True, True]
    first, second = traces(whole)["random"]
    assert not torch.equal(first["random"]["torch"], second["random"]["torch"])
    assert_same(traces(parts), traces(whole))


def be_interrupted(folder: Path, number: int, num_workers: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with RunRecord(RunFolder(folder), seeds={}) as record:
        stop = StopAt("step", 9, signal=number)
        train_toy(folder, stop, num_workers=num_workers, callbacks=[record])


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_run_cleanly_and_it_continues(
    tmp_path: Path,
    uninterrupted: Uninterrupted,
    number: signal.Signals,
    status: int,
    num_workers: int,
) -> None:
    assert exit_code_of(be_interrupted, tmp_path, number, num_workers) == status

    assert RunFolder(tmp_path).record()["status"] == "interrupted"
    assert RunFolder(tmp_path).record()["error"] == number.name
    for record in ("run.json", ".lock"):
        (tmp_path / record).unlink()
    train_toy(tmp_path)
    assert_same(traces(tmp_path), uninterrupted("plain"))
