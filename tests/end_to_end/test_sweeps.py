"""A local sweep of real trainings, cut down to seconds: whole, and killed in the middle."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from crosswalk.lab.sweeps.trials import epoch_values
from crosswalk.run.run_folder import RunFolder
from tests.end_to_end.commands import said_by, start_command
from tests.end_to_end.small_runs import small_run, tiny_pairs

SWEEP = {
    "command": [
        *("${env}", "${interpreter}", "-m", "crosswalk", "train", "method=rde", "protocol=val"),
        "${args_no_hyphens}",
    ],
    "method": "bayes",
    "metric": {"name": "val/rank1", "goal": "maximize"},
    "parameters": {
        "method.loss.margin": {"min": 0.0, "max": 0.4},
        "encoder.select_ratio": {"values": [0.2, 0.4]},
        "optim.lr": {"value": 1e-3},
    },
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the sweeps lie; W&B has no login there."""
    folder = tmp_path_factory.mktemp("sweeps")
    (folder / "small.yaml").write_text(yaml.safe_dump(SWEEP, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("NETRC", str(folder / "none"))
        patch.setenv("CROSSWALK_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def root(place: Path) -> Path:
    return tiny_pairs(place)


def words_of(place: Path, root: Path, runs: str, trials: int, logger: str) -> list[str]:
    """Return the words behind ``crosswalk``."""
    overrides = [
        each
        for each in small_run("rde", f"data.root={root}")
        if not each.startswith(("logger=", "method="))
    ]
    return [
        *("sweep", str(place / "small.yaml"), "--local", "--seed", "3", "--trials", str(trials)),
        *("--output-dir", str(place / runs), *overrides, f"logger={logger}"),
        *("trainer.max_epochs=1", "checkpoint_every_n_steps=1"),
    ]


@pytest.fixture(scope="module")
def whole(place: Path, root: Path) -> tuple[Path, str]:
    """An uninterrupted sweep of two trials: its folder and what it said."""
    said = said_by(words_of(place, root, "whole", 2, "wandb"), place / "whole.txt")
    return place / "whole" / "sweeps" / "small", said


def trials_of(folder: Path) -> list[dict[str, Any]]:
    """Return the trials without what may differ between two machines."""
    trials = json.loads((folder / "trials.json").read_text())["trials"]
    return [{name: value for name, value in each.items() if name != "seconds"} for each in trials]


def test_a_sweep_of_real_runs_finds_its_best_and_groups_them_in_wandb(
    whole: tuple[Path, str],
) -> None:
    folder, said = whole
    trials = trials_of(folder)
    best = yaml.safe_load((folder / "best.yaml").read_text())

    assert [trial["state"] for trial in trials] == ["ended", "ended"]
    assert best["val/rank1"] == max(trial["value"] for trial in trials)
    assert f"Repeat the best:\n  {best['command']}" in said
    for trial in trials:
        run = RunFolder(folder / trial["folder"])
        assert run.is_finished
        assert max(epoch_values(run, "val/rank1").values()) == trial["value"]
        settings = run.config()["logger"]["wandb"]
        assert (settings["group"], settings["job_type"]) == ("small", "trial")
        assert len(list((run.path / "wandb").glob("offline-run-*/*.wandb"))) == 1


def test_a_sweep_killed_in_the_middle_of_a_trial_goes_on_and_ends_the_same(
    place: Path, root: Path, whole: tuple[Path, str]
) -> None:
    folder = place / "killed" / "sweeps" / "small"
    first = RunFolder(folder / "rde-synthetic_pairs-trial-000")
    words = words_of(place, root, "killed", 1, "csv")
    sweep = start_command(words, place / "killed.txt")
    while not first.last_checkpoint.exists():
        assert sweep.is_alive(), (place / "killed.txt").read_text()
        time.sleep(0.01)
    sweep.kill()
    sweep.join()
    assert not first.is_finished

    assert "running: trial 0 (goes on, " in said_by(words, place / "killed.txt")

    assert len(first.record()["sessions"]) == 2
    assert trials_of(folder) == trials_of(whole[0])[:1]
    ours, theirs = (path / first.name / "results.json" for path in (folder, whole[0]))
    assert ours.read_text() == theirs.read_text()
