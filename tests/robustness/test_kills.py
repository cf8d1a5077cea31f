"""Runs of every method are killed at random moments, stages included, and end as if they had not.

A moment is an event: a batch of training, of a sweep or of an evaluation begins, a file is half
written, whole, or in its place. What is killed are all processes of the command.
"""

from __future__ import annotations

import os
import signal
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crosswalk.cli import main
from crosswalk.config.compose import compose, to_plain
from crosswalk.config.constructors import locate
from crosswalk.config.search import small_overrides
from crosswalk.config.stage import stage_config
from crosswalk.methods.base import Method
from crosswalk.run.run_folder import RunFolder
from tests.end_to_end.commands import FORK, fork_commands, run_command
from tests.end_to_end.small_runs import METHODS, assert_same_run, leave_empty_reports, small_run
from tests.end_to_end.toy_run import exit_code_of, stopping_in_files

KILLS, KILLS_OF_TWO_PROCESSES = 12, 2
HOOKS = {
    **{"training_step": "step", "sweep_step": "sweep"},
    **{"validation_step": "evaluation", "test_step": "evaluation"},
}
SMALL_STAGE = (
    "stage.choices.experiment=supervised/synthetic_transfer",
    "+stage.overrides.trainer.max_epochs=1",
    *("+stage.overrides.data.batch_size=12", "+stage.overrides.data.source.synthetic.size=tiny"),
    "++stage.overrides.data.image_size=[64,32]",
)

every_method = pytest.mark.parametrize("method", METHODS)


class Events:
    """Counts the events of a command, those of processes forked from this one included."""

    def __init__(self, kill_at: int | None) -> None:
        """Kill the group of this process at the ``kill_at``-th event, from 1."""
        self.kill_at = kill_at
        self.number = FORK.Value("q", 0)

    def __call__(self, event: str) -> None:
        with self.number.get_lock():
            self.number.value += 1
            if self.number.value == self.kill_at:
                os.killpg(0, signal.SIGKILL)

    def watch(self, method: type[Method]) -> None:
        for hook, event in HOOKS.items():
            setattr(method, hook, self._counting(getattr(method, hook), event))

    def _counting(self, hook: Callable[..., Any], event: str) -> Callable[..., Any]:
        def counting(method: Method, *args: object) -> object:
            self(event)
            return hook(method, *args)

        return counting


def train(overrides: list[str], cache: str, count: str, kill_at: int | None, report: bool) -> None:
    """Run ``crosswalk train`` as the leader of a group; write the number of its events."""
    os.setsid()
    if not report:
        leave_empty_reports()
    torch.set_num_threads(1)
    events = Events(kill_at)
    config = to_plain(compose(overrides))
    for each in (config, stage_config(config)) if config["stage"] else (config,):
        events.watch(locate(each["method"]["_target_"], "method"))
    fork_commands()
    try:
        with stopping_in_files(events):
            run_command(["train", *overrides], {**os.environ, "CROSSWALK_CACHE": cache})
    finally:
        Path(count).write_text(str(events.number.value))


class Command:
    """``crosswalk train`` of a method, its stage included, with all it leaves in one folder."""

    def __init__(self, method: str, cache: Path, folder: Path, processes: int = 1) -> None:
        has_stage = "stage=null" in small_overrides(method)
        words = [word for word in small_run(method) if word != "stage=null"]
        self.words = [*words, *(SMALL_STAGE if has_stage else ()), "checkpoint_every_n_steps=2"]
        self.has_stage, self.cache, self.processes = has_stage, cache, processes
        self.folder, self.count = folder, folder.with_name(f"{folder.name}.count")

    @property
    def runs(self) -> list[RunFolder]:
        """The run, and its stage if it has one."""
        folders = [*self.folder.glob("*-it"), *self.folder.glob("stages/*/config.yaml")]
        return [RunFolder(path if path.is_dir() else path.parent) for path in folders]

    @property
    def is_finished(self) -> bool:
        return len(self.runs) == 1 + self.has_stage and all(run.is_finished for run in self.runs)

    @property
    def num_events(self) -> int:
        return int(self.count.read_text())

    def start(self, kill_at: int | None = None, *, report: bool = False) -> int | None:
        """Start it, or go on where it was killed; return its exit code.

        Args:
            kill_at: At which event it is killed.
            report: Whether its figures are drawn, which takes longer than all the rest.
        """
        words = [*self.words, f"output_dir={self.folder}", "name=it"]
        words.append(f"trainer.devices={self.processes}")
        if list(self.folder.glob("*-it")):
            words.append("resume=true")
        return exit_code_of(train, words, str(self.cache), str(self.count), kill_at, report)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def commands(method: str, cache: Path, folder: Path, processes: int) -> Iterator[Command]:
    number = 0
    while True:
        yield Command(method, cache, folder / f"killed-{number}", processes)
        number += 1


@every_method
@pytest.mark.parametrize(
    ("processes", "kills", "parts"), [(1, KILLS, 4), (2, KILLS_OF_TWO_PROCESSES, 2)]
)
def test_a_run_killed_at_any_moment_ends_as_if_it_had_not_been(
    method: str, processes: int, kills: int, parts: int, cache: Path, tmp_path: Path
) -> None:
    whole = Command(method, cache, tmp_path / "whole", processes)
    assert whole.start(report=processes > 1) == 0
    random = np.random.default_rng(zlib.crc32(f"{method} on {processes}".encode()))
    moments = random.integers(1, whole.num_events // parts, size=kills).tolist()

    for killed in commands(method, cache, tmp_path, processes):
        while not killed.is_finished:
            code = killed.start(kill_at=moments[-1] if moments else None)
            if code == 0:  # what was left of the run was shorter: the next one is killed there
                assert killed.is_finished
            else:
                moment = moments.pop()
                assert code == -signal.SIGKILL, moment
        for found, expected in zip(killed.runs, whole.runs, strict=True):
            if not (found.path / "report.html").exists():  # killed while it was written
                assert main(["report", str(found.path)]) == 0
            assert_same_run(found, expected)
        if not moments:
            break
