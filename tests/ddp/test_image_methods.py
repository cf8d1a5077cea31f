"""An epoch with labels and memories of every image method, on one process and on several."""

from pathlib import Path

import pytest

from tests.ddp.processes import run_on_processes
from tests.ddp.small_fits import assert_equal_to_one_process, composed, fit, fit_in_parts
from tests.end_to_end.small_runs import IMAGE_METHODS, small_image_overrides, tiny_images
from tests.end_to_end.toy_run import assert_same


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_images(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("kind", IMAGE_METHODS)
def test_several_processes_train_what_one_trains(kind: str, data: Path, tmp_path: Path) -> None:
    run = composed(small_image_overrides(kind, data, "protocol=official")), data / "cache"
    alone = run_on_processes(fit, 1, *run, tmp_path / "1", 1)[0]

    outcomes = run_on_processes(fit, 2, *run, tmp_path / "2", 2)

    for outcome in outcomes:
        assert_equal_to_one_process(alone, outcome)


@pytest.mark.parametrize("kind", ["mmcl", "mar"])
def test_statistics_over_groups_are_the_same_on_three_processes(
    kind: str, data: Path, tmp_path: Path
) -> None:
    # 12 samples on 3 processes: groups of 6 end in the middle of a process
    more = ("protocol=official", "bn_group_size=6", "data.batch_size=12")
    run = composed(small_image_overrides(kind, data, *more)), data / "cache"
    alone = run_on_processes(fit, 1, *run, tmp_path / "1", 1)[0]

    outcomes = run_on_processes(fit, 3, *run, tmp_path / "3", 3)

    for outcome in outcomes:
        assert_equal_to_one_process(alone, outcome)


@pytest.mark.parametrize(
    # in the second epoch, behind a checkpoint in its middle
    ("kind", "stop"),
    [("supervised", 5), ("mmcl", 7), ("mmcl_transfer", 11), ("mar", 11)],
)
def test_two_processes_go_on_exactly_where_they_stopped(
    kind: str, stop: int, data: Path, tmp_path: Path
) -> None:
    more = ("protocol=official", "checkpoint_every_n_steps=2")
    run = composed(small_image_overrides(kind, data, *more)), data / "cache"
    whole = run_on_processes(fit, 2, *run, tmp_path / "whole", 2)

    parts = run_on_processes(fit_in_parts, 2, *run, tmp_path / "parts", 2, stop)

    for once, twice in zip(whole, parts, strict=True):
        assert twice["metrics"] == once["metrics"]
        assert_same(twice["state"], once["state"])
