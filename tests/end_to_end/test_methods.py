"""What every method is held to: whole runs, loading, evaluation, true identities."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from crosswalk.config.construct import locate
from crosswalk.config.data_kinds import needs_of
from crosswalk.config.search import read_group_file
from crosswalk.methods.base import Method
from crosswalk.run.run_folder import RunFolder
from crosswalk.types import Needs
from tests.end_to_end.small_runs import (
    KINDS,
    METHODS,
    WholeRuns,
    assert_same_run,
    evaluated_copy,
    rename_training_people,
    run_kind,
)
from tests.end_to_end.toy_run import assert_same

every_kind = pytest.mark.parametrize("kind", KINDS)
SHOWN_ONLY = {"true_positive_rate"}
"""Buffers that only a log reads."""


def method_class(kind: str) -> type[Method]:
    node = read_group_file("method", kind.partition(",")[0])["method"]
    return locate(node["_target_"], "method")


def needs(kind: str) -> Needs:
    return needs_of(method_class(kind), read_group_file("method", kind.partition(",")[0])["method"])


def queries_of(run: RunFolder) -> dict[str, np.ndarray]:
    """Return all arrays of all per-query files, by file and name."""
    arrays = {}
    for path in sorted((run.path / "queries").glob("*.npz")):
        with np.load(path) as file:
            arrays |= {f"{path.stem}/{name}": file[name] for name in file.files}
    return arrays


@every_kind
def test_a_run_leaves_everything_the_readme_names(kind: str, whole: WholeRuns) -> None:
    folder = whole[kind]
    names = {path.name for path in folder.path.iterdir()}
    has_best = folder.config()["protocol"] != "last"
    results = folder.results()

    assert folder.record()["status"] == "finished"
    assert names >= {"config.yaml", "run.json", "metrics.jsonl", "metrics.csv", "results.json"}
    assert names >= {"last.ckpt", "queries"}
    assert folder.best_checkpoint.exists() == has_best
    assert set(results) == ({"best", "last"} if has_best else {"last"})
    assert results["last"]["epoch"] == 2
    lines = folder.metrics()
    assert [line["epoch"] for line in lines if "train/loss" in line] == [1, 2]


@every_kind
def test_results_are_the_means_of_what_queries_found(kind: str, whole: WholeRuns) -> None:
    results = whole[kind].results()
    compared = 0

    for name, first_hit in queries_of(whole[kind]).items():
        if not name.endswith("_first_hit"):
            continue
        file, _, direction = name.removesuffix("_first_hit").partition("/")
        split, _, tag = file.rpartition("-")
        prefix = {"text_to_image": "", "image_to_image": ""}.get(direction, f"{direction}/")
        found = first_hit[first_hit > 0]  # 0: nobody to be found
        for rank in (1, 5, 10):
            expected = results[tag][f"{split}/{prefix}rank{rank}"]
            assert np.mean(found <= rank) == pytest.approx(expected), name
        compared += 1
    assert compared >= len(results)


@every_kind
def test_a_checkpoint_holds_plain_values_and_the_whole_configuration(
    kind: str, whole: WholeRuns
) -> None:
    checkpoint = torch.load(whole[kind].last_checkpoint, weights_only=True)

    assert checkpoint["crosswalk"]["config"] == whole[kind].config()


@pytest.mark.parametrize("kind", METHODS)
def test_workers_and_the_cache_change_nothing(
    kind: str, cache: Path, whole: WholeRuns, tmp_path: Path
) -> None:
    code, changed = run_kind(kind, tmp_path, cache, "data.num_workers=2", "data.cache=off")

    assert code == 0
    assert_same_run(changed, whole[kind])


@every_kind
def test_an_evaluation_of_a_run_repeats_its_results(
    kind: str, cache: Path, whole: WholeRuns, tmp_path: Path
) -> None:
    copy = evaluated_copy(whole[kind], tmp_path, cache)

    assert copy.results_file.read_text() == whole[kind].results_file.read_text()
    expected, found = queries_of(whole[kind]), queries_of(copy)
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not needs(kind).plans_see_identities])
def test_true_identities_change_nothing_where_the_method_does_not_need_them(
    kind: str, cache: Path, whole: WholeRuns, tmp_path: Path
) -> None:
    expected = whole[kind]
    renamed = tmp_path / "cache"
    shutil.copytree(cache / "synthetic", renamed / "synthetic")
    assert rename_training_people(renamed) > 0

    code, folder = run_kind(kind, tmp_path, renamed)

    assert code == 0
    assert folder.record()["data"] != expected.record()["data"]
    one, other = (state_of(each) for each in (folder, expected))
    assert_same(one, other)
    assert folder.results_file.read_text() == expected.results_file.read_text()


def state_of(run: RunFolder) -> dict[str, torch.Tensor]:
    """Return what is trained and remembered."""
    state = torch.load(run.last_checkpoint, weights_only=True)["state_dict"]
    return {name: value for name, value in state.items() if name not in SHOWN_ONLY}
