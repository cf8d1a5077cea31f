"""Runs as processes of their own, several at a time, each with its share of devices and cores.

One thread looks after all of them. Nothing outlives it: children get SIGTERM when it is stopped
and, on Linux, also when it is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from crosswalk.run.run_folder import FIRST_VARIABLE, rank_and_launch

PARENT_VARIABLE = "CROSSWALK_PARENT"
"""Process id of whom a run must not outlive."""

INTERVAL = 0.2
"""Seconds between two looks at the children."""


@dataclass(frozen=True)
class Slot:
    """Where one run at a time may be: some devices and a number of threads.

    ``devices`` are what CUDA_VISIBLE_DEVICES takes, none on a CPU.
    """

    number: int
    devices: tuple[str, ...]
    threads: int

    def environment(self) -> dict[str, str]:
        """Return what a process needs to know of its slot.

        Example:
            >>> Slot(0, ("3",), 2).environment()["CUDA_VISIBLE_DEVICES"]
            '3'
        """
        threads = str(self.threads)
        environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        if self.devices:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.devices)
        return environment


def device_names(text: str) -> list[str]:
    """Return the GPUs of an option ``--devices``.

    Example:
        >>> device_names("0, 1,")
        ['0', '1']
    """
    return [word.strip() for word in text.split(",") if word.strip()]


def command_line() -> str:
    """Return the command that was started, for records: without the place of the program."""
    name = Path(sys.argv[0]).name
    words = ["python", "-m", "crosswalk"] if name == "__main__.py" else [name]
    return shlex.join([*words, *sys.argv[1:]])


def to_type(*words: str) -> str:
    """Return a command of this program as the user's shell finds it; as it was started by default.

    It is on no search path where `make` or the path of a virtual environment started it.
    """
    program, *arguments = sys.argv
    name = Path(program).name
    if name == "__main__.py":
        begin = ["python", "-m", "crosswalk"]
    else:
        begin = [name if shutil.which(name) else program]
    return shlex.join([*begin, *(words or arguments)])


def make_slots(
    jobs: int,
    devices: Sequence[str] = (),
    *,
    devices_per_job: int = 1,
    num_cores: int | None = None,
) -> list[Slot]:
    """Return the slots of ``jobs`` runs at a time; the cores are divided evenly among them.

    No run has more threads than OMP_NUM_THREADS says where that is set.

    Args:
        jobs: Runs at a time; 0: one for every ``devices_per_job`` devices, at least one.
        devices: Names of the GPUs to use, as in CUDA_VISIBLE_DEVICES; none on a CPU.
        devices_per_job: GPUs of one run.
        num_cores: Cores to divide; those of this machine by default.

    Raises:
        ValueError: If there are not enough devices.

    Example:
        >>> [slot.devices for slot in make_slots(0, ["0", "1", "2", "3"], devices_per_job=2)]
        [('0', '1'), ('2', '3')]
    """
    jobs = jobs or max(1, len(devices) // devices_per_job)
    if devices and jobs * devices_per_job > len(devices):
        raise ValueError(
            f"{jobs} runs at a time with {devices_per_job} devices each need "
            f"{jobs * devices_per_job} devices, and {len(devices)} were named "
            f"({','.join(devices)}). Name more, or lower --jobs."
        )
    ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    cores = num_cores or len(ours) or os.cpu_count() or 1
    threads = max(1, min(cores // jobs, _thread_limit() or cores))
    return [
        Slot(
            number,
            tuple(devices[number * devices_per_job : (number + 1) * devices_per_job]),
            threads,
        )
        for number in range(jobs)
    ]


def _thread_limit() -> int | None:
    """Return the most threads that the user wants a process to have, None if that is not said.

    OpenMP's variable may have a number for each level of nested loops; the first one counts.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isascii() and first.isdigit() else None


def devices_per_run(wanted: object, num_devices: int, *, at_a_time: int) -> int:
    """Return how many of the GPUs that were named one run takes.

    One that takes all it sees gets an equal share of them.

    Args:
        wanted: ``trainer.devices``: a number, a list, or "auto" or -1 for all.
        num_devices: GPUs that were named; 0: none, and then 1 is returned.
        at_a_time: Runs side by side; 0: as many as there are GPUs for.

    Example:
        >>> [devices_per_run(wanted, 4, at_a_time=2) for wanted in (1, "0,1", "auto")]
        [1, 2, 2]
        >>> devices_per_run("auto", 4, at_a_time=0)
        4
    """
    if num_devices == 0:
        return 1
    if wanted in ("auto", -1, "-1"):
        return max(1, num_devices // max(1, at_a_time))
    if isinstance(wanted, str) and "," in wanted:
        wanted = [word for word in wanted.split(",") if word.strip()]
    if isinstance(wanted, list):
        return len(wanted)
    return int(str(wanted))


@dataclass(frozen=True)
class Task:
    """One process to run: its command, where its output goes, and what it is for."""

    command: Sequence[str]
    log: Path
    about: Any = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Running:
    """A task that runs."""

    task: Task
    slot: Slot
    process: subprocess.Popen[bytes]
    started: float

    def stop(self, patience: float = 60.0) -> int:
        """End the process and its children, politely first; return its status."""
        self._signal(signal.SIGTERM)
        return self._wait(patience)

    def _wait(self, patience: float = 60.0) -> int:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        self._signal(signal.SIGKILL)  # what is left, such as processes of a run that lost its first
        return self.process.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def start(task: Task, slot: Slot) -> Running:
    """Start a task in a slot; its output is appended to its log."""
    task.log.parent.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        **slot.environment(),
        **task.environment,
        PARENT_VARIABLE: str(os.getpid()),
    }
    with task.log.open("ab") as output:
        process = subprocess.Popen(
            list(task.command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,  # Ctrl-C is ours to pass on, once
        )
    return Running(task, slot, process, time.monotonic())


def run_tasks(
    next_task: Callable[[Slot], Task | None],
    slots: Sequence[Slot],
    *,
    on_end: Callable[[Running, int], None],
    look: Callable[[Sequence[Running]], None] = lambda running: None,
    interval: float = INTERVAL,
) -> None:
    """Keep all slots busy until there is no task left and every process has ended.

    Args:
        next_task: Called for a free slot; None: nothing to do now. It is asked again as long as
            other tasks run.
        slots: Where to run.
        on_end: Called with the task that ended and its exit status, negative for a signal.
        look: Called every ``interval`` with the tasks that run; it may `Running.stop` some.
        interval: Seconds between two looks.

    Raises:
        KeyboardInterrupt: At Ctrl-C or SIGTERM, after all processes were ended.

    Example:
        >>> import sys, tempfile
        >>> log = Path(tempfile.mkdtemp()) / "log"
        >>> tasks = [Task([sys.executable, "-c", "raise SystemExit(3)"], log, about="three")]
        >>> run_tasks(
        ...     lambda slot: tasks.pop() if tasks else None, make_slots(1),
        ...     on_end=lambda running, status: print(running.task.about, status),
        ... )
        three 3
    """
    running: dict[int, Running] = {}
    with _interrupted_by_sigterm():
        try:
            while True:
                for slot in slots:
                    if slot.number not in running and (task := next_task(slot)) is not None:
                        running[slot.number] = start(task, slot)
                if not running:
                    return
                time.sleep(interval)
                look(list(running.values()))
                for number, each in list(running.items()):
                    if (status := each.process.poll()) is not None:
                        del running[number]
                        each._signal(signal.SIGKILL)  # what it left behind would hold the devices
                        on_end(each, status)
        finally:
            for each in running.values():
                # to all at once and only once: a run that hears it twice does not end cleanly
                each._signal(signal.SIGTERM)
            for each in running.values():
                each._wait()


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Any:  # noqa: ANN401
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_with_parent() -> None:
    """Let this process end when the one that started it for `run_tasks`, or Lightning's, is gone.

    The former is told by SIGTERM. A further process of a run, which Lightning started, has nothing
    to save and may wait in a collective, where it hears nothing: it is killed. Works on Linux;
    elsewhere, and without such a parent, nothing happens. To be called early, and again at will.
    """
    parent = os.environ.pop(PARENT_VARIABLE, None)
    rank, launch = rank_and_launch(os.environ)
    is_further = rank > 0 and launch is None
    if not (parent or is_further) or not sys.platform.startswith("linux"):
        return
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
    number = signal.SIGKILL if is_further else signal.SIGTERM
    ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, int(number))
    starter = os.environ.get(FIRST_VARIABLE) if is_further else parent
    if starter and os.getppid() != int(starter):  # it was gone before
        os.kill(os.getpid(), number)
