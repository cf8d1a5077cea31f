import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from crosswalk.lab.sweeps import command
from crosswalk.lab.sweeps.command import SweepOptions, begin, num_trials, run_sweep
from tests.unit.lab.sweeps.small_sweeps import FAKE, local_sweep, sweep_file

ROOT = Path(__file__).parents[4]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trials be fake ones, whose configuration is not checked."""
    original = command.LocalSweep

    def sweep(*arguments: Any) -> Any:  # noqa: ANN401
        return replace(original(*arguments), program=FAKE)

    monkeypatch.setattr(command, "LocalSweep", sweep)
    monkeypatch.setattr(
        command, "check_sweep", lambda *_: {"logger": {"wandb": None}, "trainer": {"devices": 1}}
    )


def options(tmp_path: Path, **changes: Any) -> SweepOptions:  # noqa: ANN401
    file = sweep_file(tmp_path)
    return SweepOptions(
        str(file.path), **{"local": True, "output_dir": tmp_path / "runs", "trials": 2, **changes}
    )


@pytest.mark.usefixtures("fake")
def test_a_local_sweep_ends_with_its_best_trial_and_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run_sweep(options(tmp_path, overrides=["epochs=2"]))

    said = capsys.readouterr().out
    folder = tmp_path / "runs" / "sweeps" / "fake"
    assert status == 0
    assert "2 trials: 2 ended." in said
    assert re.search(r"Repeat the best:\n  crosswalk train quality=0\.\d+ epochs=2\n", said)
    assert said.rstrip().endswith(f"Page: {folder / 'summary.html'}")
    assert (folder / "summary.html").exists()


@pytest.mark.usefixtures("fake")
def test_the_same_command_goes_on_and_more_trials_may_be_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_sweep(options(tmp_path, seed=5))
    before = capsys.readouterr().out

    run_sweep(options(tmp_path, trials=3))  # the seed is that of the folder

    after = capsys.readouterr().out
    assert "trial 0 starts" in before
    assert "trial 0 starts" not in after
    assert "trial 2 starts" in after
    assert run_sweep(options(tmp_path, show=True)) == 0
    assert "3 trials: 3 ended." in capsys.readouterr().out


@pytest.mark.usefixtures("fake")
def test_failing_trials_give_status_1_and_still_a_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run_sweep(options(tmp_path, trials=9, overrides=["fail=at once"]))

    said = capsys.readouterr().out
    assert status == 1
    assert "3 trials failed one after the other" in said
    assert "3 trials: 3 failed." in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 2}, "seed: 1 → 2"),
        ({"overrides": ("epochs=3",)}, "overrides: ['epochs=2'] → ['epochs=3']"),
        ({"file": {"method": "bayes"}}, "method: random → bayes"),
    ],
)
def test_a_folder_with_another_sweep_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    sweep = local_sweep(tmp_path, "epochs=2")
    begin(sweep, 1)
    if "file" in changes:
        changes = {"file": sweep_file(tmp_path, **changes["file"])}
    other = replace(sweep, **changes)

    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        begin(other, other.seed)

    assert "choose another --name" in str(refused.value)


def test_a_dry_run_checks_the_file_and_prints_the_first_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = SweepOptions(
        "mar", ["trainer.max_epochs=1"], local=True, dry_run=True, output_dir=tmp_path
    )

    status = run_sweep(chosen)

    lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert lines[1].startswith("  18 trials of the 18 points of the grid, 1 at a time, in ")
    commands = [line for line in lines if line.startswith("  crosswalk train method=mar")]
    folder = tmp_path / "sweeps" / "mar"
    ends = [
        f" trainer.max_epochs=1 output_dir={folder} name=trial-00{number} "
        "logger.wandb.group=mar logger.wandb.job_type=trial"
        for number in range(3)
    ]
    assert len(commands) == 3
    assert all(line.endswith(end) for line, end in zip(commands, ends, strict=True))
    assert not folder.exists()


@pytest.mark.parametrize(
    ("changes", "given", "expected"),
    [
        ({}, None, 20),
        ({}, 3, 3),
        ({"run_cap": 7}, None, 7),
        ({"run_cap": 7}, 9, 9),
        ({"method": "grid", "parameters": {"quality": {"values": [1, 2]}}}, None, 2),
        ({"method": "grid", "parameters": {"quality": {"values": [1, 2]}}}, 5, 2),
        ({"method": "grid", "parameters": {"quality": {"values": [1, 2]}}, "run_cap": 1}, None, 1),
    ],
)
def test_the_number_of_trials_is_the_users_the_files_or_the_grids(
    tmp_path: Path, changes: dict[str, Any], given: int | None, expected: int
) -> None:
    assert num_trials(sweep_file(tmp_path, **changes), given) == expected


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, "--trials 0 must be at least 1"),
        ({"name": "a/b"}, "--name 'a/b' may contain letters"),
        ({"agents": 3, "devices": ["0", "1"]}, "3 runs at a time"),
        ({"show": True}, "holds no local sweep"),
    ],
)
def test_a_wrong_option_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        run_sweep(options(tmp_path, **changes))


@pytest.mark.parametrize(
    ("each", "agents", "expected"),
    [
        (1, 0, [("0",), ("1",), ("2",), ("3",)]),
        (2, 0, [("0", "1"), ("2", "3")]),
        ("auto", 2, [("0", "1"), ("2", "3")]),
    ],
)
def test_every_trial_has_the_devices_that_it_asks_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    each: int | str,
    agents: int,
    expected: list[tuple[str, ...]],
) -> None:
    config = {"logger": {"wandb": None}, "trainer": {"accelerator": "gpu", "devices": each}}
    monkeypatch.setattr(command, "check_sweep", lambda *_: config)
    made: list[Any] = []

    class Idle:
        def __init__(self, sweep: Any, slots: list[Any], **_: object) -> None:  # noqa: ANN401
            made.extend(slots)

        def run(self) -> None:
            pass

    monkeypatch.setattr(command, "Worker", Idle)
    monkeypatch.setattr(command, "_show", lambda sweep: 0)
    run_sweep(options(tmp_path, agents=agents, devices=list("0123")))

    assert [slot.devices for slot in made] == expected


def test_make_passes_its_variables_on() -> None:
    made = subprocess.run(
        [
            *("make", "--no-print-directory", "--dry-run", "--old-file=.venv/.installed", "sweep"),
            *("SWEEP=rde", "LOCAL=1"),
            *("AGENTS=4", "DEVICES=0,1", "TRIALS=20", "ARGS=trainer.max_epochs=1"),
        ],
        cwd=ROOT,
        env={**os.environ, "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
        check=True,
    )

    words = shlex.split(made.stdout.replace("\\\n", " ").split("crosswalk sweep ")[1])
    assert words == [
        *("rde", "--local", "--agents", "4", "--devices", "0,1", "--trials", "20"),
        "trainer.max_epochs=1",
    ]


def test_the_command_line_imports_nothing_heavy_for_help() -> None:
    code = (
        "import sys\nimport crosswalk.lab.sweeps.command\n"
        "print(sorted({'torch', 'lightning', 'wandb', 'optuna'} & set(sys.modules)))"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout == "[]\n"


def test_the_stored_file_is_the_one_that_was_started(tmp_path: Path) -> None:
    sweep = local_sweep(tmp_path)

    begin(sweep, 1)

    assert yaml.safe_load((sweep.folder / "sweep.yaml").read_text()) == sweep.file.contents
