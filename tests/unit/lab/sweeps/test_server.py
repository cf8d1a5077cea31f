"""W&B's server is not reached here: what would be sent to it is looked at."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from crosswalk.cli import parse
from crosswalk.lab.sweeps import server
from crosswalk.lab.sweeps.command import run_sweep
from crosswalk.run.processes import make_slots, start
from tests.unit.lab.sweeps.small_sweeps import COMMAND, sweep_file
from tests.unit.run.test_processes import is_alive, wait_until


@pytest.fixture
def no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DISABLED", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))


@pytest.mark.usefixtures("no_login")
def test_without_a_login_the_local_search_is_offered(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no W&B login was found") as refused:
        run_sweep(parse(["sweep", "mar", "--output-dir", str(tmp_path)]))

    assert "LOCAL=1" in str(refused.value)
    assert "--local" in str(refused.value)
    assert not (tmp_path / "sweeps").exists()


@pytest.mark.usefixtures("no_login")
def test_a_login_that_is_switched_off_is_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", "offline")

    with pytest.raises(ValueError, match="WANDB_MODE or WANDB_DISABLED keeps W&B from its server"):
        server.register({}, project="p", num_trials=None)


@pytest.mark.usefixtures("no_login")
def test_the_very_same_file_is_registered_with_the_overrides_in_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    sent: list[tuple[dict[str, Any], str | None, str | None]] = []
    agents: list[tuple[str, int]] = []

    def register(sweep: dict[str, Any], *, entity: str | None, project: str | None) -> str:
        sent.append((sweep, entity, project))
        return "abc123"

    def run_agents(path: str, slots: list[Any], logs: Path) -> int:
        agents.append((path, len(slots)))
        return 0

    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(wandb, "sweep", register)
    monkeypatch.setattr(server, "run_agents", run_agents)
    command = [*COMMAND[:-1], "method=rde", COMMAND[-1]]
    parameters = {"optim.lr": {"min": 0.001, "max": 0.1}}
    file = sweep_file(tmp_path, command=command, parameters=parameters, entity="me")

    words = ["--agents", "4", "--devices=0,1,2,3", "--trials", "9", f"--output-dir={tmp_path}"]
    status = run_sweep(parse(["sweep", str(file.path), *words, "seed=7"]))

    assert status == 0
    added = ["seed=7", f"output_dir={tmp_path / 'sweeps' / 'fake'}"]
    expected = {**file.contents, "command": [*command, *added], "run_cap": 9}
    assert sent == [(expected, "me", "crosswalk")]
    assert agents == [("me/crosswalk/abc123", 4)]


def test_each_agent_gets_its_device_and_the_python_of_this_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent is replaced by a program that writes down what it was given."""
    program = "import os, shutil; print(os.environ['CUDA_VISIBLE_DEVICES'], shutil.which('python'))"
    original = server.agent_task

    def agent_task(path: str, number: int, logs: Path) -> server.Task:
        task = original(path, number, logs)
        command = [sys.executable, "-c", program, *task.command[1:]]
        return server.Task(command, task.log, task.about, task.environment)

    monkeypatch.setattr(server, "agent_task", agent_task)
    said: list[str] = []

    status = server.run_agents("e/p/id", make_slots(2, ["3", "5"]), tmp_path, say=said.append)

    assert status == 0
    found = [(tmp_path / f"agent-{number}.log").read_text().split() for number in (0, 1)]
    python = str(Path(sys.executable).parent / "python")
    assert found == [["3", python], ["5", python]]
    assert "wandb agent e/p/id" in said[1]
    assert sorted(said[2:]) == [f"agent {number} ended with status 0" for number in (0, 1)]


def test_an_agent_that_fails_fails_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = server.Task([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "log", about=0)
    monkeypatch.setattr(server, "agent_task", lambda path, number, logs: failing)

    assert server.run_agents("e/p/id", make_slots(1), tmp_path, say=lambda line: None) == 1


def test_the_agent_of_wandb_takes_these_words() -> None:
    """``wandb agent PATH``, as its own command line understands it."""
    from click.testing import CliRunner
    from wandb.cli.cli import cli

    words = server.agent_task("e/p/id", 0, Path("logs")).command

    assert list(words[1:3]) == ["-m", "crosswalk.lab.sweeps.server"]
    outcome = CliRunner().invoke(cli, [*words[3:], "--help"])
    assert outcome.exit_code == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells children")
def test_trials_live_while_their_agent_lives_and_end_with_it(tmp_path: Path) -> None:
    """In the place of W&B stands a module that starts a trial as its agent does."""
    trial = (
        "import os, time; from crosswalk.run.processes import end_with_parent; end_with_parent(); "
        "print(os.getpid(), flush=True); time.sleep(600)"
    )
    (tmp_path / "wandb.py").write_text(
        "import os, subprocess, sys\n"
        f"trial = subprocess.Popen([sys.executable, '-c', {trial!r}], process_group=0)\n"
        "sys.exit(trial.wait())\n"
    )
    words = server.agent_task("e/p/id", 0, tmp_path).command
    path = os.pathsep.join([str(tmp_path), *sys.path])
    task = server.Task(words, tmp_path / "log", environment={"PYTHONPATH": path})
    log = tmp_path / "log"

    agent = start(task, make_slots(1)[0])
    wait_until(lambda: log.exists() and log.read_text().endswith("\n"))
    pid = int(log.read_text())
    lived = is_alive(pid)
    agent.stop()

    assert lived
    wait_until(lambda: not is_alive(pid))
