"""How far something long is, for whoever waits for it."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.progress

FIRST, BETWEEN = 2.0, 10.0  # ours: seconds before anything is shown, and between two lines


class Progress:
    """Shows how much is done on stderr: a bar on a terminal, elsewhere a line every ten seconds.

    Nothing is shown of what takes less than two seconds.

    Args:
        title: What is done.

    Example:
        >>> with Progress("Checking images of RSTPReid") as progress:
        ...     progress(10, 20)
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._started = time.monotonic()
        self._next = self._started + FIRST
        self._bar: rich.progress.Progress | None = None

    def __enter__(self) -> Progress:
        return self

    def __call__(self, done: int, total: int) -> None:
        """Say that ``done`` of ``total`` are done; 0 that the work starts now, not before."""
        now = time.monotonic()
        if done == 0:
            self._started, self._next = now, now + FIRST
        if done and self._bar is None and now > self._next:
            self._next = now + BETWEEN
            if sys.stderr.isatty():
                self._bar = _bar(self._title)
            else:
                left = (now - self._started) / done * (total - done)
                told = f"{self._title}: {done:,} of {total:,}, about {left:.0f} s left"
                print(told, file=sys.stderr, flush=True)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _bar(title: str) -> rich.progress.Progress:
    from rich.console import Console  # late: most are done before there is anything to show
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    done = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    columns = (*done, Remaining(), TextColumn("left"))
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.start()
    bar.add_task(title)
    return bar
