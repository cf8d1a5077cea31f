"""Runs as processes of this machine, several side by side; what decides which run is next."""

from __future__ import annotations

import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from crosswalk.lab.claims import Claims
from crosswalk.lab.pool import PlannedRun
from crosswalk.lab.progress import RUNNING, Board
from crosswalk.run.processes import INTERVAL, Running, Slot, Task, run_tasks

TRAIN = (sys.executable, "-m", "crosswalk", "train")
"""The command that runs are made with."""

LAST_LINES = 12
"""Lines of a failed run's log that are shown."""

Run = TypeVar("Run", bound=PlannedRun)


class End(NamedTuple):
    """How a run came to its end.

    Attributes:
        status: Exit status of its process, negative for a signal; None where that is not known.
        reason: The same in words, for a run that left no results.
        log: What it said.
        lines: The end of that.
    """

    status: int | None
    reason: str
    log: Path
    lines: tuple[str, ...]


class Work(ABC, Generic[Run]):
    """Runs that are to be made: the rows of a table, or the trials that a sweep proposes.

    Attributes:
        board: Shows them.
        claims: Those that are made here.
    """

    def __init__(self, board: Board, claims: Claims) -> None:
        self.board, self.claims = board, claims

    @abstractmethod
    def next_run(self, was_begun: Callable[[PlannedRun], bool]) -> Run | None:
        """Return a run that is ours to make now; None: there is none at the moment.

        Args:
            was_begun: Whether what may run in a run's folder was started for us.
        """

    @abstractmethod
    def ended(self, run: Run, end: End) -> None:
        """Note how a run ended that `next_run` gave."""

    @abstractmethod
    def is_left(self) -> bool:
        """Return whether something that others make is still to be waited for."""

    def should_stop(self, run: Run) -> bool:
        """Return whether a run is to be stopped before its end."""
        return False

    def look(self) -> None:
        """Be called every now and then."""
        self.claims.beat()
        self.board.look()


def run_locally(
    work: Work[Run],
    slots: Sequence[Slot],
    *,
    train: Sequence[str] = TRAIN,
    interval: float = INTERVAL,
) -> None:
    """Make runs until nothing is left, what other processes make included.

    Args:
        work: Says which.
        slots: Where to run.
        train: The command in front of the overrides.
        interval: Seconds between two looks.

    Raises:
        KeyboardInterrupt: At Ctrl-C or SIGTERM, after all runs were ended.
    """
    log_start: dict[str, int] = {}

    def next_task(slot: Slot) -> Task | None:
        run = work.next_run(lambda run: False)
        if run is None:
            return None
        run.log.parent.mkdir(parents=True, exist_ok=True)
        log_start[run.folder.name] = run.log.stat().st_size if run.log.exists() else 0
        place = f"on {','.join(slot.devices)}" if slot.devices else ""
        goes_on = "goes on" if run.folder.config_file.exists() else ""
        work.board.move(run, RUNNING, ", ".join(filter(None, (goes_on, run.note, place))))
        return Task([*train, *run.arguments()], run.log, about=run)

    def look(running: Sequence[Running]) -> None:
        work.look()
        for each in running:
            if work.should_stop(each.task.about):
                each.stop()

    def on_end(running: Running, status: int) -> None:
        run: Run = running.task.about
        lines = last_lines(run.log, start=log_start[run.folder.name])
        work.ended(run, End(status, reason_of(status), run.log, lines))

    while True:
        run_tasks(next_task, slots, on_end=on_end, look=look, interval=interval)
        if not work.is_left():
            return
        time.sleep(interval)
        work.look()


def reason_of(status: int) -> str:
    """Return in words how a process ended that left no results.

    Example:
        >>> reason_of(2), reason_of(-15)
        ('it ended with status 2', 'it was stopped by SIGTERM')
        >>> reason_of(-9)
        'it was killed by SIGKILL, as systems do when memory runs out'
    """
    if status == -signal.SIGKILL:
        return "it was killed by SIGKILL, as systems do when memory runs out"
    if status < 0:
        return f"it was stopped by {signal.Signals(-status).name}"
    return f"it ended with status {status}"


def last_lines(log: Path, *, start: int = 0, count: int = LAST_LINES) -> tuple[str, ...]:
    """Return the last lines of a log that say something.

    Args:
        log: The file; it need not exist.
        start: Where the output of this attempt begins, in bytes.
        count: How many lines; >= 1.

    Example:
        >>> import tempfile
        >>> log = Path(tempfile.mkdtemp()) / "log"
        >>> _ = log.write_text("before" + chr(10) + "10 %" + chr(13) + "99 %" + chr(10) * 2 + "end")
        >>> last_lines(log, start=7)
        ('99 %', 'end')
    """
    if not log.exists():
        return ()
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace")
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in text.split("\n")]
    return tuple([line for line in lines if line][-count:])
