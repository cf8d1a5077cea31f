"""Work that is spread over processes, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def carried_out(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    images: Sequence[int],
    *,
    num_workers: int | None,
    progress: bool,
) -> list[Result]:
    """Return what the work makes of each task, in the order of the tasks.

    Args:
        work: A function of a module, as processes must find it.
        tasks: What it is called with.
        images: How many images each task makes, for the progress bar.
        num_workers: Processes; None for one on each core, 1 to work in this one.
        progress: Whether to show a progress bar, or plain lines where there is no terminal.

    Returns:
        The results.

    Raises:
        ValueError: If num_workers is no positive number.

    Example:
        >>> carried_out(len, ["a", "abc"], [1, 1], num_workers=1, progress=False)
        [1, 3]
    """
    if num_workers is not None and num_workers < 1:
        raise ValueError(f"num_workers is {num_workers}. Set it to 1 or more.")
    num_workers = min(num_workers or _num_cores(), len(tasks))
    results: dict[int, Result] = {}
    with _progress_bar(sum(images), progress) as bar:
        if num_workers <= 1:
            for number, task in enumerate(tasks):
                results[number] = work(task)
                bar.advance(images[number])
        else:
            # spawn: the caller may have threads (a progress bar, torch) that a fork would break
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(
                num_workers, mp_context=context, initializer=_start_worker
            ) as pool:
                futures: dict[Future[Result], int] = {
                    pool.submit(work, task): number for number, task in enumerate(tasks)
                }
                try:
                    for future in as_completed(futures):
                        results[futures[future]] = future.result()
                        bar.advance(images[futures[future]])
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
    return [results[number] for number in range(len(tasks))]


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_worker() -> None:
    """Leave interruptions to the parent, and end with it even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


class _Bar:
    """A progress bar with the time left on a terminal, lines at every tenth elsewhere."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    def advance(self, count: int) -> None:
        before, self.done = self.done, self.done + count
        if self.done * 10 // self.total > before * 10 // self.total:
            print(f"synthetic people: {self.done:,} of {self.total:,} images", file=sys.stderr)


class _Silent(_Bar):
    def advance(self, count: int) -> None:
        self.done += count


class _RichBar(_Bar):
    def __init__(self, total: int) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        super().__init__(total)
        self.rich = Progress(
            TextColumn("synthetic people"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        )
        self.task = self.rich.add_task("", total=total)

    def advance(self, count: int) -> None:
        self.done += count
        self.rich.update(self.task, completed=self.done)


@contextmanager
def _progress_bar(total: int, progress: bool) -> Iterator[_Bar]:
    if not progress:
        yield _Silent(total)
    elif not sys.stderr.isatty():
        yield _Bar(total)
    else:
        bar = _RichBar(total)
        with bar.rich:
            yield bar
