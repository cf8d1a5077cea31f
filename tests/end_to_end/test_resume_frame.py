import signal
from pathlib import Path
from typing import Any

import pytest

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
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    known: dict[str, Any] = {}

    def traces_of(variant: str) -> Any:
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
    tmp_path: Path, uninterrupted: Any, variant: str, event: str, count: int
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
    tmp_path: Path, uninterrupted: Any, variant: str, event: str, count: int
) -> None:
    with pytest.raises(Stopped):
        train_toy(tmp_path, StopAt(event, count), **VARIANTS[variant])

    train_toy(tmp_path, **VARIANTS[variant])

    assert_same(traces(tmp_path), uninterrupted(variant))


def test_a_run_stopped_at_every_second_step_ends_as_if_it_had_not_been(
    tmp_path: Path, uninterrupted: Any
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
    tmp_path: Path, uninterrupted: Any, num_workers: int
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


def test_the_number_of_workers_does_not_matter(uninterrupted: Any) -> None:
    assert_same(uninterrupted("workers"), uninterrupted("plain"))
