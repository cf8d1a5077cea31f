"""Runs of every method are killed at random moments, stages included, and end as if they had not.

A moment is an event: a batch of training, of a sweep or of an evaluation begins, a file is half
written, whole, or in its place. What is killed are all processes of the command.
"""

from __future__ import annotations

import os
import signal
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from crosswalk.cli import main
from crosswalk.config.compose import compose
from crosswalk.config.construct import locate
from crosswalk.config.plain import to_plain
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
SMALL_STAGES = {
    # its own: the words of the same people
    "clip_reid": ("stage.overrides.trainer.max_epochs=2", "+stage.overrides.data.batch_size=16"),
}
"""Of methods that start from another stage than a supervised one."""

every_method = pytest.mark.parametrize("method", METHODS)


class Moment(NamedTuple):
    """Where a command is killed: at the ``count``-th event of a name since it was started."""

    event: str
    count: int


class Events:
    """Writes the events of a command to a file, those of processes forked from this one included.

    An event is named with its part: "run step", "stage replaced". Only those behind the first step,
    sweep or evaluation of the command are among them: what comes before is the same in any start.
    """

    def __init__(self, log: Path, kill_at: Moment | None) -> None:
        """Kill the group of this process at an event."""
        self.log, self.kill_at = log, kill_at
        self.has_begun, self.left = (
            FORK.Value("b", 0),
            FORK.Value("q", kill_at.count if kill_at else 0),
        )

    def __call__(self, kind: str) -> None:
        part = "stage" if any(word.endswith("/stages") for word in sys.argv) else "run"
        with self.left.get_lock():
            self.has_begun.value |= kind in HOOKS.values()
            if not self.has_begun.value:
                return
            with self.log.open("a") as file:
                file.write(f"{part} {kind}\n")
            if self.kill_at is not None and f"{part} {kind}" == self.kill_at.event:
                self.left.value -= 1
                if self.left.value == 0:
                    os.killpg(0, signal.SIGKILL)

    def watch(self, method: type[Method]) -> None:
        for hook, event in HOOKS.items():
            setattr(method, hook, self._counting(getattr(method, hook), event))

    def _counting(self, hook: Callable[..., Any], event: str) -> Callable[..., Any]:
        def counting(method: Method, *args: object) -> object:
            self(event)
            return hook(method, *args)

        return counting


def train(
    overrides: list[str], cache: str, log: Path, kill_at: Moment | None, report: bool
) -> None:
    """Run ``crosswalk train`` as the leader of a group; write its events."""
    os.setsid()
    if not report:
        leave_empty_reports()
    torch.set_num_threads(1)
    events = Events(log, kill_at)
    config = to_plain(compose(overrides))
    for each in (config, stage_config(config)) if config["stage"] else (config,):
        events.watch(locate(each["method"]["_target_"], "method"))
    fork_commands()
    with stopping_in_files(events):
        run_command(["train", *overrides], {**os.environ, "CROSSWALK_CACHE": cache})


class Command:
    """``crosswalk train`` of a method, its stage included, with all it leaves in one folder."""

    def __init__(self, method: str, cache: Path, folder: Path, processes: int = 1) -> None:
        has_stage = "stage=null" in small_overrides(method)
        words = [word for word in small_run(method) if word != "stage=null"]
        stage = SMALL_STAGES.get(method, SMALL_STAGE) if has_stage else ()
        self.words = [*words, *stage, "checkpoint_every_n_steps=2"]
        self.has_stage, self.cache, self.processes = has_stage, cache, processes
        self.folder, self.log = folder, folder.with_name(f"{folder.name}.events")

    @property
    def runs(self) -> list[RunFolder]:
        """The run, and its stage if it has one."""
        folders = [*self.folder.glob("*-it"), *self.folder.glob("stages/*/config.yaml")]
        return [RunFolder(path if path.is_dir() else path.parent) for path in folders]

    @property
    def is_finished(self) -> bool:
        return len(self.runs) == 1 + self.has_stage and all(run.is_finished for run in self.runs)

    @property
    def events(self) -> list[str]:
        """Those of the last start."""
        return self.log.read_text().splitlines()

    def start(self, kill_at: Moment | None = None, *, report: bool = False) -> int | None:
        """Start it, or go on where it was killed; return its exit code.

        Args:
            kill_at: At which event it is killed.
            report: Whether its figures are drawn, which takes longer than all the rest.
        """
        words = [*self.words, f"output_dir={self.folder}", "name=it"]
        words.append(f"trainer.devices={self.processes}")
        if list(self.folder.glob("*-it")):
            words.append("resume=true")
        self.log.write_text("")
        return exit_code_of(train, words, str(self.cache), self.log, kill_at, report)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def commands(method: str, cache: Path, folder: Path, processes: int) -> Iterator[Command]:
    number = 0
    while True:
        yield Command(method, cache, folder / f"killed-{number}", processes)
        number += 1


def draw_moments(events: list[str], kills: int, seed: int) -> list[Moment]:
    """Return random moments of a run with these events, in their order, of all kinds in turn.

    What is behind one moment is still to be done when the command is started again, so the next
    is told by what lies between: it comes there or, as a part is done again, a little before.
    """
    random = np.random.default_rng(seed)
    kinds = random.permutation(sorted({*events})).tolist()
    places = {kind: [i for i, event in enumerate(events) if event == kind] for kind in kinds}
    drawn = sorted(int(random.choice(places[kinds[i % len(kinds)]])) for i in range(kills))
    moments, before = [], -1
    for place in drawn:
        between = events[before + 1 : place + 1]
        moments.append(Moment(events[place], max(1, between.count(events[place]))))
        before = place
    return moments


@every_method
@pytest.mark.parametrize(("processes", "kills"), [(1, KILLS), (2, KILLS_OF_TWO_PROCESSES)])
def test_a_run_killed_at_any_moment_ends_as_if_it_had_not_been(
    method: str, processes: int, kills: int, cache: Path, tmp_path: Path
) -> None:
    whole = Command(method, cache, tmp_path / "whole", processes)
    assert whole.start(report=processes > 1) == 0
    moments = draw_moments(whole.events, kills, zlib.crc32(f"{method} on {processes}".encode()))
    moments_left, last = moments[::-1], []

    for killed in commands(method, cache, tmp_path, processes):
        while not killed.is_finished:
            code = killed.start(kill_at=moments_left[-1] if moments_left else None)
            if code == 0:  # what was left of the run was shorter: the next one is killed there
                assert killed.is_finished
            else:
                moment = moments_left.pop()
                assert code == -signal.SIGKILL, moment
                last.append(killed.events[-1])
        for found, expected in zip(killed.runs, whole.runs, strict=True):
            if not (found.path / "report.html").exists():  # killed while it was written
                assert main(["report", str(found.path)]) == 0
            assert_same_run(found, expected)
        if not moments_left:
            break

    assert last == [moment.event for moment in moments]
    if kills == KILLS:
        kinds = {"step", "evaluation", "writing", "replacing", "replaced"}
        parts = ("run", "stage") if whole.has_stage else ("run",)
        assert {*last} == {*whole.events} >= {f"{part} {kind}" for part in parts for kind in kinds}
