"""Which worker has which trial, on one machine or on several that share a folder."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

from filelock import FileLock, Timeout

from crosswalk.files import lock, write_text

INTERVAL = 10.0
"""Seconds between two signs of life."""

PATIENCE = 180.0
"""Seconds without a sign of life after which a worker on another machine counts as gone.

Far more than the minute for which a worker may wait for the end of a trial that it stops early."""


def this_machine() -> str:
    """Return a name of this machine since it was started, the same in all of its containers."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text(encoding="ascii").strip() if boot.exists() else platform.node()


class Claims:
    """Takes trials for one worker, so that no other takes them.

    A claim is a locked file, which the system lets go when the worker is gone, however it ended.
    Since not every network file system locks across machines, a claim also holds the machine and
    a number that grows: a trial of another machine is only taken when that number has stood still
    for ``patience``, by the clock of this one.

    Args:
        folder: Folder of the claims; the same for all workers.
        machine: Name of this machine.
        interval: Seconds between two signs of life.
        patience: Seconds without one after which a worker elsewhere counts as gone.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> ours, theirs = Claims(folder), Claims(folder)
        >>> ours.take(7), theirs.take(7)
        (True, False)
        >>> ours.release(7)
        >>> theirs.take(7)
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
        self._held: dict[int, FileLock] = {}
        self._seen: dict[int, tuple[object, float]] = {}
        self._beat = 0
        self._beaten = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, trial: int) -> bool:
        """Return whether the trial is this worker's now; False where another one has it."""
        held = lock(self.folder / f"{trial:03}.lock")
        try:
            held.acquire(timeout=0)
        except Timeout:
            return False
        if not self._is_abandoned(trial):
            held.release()
            return False
        self._held[trial] = held
        self._write(trial)
        return True

    def holds(self, trial: int) -> bool:
        """Return whether the trial is this worker's."""
        return trial in self._held

    def release(self, trial: int) -> None:
        """Let others take the trial, if it is still to be done."""
        self._file(trial).unlink(missing_ok=True)
        self._held.pop(trial).release()

    def beat(self) -> None:
        """Give a sign of life, every ``interval`` at most. Call it as often as you like."""
        if time.monotonic() - self._beaten < self.interval:
            return
        self._beaten = time.monotonic()
        self._beat += 1
        for trial in self._held:
            self._write(trial)

    def _is_abandoned(self, trial: int) -> bool:
        if not self._file(trial).exists():
            return True
        claim = json.loads(self._file(trial).read_text(encoding="utf-8"))
        if claim["machine"] == self.machine:
            return True  # its lock would have held
        seen, since = self._seen.get(trial, (None, 0.0))
        if seen != claim:
            self._seen[trial] = (claim, time.monotonic())
            return False
        return time.monotonic() - since >= self.patience

    def _write(self, trial: int) -> None:
        claim = {"machine": self.machine, "process": os.getpid(), "beat": self._beat}
        write_text(self._file(trial), json.dumps(claim))

    def _file(self, trial: int) -> Path:
        return self.folder / f"{trial:03}.json"
