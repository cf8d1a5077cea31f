"""Whole runs of every image method: results, resumption, stages, indifference to loading."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from crosswalk.run.run_folder import RunFolder
from tests.end_to_end.small_runs import (
    IMAGE_METHODS,
    WholeRuns,
    assert_same_run,
    evaluated_copy,
    run_small,
    small_image_overrides,
    tiny_images,
    train_and_be_killed,
)
from tests.end_to_end.toy_run import exit_code_of


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_images(tmp_path_factory.mktemp("data"))


def run(
    kind: str, data: Path, runs: Path, *more: str, event: str | None = None, count: int = 0
) -> tuple[int | None, RunFolder]:
    overrides = small_image_overrides(kind, data, "checkpoint_every_n_steps=2", *more)
    return run_small(overrides, runs, data / "cache", event, count)


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> WholeRuns:
    return WholeRuns(lambda kind: run(kind, data, tmp_path_factory.mktemp(kind)))


@pytest.mark.parametrize("kind", IMAGE_METHODS)
def test_a_run_without_val_split_evaluates_its_last_epoch(
    kind: str, uninterrupted: WholeRuns
) -> None:
    folder = uninterrupted[kind]
    results = folder.results()
    validated = [line for line in folder.metrics() if "test/rank1" in line]

    assert set(results) == {"last"}
    assert results["last"]["epoch"] == 2
    assert 0 < results["last"]["test/rank1"] <= results["last"]["test/rank10"] <= 1
    assert 0 < results["last"]["test/minp"] <= results["last"]["test/map"] <= 1
    assert not folder.best_checkpoint.exists()
    assert len(validated) <= 1  # the final evaluation, none after an epoch


@pytest.mark.parametrize(
    ("kind", "event", "count"),
    [
        *((kind, "step", count) for kind in IMAGE_METHODS for count in (1, 3, 5)),
        ("mar", "sweep", 2),
        ("mmcl", "evaluation", 1),
    ],
)
def test_a_run_killed_anywhere_and_resumed_ends_as_if_nothing_had_happened(
    kind: str,
    event: str,
    count: int,
    data: Path,
    uninterrupted: WholeRuns,
    tmp_path: Path,
) -> None:
    whole = uninterrupted[kind]
    code, _ = run(kind, data, tmp_path, event=event, count=count)
    assert code == -signal.SIGKILL

    code, resumed = run(kind, data, tmp_path, "resume=true")

    assert code == 0
    assert_same_run(resumed, whole)


@pytest.mark.parametrize("kind", ["mmcl", "mar"])
@pytest.mark.parametrize("change", ["data.num_workers=2", "data.cache=off"])
def test_workers_and_the_cache_change_nothing(
    kind: str, change: str, data: Path, uninterrupted: WholeRuns, tmp_path: Path
) -> None:
    code, changed = run(kind, data, tmp_path, change)

    assert code == 0
    assert_same_run(changed, uninterrupted[kind])


def test_the_labels_of_the_target_change_nothing(
    data: Path, uninterrupted: WholeRuns, tmp_path: Path
) -> None:
    # every training image another person: the files are renamed, their order stays
    scrambled = shutil.copytree(data / "market1501", tmp_path / "data" / "market1501")
    shutil.copytree(data / "msmt17", tmp_path / "data" / "msmt17")
    (train,) = scrambled.rglob("bounding_box_train")
    for number, path in enumerate(sorted(train.iterdir())):
        path.rename(train / f"{number + 1:04}_{path.name.split('_', 1)[1]}")

    for kind in ("mmcl", "mar"):
        code, folder = run(kind, tmp_path / "data", tmp_path / kind)

        assert code == 0
        weights = torch.load(folder.last_checkpoint, weights_only=True)["state_dict"]
        expected = torch.load(uninterrupted[kind].last_checkpoint, weights_only=True)["state_dict"]
        for name in expected:
            if name != "true_positive_rate":  # which is only logged
                assert torch.equal(weights[name], expected[name]), name


def test_val_people_are_held_out_and_choose_the_best_epoch(data: Path, tmp_path: Path) -> None:
    code, folder = run("mmcl", data, tmp_path, "protocol=val", "data.val_person_ids=3")

    assert code == 0
    results = folder.results()
    logged = [line["val/rank1"] for line in folder.metrics() if "val/rank1" in line]
    weights = torch.load(folder.last_checkpoint, weights_only=True)["state_dict"]
    assert set(results) == {"best", "last"}
    assert results["best"]["val/rank1"] == max(logged[:2])
    assert "test/rank1" in results["best"]
    counts = folder.record()["data"]["counts"]
    assert len(weights["bank.rows"]) == counts["train"]["images"]
    assert counts["val_query"]["person_ids"] == 3


def test_a_stage_is_trained_once_and_its_weights_are_the_start(data: Path, tmp_path: Path) -> None:
    overrides = [
        *(line for line in small_image_overrides("mmcl", data) if line != "stage=null"),
        *(f"output_dir={tmp_path}", "trainer.max_epochs=1"),
        f"+stage.overrides.data.source.root={data / 'msmt17'}",
        *("+stage.overrides.trainer.max_epochs=1", "+stage.overrides.data.batch_size=12"),
        "+stage.overrides.data.image_size=[64,32]",
    ]
    environment = {"CROSSWALK_CACHE": str(data / "cache")}
    done = []
    for name in ("first", "second"):
        code = exit_code_of(train_and_be_killed, [*overrides, f"name={name}"], None, 0, environment)
        assert code == 0
        (stage,) = (path for path in (tmp_path / "stages").iterdir() if path.is_dir())
        done.append((stage / "last.ckpt").stat().st_mtime_ns)

    first, second = (
        json.loads((tmp_path / f"mmcl-synthetic_images-{name}" / "results.json").read_text())
        for name in ("first", "second")
    )
    direct = json.loads((stage / "results.json").read_text())["last"]
    record = RunFolder(tmp_path / "mmcl-synthetic_images-second").record()
    assert done[0] == done[1]
    assert first == second
    assert set(second) == {"start", "last"}
    assert second["start"]["epoch"] == 0
    assert {name: second["start"][name] for name in direct if name != "epoch"} == {
        name: value for name, value in direct.items() if name != "epoch"
    }
    assert second["last"]["test/map"] != second["start"]["test/map"]
    assert record["stage"]["folder"] == str(stage)


def test_what_is_odd_about_the_data_is_said_before_training(data: Path, tmp_path: Path) -> None:
    overrides = small_image_overrides(
        "mmcl", data, f"output_dir={tmp_path}", "trainer.max_epochs=1"
    )

    run = subprocess.run(
        [sys.executable, "-m", "crosswalk", "train", *overrides, "data.camstyle=auto"],
        capture_output=True,
        text=True,
        env={**os.environ, "CROSSWALK_CACHE": str(data / "cache"), "OMP_NUM_THREADS": "1"},
    )

    assert run.returncode == 0
    before, _, after = run.stderr.partition("epoch 1/1")
    assert re.search(r"note: .*camera-style", before)
    assert "note: " not in after


def test_a_model_of_two_sets_is_evaluated_on_a_single_one(
    uninterrupted: WholeRuns, data: Path, tmp_path: Path
) -> None:
    market = ["data=market1501", f"data.root={data / 'market1501'}", "data.num_workers=0"]

    copy = evaluated_copy(
        uninterrupted["mar"],
        tmp_path,
        data / "cache",
        # its own normalisation is that of the set's training images too
        [*market, "data.normalization=dataset"],
    )

    ours = RunFolder(copy.path / "evaluations").queries("test", "last")
    theirs = uninterrupted["mar"].queries("test", "last")
    for name, expected in theirs["image_to_image"]._asdict().items():
        # other batch sizes at test, so scores differ in rounding
        np.testing.assert_allclose(ours["image_to_image"]._asdict()[name], expected, rtol=1e-5)


def test_an_evaluation_of_a_run_repeats_its_results(
    uninterrupted: WholeRuns, data: Path, tmp_path: Path
) -> None:
    copy = evaluated_copy(uninterrupted["mmcl"], tmp_path, data / "cache")

    expected = uninterrupted["mmcl"].results_file.read_text()
    assert copy.results_file.read_text() == expected
