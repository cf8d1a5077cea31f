"""Who makes a run, how it is begun, and what is said when it fails.

A run belongs to whoever holds its lock. What another ablation runs is left to it, and taken over
if that one is killed; what is finished is never run again; what was begun goes on.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from crosswalk.lab.plan import LOGGER, Plan, PlannedRun
from crosswalk.lab.pool import is_whole, remove_half_made
from crosswalk.lab.progress import DONE, ELSEWHERE

OURS = "ours"

LAST_LINES = 12
"""Lines of a failed run's log that are shown."""


@dataclass(frozen=True)
class Failure:
    """A run that ended without results, why, and the end of its log."""

    run: PlannedRun
    reason: str
    log: Path
    lines: tuple[str, ...] = ()

    def details(self) -> list[str]:
        """Return what stands below it where it is shown."""
        return [f"  its log: {self.log}", *(f"  | {line}" for line in self.lines)]


@dataclass
class Claims:
    """The runs that are ours to make; the lock of each goes with this process, however it ends."""

    plan: Plan
    _locks: dict[str, FileLock] = field(default_factory=dict)

    def take(self, run: PlannedRun) -> str:
        """Return `OURS`, `DONE` if it is finished, or `ELSEWHERE` if another process makes it.

        Raises:
            ValueError: If the folder holds what is no run of this code and cannot go on.
        """
        lock = self.plan.pool.lock(run.folder)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return ELSEWHERE
        taken = False
        try:
            if self.plan.finished(run) is not None:
                return DONE
            if run.folder.is_in_use():  # what is left of an ablation that was killed
                return ELSEWHERE
            if is_whole(run.folder):
                raise ValueError(
                    f"{run.folder.path} was finished by other code "
                    f"({run.folder.record().get('code')}) than its name says. Move or delete it "
                    "and start again."
                )
            remove_half_made(run.folder)
            self._locks[run.folder.name] = lock
            taken = True
            return OURS
        finally:
            if not taken:
                lock.release()

    def release(self, run: PlannedRun) -> None:
        """Give a run up, finished or not."""
        lock = self._locks.pop(run.folder.name, None)
        if lock is not None:
            lock.release()


def arguments(plan: Plan, run: PlannedRun) -> list[str]:
    """Return the overrides of `crosswalk train` that begin a run, or go on with it."""
    pool = plan.pool
    place = [f"output_dir={pool.path}", f"name={pool.run_name(run.config)}"]
    if not run.folder.config_file.exists():
        return [LOGGER, *run.overrides, *place]
    return [LOGGER, *run.overrides, *place, "resume=true"]


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
