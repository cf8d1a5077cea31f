"""Two epochs of CM-MoCo and CMMT on one process and on several: queues, clusters, memories."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.ddp.processes import run_on_processes
from tests.ddp.small_fits import assert_equal_to_one_process, composed, fit, fit_in_parts
from tests.end_to_end.small_runs import PAIR_METHODS, small_pair_overrides, tiny_pairs
from tests.end_to_end.toy_run import assert_same

STATE = {
    "cm_moco": {"queue.image", "queue.text", "queue.person_id"},
    "cmmt": {
        *("memories.image.rows", "memories.text.rows", "image_clusters", "text_clusters"),
        *("image_refined", "text_refined", "memories.image.labels", "memories.text.labels"),
    },
}
"""State that every process writes for itself, beside the weights; it does not stay as it began."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pairs(tmp_path_factory.mktemp("data"))


def run_of(kind: str, root: Path, *more: str) -> tuple[dict[str, Any], Path]:
    """Return the configuration and the cache folder."""
    overrides = small_pair_overrides(kind, root, "checkpoint_every_n_steps=2", *more)
    return composed(overrides), root.parent / "cache"


@pytest.fixture(scope="module")
def of_two_processes(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], list[dict[str, Any]]]:
    """Return what `fit` returns on two processes."""

    @cache
    def outcomes(kind: str) -> list[dict[str, Any]]:
        return run_on_processes(fit, 2, *run_of(kind, root), tmp_path_factory.mktemp("run"), 2)

    return outcomes


@pytest.mark.parametrize("kind", PAIR_METHODS)
def test_two_processes_train_what_one_trains(
    kind: str,
    root: Path,
    of_two_processes: Callable[[str], list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    alone = run_on_processes(fit, 1, *run_of(kind, root), tmp_path, 1)[0]

    assert all(len(alone["state"][name].unique()) > 2 for name in STATE[kind])
    for outcome in of_two_processes(kind):
        assert_equal_to_one_process(alone, outcome)


@pytest.mark.parametrize("kind", PAIR_METHODS)
def test_statistics_over_groups_are_the_same_on_three_processes(
    kind: str, root: Path, tmp_path: Path
) -> None:
    # 24 samples on 3 processes: groups of 12 end in the middle of a process. The last batch of
    # CMMT has 2 samples, so that one process has none
    run = run_of(kind, root, "bn_group_size=12", "data.batch_size=24", "trainer.max_epochs=1")
    alone = run_on_processes(fit, 1, *run, tmp_path / "1", 1)[0]

    outcomes = run_on_processes(fit, 3, *run, tmp_path / "3", 3)

    for outcome in outcomes:
        assert_equal_to_one_process(alone, outcome)


@pytest.mark.parametrize("kind", PAIR_METHODS)
def test_two_processes_go_on_exactly_where_they_stopped(
    kind: str,
    root: Path,
    of_two_processes: Callable[[str], list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    # in the second epoch, behind a checkpoint in its middle
    parts = run_on_processes(fit_in_parts, 2, *run_of(kind, root), tmp_path, 2, 11)

    for once, twice in zip(of_two_processes(kind), parts, strict=True):
        assert twice["metrics"] == once["metrics"]
        assert_same(twice["state"], once["state"])
