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
    with _progress(sum(images), progress) as advance:
        if num_workers <= 1:
            for number, task in enumerate(tasks):
                results[number] = work(task)
                advance(images[number])
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
                        advance(images[futures[future]])
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


@contextmanager
def _progress(total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """Give a function that is told of images made: a bar on a terminal, else lines at tenths."""
    if shown and sys.stderr.isatty():
        from rich import progress
        from rich.console import Console

        columns = (
            *(progress.TextColumn("synthetic people"), progress.BarColumn()),
            *(progress.MofNCompleteColumn(), progress.TimeRemainingColumn()),
            progress.TextColumn("left"),
        )
        with progress.Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("", total=total)
            yield lambda count: bar.advance(task, count)
        return
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        before, done = done, done + count
        if shown and done * 10 // total > before * 10 // total:
            print(f"synthetic people: {done:,} of {total:,} images", file=sys.stderr)

    yield advance
