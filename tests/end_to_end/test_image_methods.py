"""Whole runs on images: held-out people, stages, notes, evaluation on another set."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from crosswalk.run.run_folder import RunFolder
from tests.end_to_end.commands import said_by
from tests.end_to_end.small_runs import (
    WholeRuns,
    evaluated_copy,
    run_kind,
    small_run,
)


def test_val_people_are_held_out_and_choose_the_best_epoch(cache: Path, tmp_path: Path) -> None:
    code, folder = run_kind("mmcl", tmp_path, cache, "protocol=val", "data.val_person_ids=3")

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


def test_a_stage_is_trained_once_and_its_weights_are_the_start(cache: Path, tmp_path: Path) -> None:
    overrides = [
        *(line for line in small_run("mmcl") if line != "stage=null"),
        *(f"output_dir={tmp_path}", "trainer.max_epochs=1"),
        "+stage.overrides.data.source.synthetic.size=tiny",
        *("+stage.overrides.trainer.max_epochs=1", "+stage.overrides.data.batch_size=12"),
        "+stage.overrides.data.image_size=[64,32]",
    ]
    done = []
    for name in ("first", "second"):
        words = ["train", *overrides, f"name={name}"]
        said_by(words, tmp_path / "said.txt", CROSSWALK_CACHE=str(cache))
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


def test_what_is_odd_about_the_data_is_said_before_training(cache: Path, tmp_path: Path) -> None:
    overrides = small_run("mmcl", f"output_dir={tmp_path}", "trainer.max_epochs=1")

    run = subprocess.run(
        [sys.executable, "-m", "crosswalk", "train", *overrides, "data.camstyle=auto"],
        capture_output=True,
        text=True,
        env={**os.environ, "CROSSWALK_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
    )

    assert run.returncode == 0
    before, _, after = run.stderr.partition("epoch 1/1")
    assert re.search(r"note: .*camera-style", before)
    assert "note: " not in after


def test_a_model_of_two_sets_is_evaluated_on_a_single_one(
    whole: WholeRuns, cache: Path, tmp_path: Path
) -> None:
    expected = whole["mar"]
    (root,) = (cache / "synthetic").glob("images-market1501-tiny-*/")
    market = ["data=market1501", f"data.root={root}", "data.num_workers=0"]

    copy = evaluated_copy(
        expected,
        tmp_path,
        cache,
        # its own normalisation is that of the set's training images too
        [*market, "data.normalization=dataset"],
    )

    ours = RunFolder(next((copy.path / "evaluations").iterdir())).queries("test", "last")
    theirs = expected.queries("test", "last")
    for name, expected in theirs["image_to_image"]._asdict().items():
        # other batch sizes at test, so scores differ in rounding
        np.testing.assert_allclose(ours["image_to_image"]._asdict()[name], expected, rtol=1e-5)
