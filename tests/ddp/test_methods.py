"""Two epochs of every method on one process and on several, whole and stopped in between."""

from pathlib import Path

import pytest

from tests.ddp.processes import run_on_processes
from tests.ddp.small_fits import Outcomes, assert_equal_to_one_process, fit, fit_in_parts, run_of
from tests.end_to_end.small_runs import KINDS, METHODS
from tests.end_to_end.toy_run import assert_same


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_what_one_trains(
    kind: str, of_one_process: Outcomes, of_two_processes: Outcomes
) -> None:
    (alone,) = of_one_process(kind)

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
    method: str, cache: Path, of_two_processes: Outcomes, tmp_path: Path
) -> None:
    whole = of_two_processes(method)

    stop = whole[0]["steps"] - 1
    parts = run_on_processes(fit_in_parts, 2, *run_of(method, cache), tmp_path, 2, stop)

    assert_same(parts, whole)
