"""Who makes a run: what one process has, on this machine or on another, is left to it."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from crosswalk.files import lock, write_text
from crosswalk.lab.pool import PlannedRun, remove_half_made
from crosswalk.lab.progress import DONE, ELSEWHERE

OURS = "ours"

INTERVAL = 10.0
"""Seconds between two signs of life."""

PATIENCE = 180.0
"""Seconds without a sign of life after which a process on another machine counts as gone.

Far more than the minute for which it may wait for the end of a run that it stops early."""


def this_machine() -> str:
    """Return a name of this machine since it was started, the same in all of its containers."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text(encoding="ascii").strip() if boot.exists() else platform.node()


class Claims:
    """Takes runs for one process, so that no other takes them.

    A claim is a locked file, which the system lets go when the process is gone, however it ended.
    Since not every network file system locks across machines, a claim also holds the machine and
    a number that grows: a run of another machine is only taken when that number has stood still
    for ``patience``, by the clock of this one.

    Args:
        folder: Folder of the claims; the same for all processes.
        machine: Name of this machine.
        interval: Seconds between two signs of life.
        patience: Seconds without one after which a process elsewhere counts as gone.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> ours, theirs = Claims(folder), Claims(folder)
        >>> ours.take("it"), theirs.take("it")
        (True, False)
        >>> ours.release("it")
        >>> theirs.take("it")
        True
    """

    def __init__(
        self,
        folder: Path,
        *,
        machine: str = "",
        interval: float = INTERVAL,
        patience: float = PATIENCE,
    ) -> None:
        self.folder = folder
        self.machine = machine or this_machine()
        self.interval = interval
        self.patience = patience
        self._held: dict[str, FileLock] = {}
        self._seen: dict[str, tuple[object, float]] = {}
        self._beat = 0
        self._beaten = time.monotonic()

    def take_run(
        self,
        run: PlannedRun,
        *,
        is_done: Callable[[PlannedRun], bool],
        goes_on: bool = False,
    ) -> str:
        """Return `OURS`, `DONE` if a run is finished, or `ELSEWHERE` if another process makes it.

        Args:
            run: The run.
            is_done: Whether it is finished.
            goes_on: Whether what runs in its folder, if anything does, was started for us.

        Raises:
            ValueError: If the folder holds what is no run and cannot go on.
        """
        name = run.identity
        if not self.take(name):
            return ELSEWHERE
        answer = ""
        try:
            if is_done(run):
                answer = DONE
            elif not goes_on and run.folder.is_in_use():  # what is left of a process that is gone
                answer = ELSEWHERE
            else:
                if not goes_on:
                    remove_half_made(run.folder)
                answer = OURS
            return answer
        finally:
            if answer != OURS:
                self.release(name)

    def take(self, name: str) -> bool:
        """Return whether the run of this name is ours now; False where another one has it."""
        held = lock(self.folder / f"{name}.lock")
        try:
            held.acquire(timeout=0)
        except Timeout:
            return False
        if not self._is_abandoned(name):
            held.release()
            return False
        self._held[name] = held
        self._write(name)
        return True

    def holds(self, name: str) -> bool:
        """Return whether the run is ours."""
        return name in self._held

    def release(self, name: str) -> None:
        """Let others take the run, if it is still to be made."""
        self._file(name).unlink(missing_ok=True)
        self._held.pop(name).release()

    def beat(self) -> None:
        """Give a sign of life, every ``interval`` at most. Call it as often as you like."""
        if time.monotonic() - self._beaten < self.interval:
            return
        self._beaten = time.monotonic()
        self._beat += 1
        for name in self._held:
            self._write(name)

    def _is_abandoned(self, name: str) -> bool:
        try:
            claim = json.loads(self._file(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return True
        if claim["machine"] == self.machine:
            return True  # its lock would have held
        seen, since = self._seen.get(name, (None, 0.0))
        if seen != claim:
            self._seen[name] = (claim, time.monotonic())
            return False
        return time.monotonic() - since >= self.patience

    def _write(self, name: str) -> None:
        claim = {"machine": self.machine, "process": os.getpid(), "beat": self._beat}
        write_text(self._file(name), json.dumps(claim))

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"
