"""Two epochs of CM-MoCo and CMMT on one process and on several: queues, clusters, memories."""

from pathlib import Path

import pytest

from tests.ddp.processes import run_on_processes
from tests.ddp.small_fits import assert_equal_to_one_process, fit, fit_in_parts
from tests.end_to_end.small_runs import PAIR_METHODS, small_pair_overrides, tiny_pairs
from tests.end_to_end.toy_run import assert_same

STATE = {
    "cm_moco": {"queue.image", "queue.text", "queue.person_id", "queue.pointer"},
    "cmmt": {
        *("memories.image.rows", "memories.text.rows", "image_clusters", "text_clusters"),
        *("image_refined", "text_refined", "memories.image.labels", "memories.text.labels"),
    },
}
"""State that every process writes for itself, beside the weights."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pairs(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("kind", PAIR_METHODS)
def test_two_processes_train_what_one_trains(kind: str, root: Path, tmp_path: Path) -> None:
    run = small_pair_overrides(kind, root), root.parent / "cache"
    alone = run_on_processes(fit, 1, *run, tmp_path / "1", 1)[0]

    outcomes = run_on_processes(fit, 2, *run, tmp_path / "2", 2)

    assert STATE[kind] < alone["state"].keys()
    for outcome in outcomes:
        assert_equal_to_one_process(alone, outcome)


@pytest.mark.parametrize("kind", PAIR_METHODS)
def test_statistics_over_groups_are_the_same_on_three_processes(
    kind: str, root: Path, tmp_path: Path
) -> None:
    # 24 samples on 3 processes: groups of 12 end in the middle of a process. The last batch of
    # CMMT has 2 samples, so that one process has none
    more = ("bn_group_size=12", "data.batch_size=24")
    run = small_pair_overrides(kind, root, *more), root.parent / "cache"
    alone = run_on_processes(fit, 1, *run, tmp_path / "1", 1)[0]

    outcomes = run_on_processes(fit, 3, *run, tmp_path / "3", 3)

    for outcome in outcomes:
        assert_equal_to_one_process(alone, outcome)


@pytest.mark.parametrize("kind", PAIR_METHODS)
def test_two_processes_go_on_exactly_where_they_stopped(
    kind: str, root: Path, tmp_path: Path
) -> None:
    run = small_pair_overrides(kind, root, "checkpoint_every_n_steps=2"), root.parent / "cache"
    whole = run_on_processes(fit, 2, *run, tmp_path / "whole", 2)

    # in the second epoch, behind a checkpoint in its middle
    parts = run_on_processes(fit_in_parts, 2, *run, tmp_path / "parts", 2, 11)

    for once, twice in zip(whole, parts, strict=True):
        assert twice["metrics"] == once["metrics"]
        assert_same(twice["state"], once["state"])
