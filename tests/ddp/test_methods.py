"""Two epochs of every method on one process and on several, whole and stopped in between."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from crosswalk.files import lock
from tests.ddp.processes import run_on_processes
from tests.ddp.small_fits import assert_equal_to_one_process, composed, fit, fit_in_parts
from tests.end_to_end.small_runs import KINDS, METHODS, small_run
from tests.end_to_end.toy_run import assert_same

OfTwo = Callable[[str], list[dict[str, Any]]]


def run_of(kind: str, cache: Path, *more: str) -> tuple[dict[str, Any], Path]:
    """Return the configuration, with an evaluation behind each epoch, and the cache folder."""
    # a checkpoint in the middle of the second epoch
    always = ("protocol=official", "checkpoint_every_n_steps=2")
    return composed(small_run(kind, *always, *more)), cache


@pytest.fixture(scope="session")
def of_two_processes(shared: Path, cache: Path) -> OfTwo:
    """Return what `fit` returns on two processes with two workers each; made once by a session."""

    def outcomes(kind: str) -> list[dict[str, Any]]:
        folder = shared / f"two-processes-{re.sub(r'[^a-z_]+', '-', kind)}"
        folder.mkdir(exist_ok=True)
        file = folder / "outcomes.pt"
        with lock(folder / "outcomes.lock"):
            if not file.exists():
                run = run_of(kind, cache, "data.num_workers=2")
                torch.save(run_on_processes(fit, 2, *run, folder / "run", 2), file)
        return torch.load(file, weights_only=False)

    return outcomes


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_what_one_trains(
    kind: str, cache: Path, of_two_processes: OfTwo, tmp_path: Path
) -> None:
    alone = run_on_processes(fit, 1, *run_of(kind, cache), tmp_path, 1)[0]

    for outcome in of_two_processes(kind):
        assert_equal_to_one_process(alone, outcome)


@pytest.mark.parametrize("method", METHODS)
def test_three_processes_train_what_one_trains_with_statistics_of_groups(
    method: str, cache: Path, tmp_path: Path
) -> None:
    # 24 samples on 3 processes: groups of 12 end in the middle of one. Of 122 pairs 2 are left
    # for the last batch, so that one process has none.
    more = ("bn_group_size=12", "data.batch_size=24", "trainer.max_epochs=1")
    run = run_of(method, cache, *more)
    alone = run_on_processes(fit, 1, *run, tmp_path / "1", 1)[0]

    outcomes = run_on_processes(fit, 3, *run, tmp_path / "3", 3)

    for outcome in outcomes:
        assert_equal_to_one_process(alone, outcome)


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_go_on_exactly_where_they_stopped(
    method: str, cache: Path, of_two_processes: OfTwo, tmp_path: Path
) -> None:
    whole = of_two_processes(method)

    stop = whole[0]["steps"] - 1
    parts = run_on_processes(fit_in_parts, 2, *run_of(method, cache), tmp_path, 2, stop)

    assert_same(parts, whole)
