"""Commands as processes that import nothing: each is forked from one that has.

What a command starts of crosswalk itself (a stage, a run of a table, a further process of a run)
is forked from it in turn, with the environment, the output and the session that it was to have.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import torch

from crosswalk.cli import main
from tests.end_to_end.small_runs import leave_empty_reports
from tests.end_to_end.toy_run import from_fork_server

FORK = multiprocessing.get_context("fork")


class ForkedCommand:
    """Stands for `subprocess.Popen` where crosswalk starts itself."""

    def __init__(
        self,
        command: list[str],
        env: Mapping[str, str] | None = None,
        stdout: IO[bytes] | None = None,
        stderr: IO[bytes] | None = None,
        start_new_session: bool = False,
        **_: object,
    ) -> None:
        places = [file.fileno() if hasattr(file, "fileno") else None for file in (stdout, stderr)]
        environment = dict(os.environ if env is None else env)
        args = (command[3:], environment, places, start_new_session)
        self.process = FORK.Process(target=_be_command, args=args)
        self.process.start()
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("crosswalk", timeout or 0.0)
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def _be_command(
    words: list[str],
    environment: dict[str, str],
    places: Sequence[int | None],
    new_session: bool,
) -> None:
    if new_session:
        os.setsid()
    for stream, place in enumerate(places, start=1):
        if place is not None:
            os.dup2(place, stream)
    run_command(words, environment)


def run_command(words: list[str], environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ |= environment
    sys.argv = ["crosswalk", *words]  # Lightning starts the same program
    sys.modules["__main__"].__spec__ = importlib.util.find_spec("crosswalk.__main__")
    sys.exit(main(words))


def fork_commands() -> None:
    """Let this process fork what it starts of crosswalk."""
    popen = subprocess.Popen

    def start(command: list[str], *args: object, **options: object) -> object:
        ours = command[:2] == [sys.executable, "-m"] and command[2].startswith("crosswalk")
        return (ForkedCommand if ours else popen)(command, *args, **options)

    subprocess.Popen = start


def _begin(words: list[str], environment: dict[str, str], said: Path) -> None:
    torch.set_num_threads(1)
    fork_commands()
    leave_empty_reports()
    with said.open("ab") as file:
        _be_command(words, environment, (file.fileno(), file.fileno()), False)


def start_command(
    words: list[str], said: Path, **environment: str
) -> multiprocessing.process.BaseProcess:
    """Start ``crosswalk <words>``; what it says is appended to a file, reports are empty."""
    return from_fork_server(_begin, words, {**os.environ, **environment}, said)


def said_by(words: list[str], said: Path, *, status: int = 0, **environment: str) -> str:
    """Run ``crosswalk <words>`` to its end, which is to be ``status``; return what it says."""
    process = start_command(words, said, **environment)
    process.join()
    text = said.read_text(encoding="utf-8")
    assert process.exitcode == status, text
    return text
