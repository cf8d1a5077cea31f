from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from crosswalk.config.stage import stage_overrides
from crosswalk.run import stages
from crosswalk.run.run_folder import RunFolder
from crosswalk.run.stages import finished_stage, load_stage, stage_folder


def config_with(output_dir: Path, /, **overrides: object) -> dict[str, Any]:
    return {
        "output_dir": str(output_dir),
        "stage": {"choices": {"method": "rde"}, "overrides": overrides, "load": {}},
        "trainer": {"accelerator": "cpu", "devices": 2, "precision": "32-true"},
    }


def finish(folder: RunFolder) -> None:
    folder.path.mkdir(parents=True)
    folder.record_file.write_text(json.dumps({"status": "finished"}))


def test_the_folder_depends_on_what_the_stage_computes(tmp_path: Path) -> None:
    plain = stage_folder(config_with(tmp_path))

    assert plain.path.parent == tmp_path / "stages"
    assert plain.name.startswith("rde-synthetic_pairs-")
    assert stage_folder(config_with(tmp_path)) == plain
    assert stage_folder(config_with(tmp_path, seed=2)) != plain
    assert stage_folder(config_with(tmp_path, **{"optim": {"lr": 0.5}})) != plain


def test_the_folder_does_not_depend_on_where_and_on_what_it_runs(tmp_path: Path) -> None:
    plain = stage_folder(config_with(tmp_path))

    moved = {"output_dir": "/elsewhere", "name": "x", "data": {"num_workers": 3, "cache": False}}
    elsewhere = config_with(tmp_path, **moved)
    elsewhere["trainer"]["devices"] = 4

    assert stage_folder(elsewhere) == plain


def test_the_precision_makes_another_stage(tmp_path: Path) -> None:
    config = config_with(tmp_path)
    plain = stage_folder(config)
    config["trainer"]["precision"] = "bf16-mixed"

    assert stage_folder(config) != plain


def test_values_are_written_as_the_command_line_takes_them() -> None:
    overrides = {"a": {"x": None, "y": True}, "c": 1e-4, "d": "007", "e": "a b", "f": [6, 4]}

    stage = {"choices": {"data": "market1501"}, "overrides": overrides}

    lines = stage_overrides({"stage": stage})

    assert lines == [
        *("data=market1501", "a.x=null", "a.y=true", "c=0.0001", 'd="007"', 'e="a b"', "f=[6, 4]"),
    ]


def test_a_finished_stage_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_with(tmp_path)
    finish(stage_folder(config))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("it was trained again"))

    assert finished_stage(config) == stage_folder(config)


class Started:
    """Notes what was started instead of starting it."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.commands: list[list[str]] = []
        self.environment: dict[str, str] = {}

    def __call__(self, command: list[str], env: dict[str, str], stdout: object) -> Started:
        self.commands.append(command)
        self.environment = env
        return self

    def wait(self) -> int:
        return self.status


def test_a_missing_stage_is_trained_alone_on_the_hardware_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = Started(0)
    monkeypatch.setattr(stages.subprocess, "Popen", started)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("CROSSWALK_RUN_DIR", "elsewhere")
    config = config_with(tmp_path)

    folder = finished_stage(config)

    (command,) = started.commands
    assert command[1:5] == ["-m", "crosswalk", "train", "method=rde"]
    assert "trainer.devices=2" in command
    assert f"output_dir={folder.path.parent}" in command
    assert f"name={folder.name.rsplit('-', 1)[1]}" in command
    assert "resume=true" not in command
    assert not {"LOCAL_RANK", "CROSSWALK_RUN_DIR"} & started.environment.keys()
    assert started.environment["CROSSWALK_STAGE"] == folder.name


def test_a_stage_that_was_killed_goes_on_as_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = Started(0)
    monkeypatch.setattr(stages.subprocess, "Popen", started)
    config = config_with(tmp_path)
    folder = stage_folder(config)
    folder.path.mkdir(parents=True)
    folder.save_config({"trainer": {"accelerator": "gpu", "devices": 8}, "data": {"cache": True}})
    folder.last_checkpoint.touch()

    finished_stage(config)

    assert started.commands[0][-3:] == [
        *('trainer.accelerator="gpu"', "trainer.devices=8", "resume=true"),
    ]


def test_a_stage_without_a_checkpoint_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = Started(0)
    monkeypatch.setattr(stages.subprocess, "Popen", started)
    config = config_with(tmp_path)
    folder = stage_folder(config)
    folder.path.mkdir(parents=True)
    folder.save_config({})

    finished_stage(config)

    assert "resume=true" not in started.commands[0]
    assert not folder.path.exists()


def test_a_failed_stage_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages.subprocess, "Popen", Started(3))

    with pytest.raises(RuntimeError, match=r"status 3.*crosswalk train method=rde"):
        finished_stage(config_with(tmp_path))


def saved_stage(folder: Path) -> RunFolder:
    weights = {
        "encoder.backbone.weight": torch.full((2, 3), 5.0),
        "encoder.backbone.bias": torch.full((2,), 6.0),
        "classifier.weight": torch.full((4, 2), 7.0),
    }
    torch.save({"state_dict": weights}, folder / "last.ckpt")
    return RunFolder(folder)


def small_method(persons: int = 4) -> nn.Module:
    encoder = nn.Module()
    encoder.backbone = nn.Linear(3, 2)
    method = nn.Module()
    method.encoder = encoder
    method.agents = nn.Linear(2, persons, bias=False)
    return method


def test_parts_are_loaded_under_their_names_here(tmp_path: Path) -> None:
    method = small_method()

    load_stage(
        method,
        saved_stage(tmp_path),
        {"encoder.backbone": "encoder.backbone", "classifier": "agents"},
    )

    assert method.encoder.backbone.weight.tolist() == [[5.0] * 3] * 2
    assert method.encoder.backbone.bias.tolist() == [6.0, 6.0]
    assert method.agents.weight.tolist() == [[7.0] * 2] * 4


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"neck": "agents"}, r"no part 'neck'.*\['classifier', 'encoder'\]"),
        ({"classifier": "neck"}, "do not fit"),
        ({"encoder.backbone": "agents"}, "do not fit"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    tmp_path: Path, parts: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_stage(small_method(), saved_stage(tmp_path), parts)
