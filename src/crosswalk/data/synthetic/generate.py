"""Synthetic image-caption pairs on disk, rendered on all cores."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crosswalk.data.synthetic.captions import describe, tokenized
from crosswalk.data.synthetic.cuhk_layout import (
    COUNTS_NAME,
    FOLDER,
    Entry,
    image_path,
    write_counts,
    write_index,
)
from crosswalk.data.synthetic.looks import look_named
from crosswalk.data.synthetic.people import person_of
from crosswalk.data.synthetic.randomness import keyed_generator
from crosswalk.data.synthetic.shots import shots_of, take_picture

GENERATOR_VERSION = 1
"""Raised whenever the same seed makes other images or captions than before."""

_CAPTIONS_EACH = 2
_PERSONS_PER_TASK = 25


@dataclass(frozen=True, slots=True)
class SplitSize:
    """How much there is in a split; `extra_captions` are beyond two for each image."""

    persons: int
    images: int
    extra_captions: tuple[int, ...] = ()


SIZES: dict[str, dict[str, SplitSize]] = {
    # for tests: enough to run everything, not to learn anything
    "tiny": {"train": SplitSize(24, 61), "val": SplitSize(8, 20), "test": SplitSize(12, 31)},
    "toy": {
        "train": SplitSize(300, 1_000),
        "val": SplitSize(80, 248),
        "test": SplitSize(150, 465),
    },
    "small": {
        "train": SplitSize(2_000, 6_200),
        "val": SplitSize(200, 620),
        "test": SplitSize(400, 1_240),
    },
    # CUHK-PEDES, with its 80,440 captions: nine images have more than two
    "full": {
        "train": SplitSize(11_003, 34_054, (3, 3, 3, 3, 3, 3)),
        "val": SplitSize(1_000, 3_078, (2,)),
        "test": SplitSize(1_000, 3_074, (4, 4)),
    },
}
"""Counts of the sizes on offer."""


@dataclass(frozen=True, slots=True)
class _Task:
    """Some neighbouring persons of one split, and how many images and captions each gets."""

    domain: str
    seed: int
    imgs: Path
    split: str
    first_person: int
    images: tuple[int, ...]
    extra_captions: tuple[int, ...]


def synthesize_pairs(
    folder: Path | str,
    *,
    size: str = "toy",
    seed: int = 0,
    domain: str = "city",
    num_workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Write a synthetic data set in the layout of CUHK-PEDES, and return its root.

    The set is a function of size, seed and domain: the number of workers changes no byte. It is
    written beside the folder, as ``.<name>.partial-<random>``, and moved there when it is complete.
    A complete set of the same settings is left as it is.

    Args:
        folder: Root of the data set: ``CUHK-PEDES/imgs`` and ``CUHK-PEDES/reid_raw.json`` will be
            in it.
        size: "toy" (300 train identities), "small" (2,000) or "full" (counts of CUHK-PEDES).
        seed: Seed of people, pictures and captions; >= 0. Sets of different seeds share nobody.
        domain: Name of the look, see `looks.LOOKS`; sets of different looks share nobody.
        num_workers: Processes that render; None for one on each core.
        progress: Whether to show a progress bar, or plain lines where there is no terminal.

    Returns:
        The folder.

    Raises:
        ValueError: If an argument is out of its range.
        FileExistsError: If the folder holds anything else.

    Example:
        >>> synthesize_pairs("anywhere", size="huge")
        Traceback (most recent call last):
            ...
        ValueError: size is 'huge'. Set it to one of tiny, toy, small, full.
    """
    if size not in SIZES:
        raise ValueError(f"size is {size!r}. Set it to one of {', '.join(SIZES)}.")
    if seed < 0:
        raise ValueError(f"seed is {seed}. Set it to a whole number that is not negative.")
    if num_workers is not None and num_workers < 1:
        raise ValueError(f"num_workers is {num_workers}. Set it to 1 or more.")
    look_named(domain)
    folder = Path(folder).resolve()
    settings: dict[str, str | int] = {
        "dataset": "synthetic-pairs",
        "seed": seed,
        "size": size,
        "domain": domain,
        "generator_version": GENERATOR_VERSION,
    }
    if _is_complete(folder, settings):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
    try:
        inner = partial / FOLDER
        for source in look_named(domain).cameras:
            (inner / "imgs" / source).mkdir(parents=True)
        tasks = _tasks(domain, seed, size, inner / "imgs")
        entries = _rendered(tasks, num_workers or _num_cores(), progress)
        write_index(inner, entries)
        write_counts(inner, settings, entries)
        partial.chmod(0o755)  # mkdtemp makes it private
        try:
            partial.rename(folder)
        except OSError:
            # another process may have completed the same set in the meantime
            if not _is_complete(folder, settings):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def run_synthesize(
    folder: Path | str, kind: str, size: str, seed: int, layout: str | None = None
) -> int:
    """Write a synthetic data set for the command line, say where it is, and return 0.

    Args:
        folder: Root of the data set.
        kind: "pairs": images with captions.
        size: See `synthesize_pairs`.
        seed: See `synthesize_pairs`.
        layout: "cuhk_pedes", or None for that.

    Returns:
        The exit status.

    Raises:
        ValueError: If kind or layout is none that can be written.

    Example:
        >>> run_synthesize("anywhere", "videos", "toy", 0)
        Traceback (most recent call last):
            ...
        ValueError: kind is 'videos'. Set it to 'pairs' (images with captions).
    """
    if kind != "pairs":
        raise ValueError(f"kind is {kind!r}. Set it to 'pairs' (images with captions).")
    if layout not in (None, "cuhk_pedes"):
        raise ValueError(f"layout is {layout!r}. Pairs are written as 'cuhk_pedes'.")
    root = synthesize_pairs(folder, size=size, seed=seed)
    counts = json.loads((root / FOLDER / COUNTS_NAME).read_text(encoding="utf-8"))["splits"]
    for split, count in counts.items():
        print(
            f"{split:>5}: {count['person_ids']:,} identities, {count['images']:,} images, "
            f"{count['captions']:,} captions"
        )
    print(f"Synthetic pairs are in {root}. Train on them with data=cuhk_pedes data.root={root}.")
    return 0


def images_each(persons: int, images: int) -> list[int]:
    """Return how many images each person has: about the same, and `images` in all.

    Neighbours take one from each other by turns, and a few end with a single image as a few do
    in CUHK-PEDES.

    Example:
        >>> images_each(6, 19)
        [3, 3, 2, 4, 3, 4]
    """
    counts = [
        (number + 1) * images // persons - number * images // persons for number in range(persons)
    ]
    for pair in range(persons // 2):
        moved = 2 if pair % 1000 == 7 else pair % 2
        moved = min(moved, counts[2 * pair] - 1)
        counts[2 * pair] -= moved
        counts[2 * pair + 1] += moved
    return counts


def _is_complete(folder: Path, settings: dict[str, str | int]) -> bool:
    """Return whether this very set is there; refuse a folder that holds anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    record = folder / FOLDER / COUNTS_NAME
    if not record.is_file():
        raise FileExistsError(
            f"{folder} holds something that is no synthetic data set. "
            "Name a folder that does not exist yet."
        )
    made = json.loads(record.read_text(encoding="utf-8"))
    for name, value in settings.items():
        if made.get(name) != value:
            raise FileExistsError(
                f"{folder} holds a synthetic data set with {name} {made.get(name)!r}, not "
                f"{value!r}. Delete it or name another folder."
            )
    return True


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _tasks(domain: str, seed: int, size: str, imgs: Path) -> list[_Task]:
    tasks, first_id = [], 1
    for split, amount in SIZES[size].items():
        images = images_each(amount.persons, amount.images)
        extra = [0] * amount.persons
        for number, count in enumerate(amount.extra_captions):
            extra[number * 37 + 5] = count
        for start in range(0, amount.persons, _PERSONS_PER_TASK):
            end = start + _PERSONS_PER_TASK
            tasks.append(
                _Task(
                    domain,
                    seed,
                    imgs,
                    split,
                    first_id + start,
                    tuple(images[start:end]),
                    tuple(extra[start:end]),
                )
            )
        first_id += amount.persons
    return tasks


def _rendered(tasks: list[_Task], num_workers: int, progress: bool) -> list[Entry]:
    """Carry out all tasks and return the entries in the order of the tasks."""
    entries: dict[int, list[Entry]] = {}
    with _progress_bar(sum(sum(task.images) for task in tasks), progress) as bar:
        if num_workers == 1:
            for number, task in enumerate(tasks):
                entries[number] = _render(task)
                bar.advance(len(entries[number]))
        else:
            # spawn: the caller may have threads (a progress bar, torch) that a fork would break
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(
                min(num_workers, len(tasks)), mp_context=context, initializer=_start_worker
            ) as pool:
                futures: dict[Future[list[Entry]], int] = {
                    pool.submit(_render, task): number for number, task in enumerate(tasks)
                }
                try:
                    for future in as_completed(futures):
                        entries[futures[future]] = future.result()
                        bar.advance(len(future.result()))
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
    return [entry for number in range(len(tasks)) for entry in entries[number]]


def _start_worker() -> None:
    """Leave interruptions to the parent, and end with it even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _render(task: _Task) -> list[Entry]:
    """Write the images of a task's persons and return their entries."""
    look, entries = look_named(task.domain), []
    for offset, (count, extra) in enumerate(zip(task.images, task.extra_captions, strict=True)):
        person_id = task.first_person + offset
        person = person_of(look, seed=task.seed, person_id=person_id)
        shots = shots_of(look, person, seed=task.seed, person_id=person_id, count=count)
        for number, shot in enumerate(shots):
            path = image_path(shot.source, person_id, number, shot.camera)
            (task.imgs / path).write_bytes(take_picture(look, person, shot, seed=task.seed))
            words = keyed_generator(task.seed, look.name, "captions", shot.key)
            wanted = _CAPTIONS_EACH + (extra if number == 0 else 0)
            captions = tuple(describe(person, shot, words).text for _ in range(wanted))
            tokens = tuple(tuple(tokenized(caption)) for caption in captions)
            entries.append(Entry(task.split, person_id, path, captions, tokens))
    return entries


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
