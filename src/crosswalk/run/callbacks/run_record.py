"""The record of a run: what was run, where, on what, and how it ended."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType, MappingProxyType, TracebackType
from typing import Any

import lightning.pytorch as L
import torch
from filelock import Timeout

from crosswalk import __version__
from crosswalk.files import lock
from crosswalk.run.code_digest import code_digest
from crosswalk.run.processes import command_line, to_type
from crosswalk.run.run_folder import CHILD_VARIABLE, STAGE_VARIABLE, RunFolder
from crosswalk.run.run_folder import is_first_process as is_first

PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "timm",
    "open_clip_torch",
    "numpy",
    "scikit-learn",
    "hydra-core",
    "omegaconf",
    "wandb",
)
STOPPING = (signal.SIGINT, signal.SIGTERM)
MAKE_VARIABLE = "CROSSWALK_MAKE"
"""How `make train` was called, but for its ARGS."""

LOST = re.compile(
    r"by peer|Broken pipe|remote process exit|Connection closed|Timed out waiting \d+ ?ms",
    re.IGNORECASE,
)
"""What collectives say where the process at the other end is not there any more, or is silent."""
Handler = Callable[[int, FrameType | None], Any] | int | None


class RunInterrupted(SystemExit):
    """A signal ended the run; uncaught, the process ends with the status shells expect."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum


BUT_RESULTS = ":(top,exclude,glob)**/results/**"
CHANGED = (":(top)", BUT_RESULTS)
"""What git is asked about of the files that it tracks: everything but kept results."""
ADDED = (*(f":(top){folder}" for folder in ("src", "configs", "experiments")), ":(top,glob)*.py")
"""Where files that git does not track can change a number; others are pages, tables, models."""


def commit_of(folder: Path) -> dict[str, Any]:
    """Return commit and whether files were changed since; both None where there is no git.

    What can change no number is no change: results that were kept since, and new files where no
    code lies, such as a page of `crosswalk compare`, do not mark what runs next.

    Example:
        >>> commit_of(Path("/"))
        {'commit': None, 'dirty': None}
    """

    def git(*arguments: str) -> str | None:
        try:
            outcome = subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return outcome.stdout.strip() if outcome.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None}
    changed = git("status", "--porcelain", "--untracked-files=no", "--", *CHANGED)
    added = git("status", "--porcelain", "--untracked-files=all", "--", *ADDED, BUT_RESULTS)
    return {"commit": commit, "dirty": bool(changed or added)}


def commit_of_this_package() -> dict[str, Any]:
    """Return `commit_of` for the clone this package runs from; None if it was installed."""
    source = Path(__file__).resolve().parents[3]  # src/ of a clone, else site-packages
    if not (source.parent / "pyproject.toml").exists():
        return {"commit": None, "dirty": None}
    return commit_of(source.parent)


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that can change a number.

    Example:
        >>> package_versions()["torch"] == importlib.metadata.version("torch")
        True
    """
    versions = {"python": platform.python_version(), "crosswalk": __version__}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def hardware() -> dict[str, Any]:
    """Return the machine in words.

    Processors of other kinds, and other instructions of theirs, round sums in other ways.

    Example:
        >>> sorted(hardware())
        ['cpus', 'gpus', 'host', 'instructions', 'machine', 'processor', 'system']
    """
    available = hasattr(os, "sched_getaffinity")
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cpus": len(os.sched_getaffinity(0)) if available else os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _processor() -> str:
    """Return the model of the processor, or what its maker calls it where nothing lists it."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def now() -> str:
    """Return the time with its zone, to the second, as records hold it."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


class RunRecord(L.Callback):
    """Keeps ``run.json`` true from start to end, and ends the run cleanly at a signal.

    Use it around everything the run does, and hand it to the trainer as well, because Lightning
    puts handlers of its own in the place of ours. Ctrl-C and SIGTERM end the process with status
    130 and 143 after the record says ``interrupted`` and the user was told how to continue. No
    checkpoint is written then: the state may be that of half a step.

    On other processes than the first nothing is written.

    Args:
        folder: The run folder.
        seeds: By name.
        config: The resolved configuration, plain, which says what code the run is made by.
        is_first_process: Whether this process keeps the record; by default, unless the
            environment that Lightning, torchrun or SLURM set says otherwise.
        takes_back: Whether a run that is refused before it begins leaves no folder: a corrected
            command may then have its name.
        took_root: Whether the folder of runs was made for it, and is then taken back, too.

    Example:
        >>> import tempfile
        >>> folder = RunFolder(Path(tempfile.mkdtemp()))
        >>> with RunRecord(folder, seeds={"seed": 1}) as record:
        ...     record.update(data={"dataset": "toy"})
        ...     folder.record()["status"]
        'running'
        >>> folder.record()["status"], folder.record()["data"]
        ('finished', {'dataset': 'toy'})
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        seeds: Mapping[str, int],
        config: Mapping[str, Any] = MappingProxyType({}),
        is_first_process: bool | None = None,
        takes_back: bool = False,
        took_root: bool = False,
    ) -> None:
        self.folder = folder
        self.takes_back = takes_back
        self.took_root = took_root
        self.seeds = dict(seeds)
        self.config = config
        if is_first_process is None:
            is_first_process = is_first(os.environ)
        self.is_first_process = is_first_process
        self.process = os.getpid()
        self.contents: dict[str, Any] = {}
        self._handlers: dict[int, Handler] = {}
        self._launcher: Any = None
        self._lock = lock(folder.lock_file)
        self._received: signal.Signals | None = None

    def __enter__(self) -> RunRecord:
        """Begin: lock the folder, write the record, take over the signals."""
        self.process = os.getpid()
        if self.is_first_process:
            self._take_lock()
            self.folder.remove_unfinished()
            before, code = self.folder.record(), code_digest(self.config)
            session = {"started": now(), "ended": None, "code": code}
            sessions = [*(before.get("sessions") or []), session]
            if before.get("code") not in (None, code):
                print(
                    f"note: this run was made by code {before['code']} so far and goes on with "
                    f"code {code}; run.json keeps both, session by session.",
                    file=sys.stderr,
                )
            self.update(
                name=self.folder.name,
                status="running",
                error=None,
                command=before.get("command") or command_line(),
                started=before.get("started", sessions[0]["started"]),
                ended=None,
                sessions=sessions,
                **commit_of_this_package(),
                code=code,
                versions=package_versions(),
                hardware=hardware(),
                seeds=self.seeds,
                data=before.get("data"),
            )
        self._handlers = {number: signal.getsignal(number) for number in STOPPING}
        self._take_signals()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End: say how, and give the signals back."""
        if self._received is None and isinstance(error, KeyboardInterrupt):
            self._received = signal.SIGINT
        lost = isinstance(error, RuntimeError) and LOST.search(str(error)) is not None
        if lost and self._received is None:
            gone = RuntimeError(
                "another process of this run is gone, or does not answer: it was killed, or its "
                "own message stands above. The same command with resume=true goes on from the last "
                f"checkpoint. It was seen by: {str(error).strip().splitlines()[0]}"
            )
            gone.__cause__, error = error, gone
        if self._received is not None:
            self._end("interrupted", self._received.name)
            self._tell_how_to_continue(self._received)
        elif error is None:
            self._end("finished", None)
        else:
            self._end("failed", "".join(traceback.format_exception_only(error)).strip())
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._lock.release()
        refused = self._received is None and isinstance(error, (ValueError, OSError))
        if refused and self.takes_back and self.is_first_process:
            shutil.rmtree(self.folder.path, ignore_errors=True)
            if self.took_root:
                with contextlib.suppress(OSError):  # something else lies in it by now
                    self.folder.path.parent.rmdir()
        # Workers and other processes that end first can put errors of their own in the way.
        if self._received is not None and not isinstance(error, RunInterrupted):
            raise RunInterrupted(self._received) from error
        if lost and self._received is None and error is not None:
            raise error

    def update(self, **entries: Any) -> None:  # noqa: ANN401
        """Set entries of the record, plain containers only, and write it."""
        self.contents |= entries
        if self.is_first_process:
            self.folder.save_record(self.contents)

    # For Lightning, which installs handlers of its own just before these hooks

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals back."""
        self.takes_back = False
        self._launcher = trainer.strategy.launcher
        self._take_signals()

    on_validation_start = on_test_start = on_train_start

    # Parts

    def _take_signals(self) -> None:
        if self._handlers:  # within `with`
            for number in STOPPING:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a loader's worker, forked with this handler:
            return  # the first process ends it
        if CHILD_VARIABLE in os.environ and not self.is_first_process and not _has_agent():
            os._exit(0)  # at another status Lightning would kill the first process
        if self._received is not None:  # a second time: the user does not want to wait
            os._exit(128 + number)
        self._received = signal.Signals(number)
        if self._launcher is not None and hasattr(self._launcher, "kill"):
            self._launcher.kill(signal.SIGTERM)
        raise RunInterrupted(number)

    def _take_lock(self) -> None:
        """Refuse to run twice in one folder."""
        try:
            self._lock.acquire(timeout=1)  # whoever looks at it holds it for a moment
        except Timeout:
            raise RuntimeError(
                f"another process is running in {self.folder.path}. Wait for its end or stop it; "
                "then resume=true continues it."
            ) from None

    def _end(self, status: str, error: str | None) -> None:
        if not self.is_first_process:
            return
        sessions = self.contents["sessions"]
        sessions[-1] |= {"ended": now(), "status": status}
        try:
            self.update(status=status, error=error, ended=sessions[-1]["ended"], sessions=sessions)
        except OSError as again:  # a full disk has the room that the record takes already
            with contextlib.suppress(OSError):
                self.folder.save_record(self.contents, in_place=True)
            if status == "finished":
                raise
            print(f"crosswalk: {again.filename}: {again.strerror}", file=sys.stderr)

    def _tell_how_to_continue(self, received: signal.Signals) -> None:
        if not self.is_first_process or STAGE_VARIABLE in os.environ:
            return
        arguments = shlex.split(self.contents["command"])
        arguments = [argument for argument in arguments if argument != "resume=restart"]
        if not any(argument.startswith("resume=") for argument in arguments):
            arguments.append("resume=true")
        print(
            f"\nstopped by {received.name}; to continue:\n  {_as_typed(arguments)}",
            file=sys.stderr,
        )


def _as_typed(words: Sequence[str]) -> str:
    """Return the command of a run in the words of whoever started it: make's, or our own."""
    begin = os.environ.get(MAKE_VARIABLE)
    rest = [word for word in words[2:] if not word.startswith(("method=", "data="))]
    if begin is None or shlex.join(rest) != " ".join(rest):  # quotes within those of ARGS
        return to_type(*words[3 if words[0] == "python" else 1 :])
    return f'{begin} ARGS="{" ".join(rest)}"'


def _has_agent() -> bool:
    """Whether torchrun or SLURM started the processes, and looks at how they end."""
    return "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_PROCID" in os.environ
