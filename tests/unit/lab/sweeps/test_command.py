import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from crosswalk.cli import parse
from crosswalk.lab import launch
from crosswalk.lab.sweeps import command
from crosswalk.lab.sweeps.command import begin, num_trials, run_sweep
from crosswalk.lab.sweeps.summary import SweepSummary
from tests.unit.lab import fake_slurm
from tests.unit.lab.sweeps.fake_train import config_of
from tests.unit.lab.sweeps.small_sweeps import FAKE, local_sweep, sweep_file


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trials be fake ones, whose configuration is not checked."""
    original = command.LocalSweep

    def fake_sweep(*arguments: Any) -> Any:  # noqa: ANN401
        return replace(original(*arguments), train=FAKE, configure=config_of)

    monkeypatch.setattr(command, "LocalSweep", fake_sweep)
    monkeypatch.setattr(
        command, "check_sweep", lambda *_: {"logger": {"wandb": None}, "trainer": {"devices": 1}}
    )


def sweep(tmp_path: Path, *words: str) -> int:
    """Run the command on a file of ours; two trials unless the words say otherwise."""
    words = ("--local", "--output-dir", str(tmp_path / "runs"), "--trials", "2", *words)
    return run_sweep(parse(["sweep", str(sweep_file(tmp_path).path), *words]))


@pytest.mark.usefixtures("fake")
def test_a_local_sweep_ends_with_its_best_trial_and_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = sweep(tmp_path, "epochs=2")

    said = capsys.readouterr().out
    folder = tmp_path / "runs" / "sweeps" / "fake"
    assert status == 0
    assert "2 trials: 2 ended." in said
    assert re.search(r"Repeat the best:\n  crosswalk train quality=0\.\d+ epochs=2\n", said)
    assert said.rstrip().endswith(f"Page: {folder / 'summary.html'}")
    assert (folder / "summary.html").exists()


@pytest.mark.usefixtures("fake")
def test_data_that_are_not_there_stop_a_sweep_before_its_first_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"logger": {"wandb": None}, "trainer": {"devices": 1}, "data": {"root": "nowhere"}}
    monkeypatch.setattr(command, "check_sweep", lambda *_: config)

    with pytest.raises(FileNotFoundError, match=r"data\.root=nowhere does not exist"):
        sweep(tmp_path)
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("fake")
def test_trials_may_be_jobs_of_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed")
    for name, value in fake_slurm.install(tmp_path / "slurm").items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ValueError, match="timeout_min=<minutes> is missing"):
        sweep(tmp_path, "--launcher=slurm", "epochs=2")
    status = sweep(tmp_path, "--launcher=slurm", "--slurm=timeout_min=3", "--agents=2", "epochs=2")

    said = capsys.readouterr()
    assert status == 0
    assert "2 trials: 2 ended." in said.out
    assert "submitted as job 2: trial 1" in said.err
    assert len(list((tmp_path / "slurm" / "jobs").glob("*.json"))) == 2


def test_slurm_is_for_searches_here(tmp_path: Path) -> None:
    words = ["sweep", str(sweep_file(tmp_path).path), "--launcher", "slurm"]

    with pytest.raises(ValueError, match="add --local"):
        run_sweep(parse(words))


@pytest.mark.usefixtures("fake")
def test_the_same_command_goes_on_and_more_trials_may_be_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(tmp_path, "--seed", "5")
    before = capsys.readouterr().err

    sweep(tmp_path, "--trials", "3")  # the seed is that of the folder

    after = capsys.readouterr().err
    assert "running: trial 0" in before
    assert "running: trial 0" not in after
    assert "[2/3] running: trial 2" in after
    assert sweep(tmp_path, "--show") == 0
    assert "3 trials: 3 ended." in capsys.readouterr().out


@pytest.mark.usefixtures("fake")
def test_a_trial_that_failed_is_named_at_the_end_with_its_log_and_gives_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--local", "--output-dir", str(tmp_path / "runs"))
    parameters = {"quality": {"values": [0.2, -1.0, 0.8]}}
    file = sweep_file(tmp_path, method="grid", parameters=parameters)

    status = run_sweep(parse(["sweep", str(file.path), *words]))

    said = capsys.readouterr().out
    found = re.search(
        r"\n3 trials: 2 ended, 1 failed\.\n"
        r"Failed: trial \d: it ended with status 1: no such loss; see (\S+\.log)\n",
        said,
    )
    assert found is not None
    assert "no such loss" in Path(found[1]).read_text()
    assert status == 1


@pytest.mark.usefixtures("fake")
def test_failing_trials_give_status_1_and_still_a_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = sweep(tmp_path, "--trials=9", "fail=at once")

    said = capsys.readouterr().out
    assert status == 1
    assert "3 trials failed one after the other" in said
    assert "3 trials: 3 failed." in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 2}, "seed: 1 → 2"),
        ({"overrides": ("epochs=3",)}, "  override: epochs=2 → epochs=3\n"),
        ({"overrides": ("seed=5", "epochs=2")}, "yours):\n  override: none → seed=5\n"),
        ({"overrides": ()}, "yours):\n  override: epochs=2 → none\n"),
        ({"file": {"method": "bayes"}}, "method: random → bayes"),
    ],
)
def test_a_folder_with_another_sweep_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    stored = local_sweep(tmp_path, "epochs=2")
    begin(stored, 1)
    if "file" in changes:
        changes = {"file": sweep_file(tmp_path, **changes["file"])}
    other = replace(stored, **changes)

    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        begin(other, other.seed)

    assert "choose another --name" in str(refused.value)


def test_a_sweep_goes_on_with_its_overrides_in_any_order(tmp_path: Path) -> None:
    stored = local_sweep(tmp_path, "epochs=2", "seed=5")
    begin(stored, 1)

    begin(replace(stored, overrides=("seed=5", "epochs=2")), 1)


def test_a_command_that_only_grew_is_told_whole(tmp_path: Path) -> None:
    stored = local_sweep(tmp_path)
    begin(stored, 1)
    words = stored.file.contents["command"]
    grown = sweep_file(tmp_path, command=[*words, "protocol=val"])

    with pytest.raises(ValueError, match="command: ") as refused:
        begin(replace(stored, file=grown), 1)

    before = " ".join(words)
    assert f"  command: {before} → {before} protocol=val\n" in str(refused.value)


@pytest.mark.parametrize(("trials", "shown"), [(18, 3), (2, 2)])
def test_a_dry_run_checks_the_file_and_prints_the_first_commands(
    trials: int, shown: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["mar", "--local", "--dry-run", "--output-dir", str(tmp_path), "trainer.max_epochs=1"]
    words.append(f"--trials={trials}")

    status = run_sweep(parse(["sweep", *words]))

    lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert lines[1].startswith(f"  {trials} trials of the 18 points of the grid, 1 at a time, in ")
    commands = [line for line in lines if line.startswith("  crosswalk train method=mar")]
    folder = tmp_path / "sweeps" / "mar"
    ends = [
        f" trainer.max_epochs=1 output_dir={folder} name=trial-00{number} "
        "logger.wandb.group=mar logger.wandb.job_type=trial"
        for number in range(shown)
    ]
    assert len(commands) == shown
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
    ("words", "message"),
    [
        (["--name=a/b"], "--name 'a/b' may contain letters"),
        (["--agents", "3", "--trials=3", "--devices=0,1"], "3 runs at a time"),
        (["--slurm", "partition=gpu"], "add --launcher slurm"),
        (["--show"], "holds no local sweep. The same command without --show starts it"),
    ],
)
def test_a_wrong_option_is_refused(tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        sweep(tmp_path, *words)


@pytest.mark.usefixtures("fake")
def test_no_more_trials_run_at_a_time_than_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(tmp_path, "--agents", "1000", "--dry-run") == 0

    assert "2 trials, 2 at a time" in capsys.readouterr().out


@pytest.mark.usefixtures("fake")
def test_a_sweep_that_is_interrupted_says_the_command_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "run_locally", interrupted)
    monkeypatch.setattr(sys, "argv", ["env/crosswalk", "sweep", "my file.yaml", "--local"])
    monkeypatch.setenv("PATH", "")

    assert sweep(tmp_path) == 130

    said = capsys.readouterr().out
    assert "goes on with the sweep:\n  env/crosswalk sweep 'my file.yaml' --local\n" in said


def test_a_sweep_that_is_not_there_is_begun_here_with_local(tmp_path: Path) -> None:
    words = ["sweep", str(sweep_file(tmp_path).path), "--show", "--output-dir", str(tmp_path)]

    with pytest.raises(FileNotFoundError, match="with --local in the place of --show starts it"):
        run_sweep(parse(words))


@pytest.mark.parametrize(
    ("each", "agents", "expected"),
    [
        (1, [], [("0",), ("1",), ("2",), ("3",)]),
        (2, [], [("0", "1"), ("2", "3")]),
        ("auto", ["--agents=2"], [("0", "1"), ("2", "3")]),
    ],
)
def test_every_trial_has_the_devices_that_it_asks_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    each: int | str,
    agents: list[str],
    expected: list[tuple[str, ...]],
) -> None:
    config = {"logger": {"wandb": None}, "trainer": {"accelerator": "gpu", "devices": each}}
    monkeypatch.setattr(command, "check_sweep", lambda *_: config)
    made: list[Any] = []

    monkeypatch.setattr(launch, "run_locally", lambda trials, slots, **_: made.extend(slots))
    monkeypatch.setattr(command, "_show", lambda sweep: SweepSummary([], {}))
    sweep(tmp_path, *agents, "--devices", "0,1,2,3")

    assert [slot.devices for slot in made] == expected


def test_the_stored_file_is_the_one_that_was_started(tmp_path: Path) -> None:
    stored = local_sweep(tmp_path)

    begin(stored, 1)

    assert yaml.safe_load((stored.folder / "sweep.yaml").read_text()) == stored.file.contents
