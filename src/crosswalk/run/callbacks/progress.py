"""Progress with the time that is left: bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Any, TextIO, TypeVar

import lightning.pytorch as L
import rich.progress
from rich.console import Console

from crosswalk.run.callbacks.process_state import running_mean

T = TypeVar("T")
BARS_PER_SECOND = 5

NOISE = (
    "Tip: For seamless",  # advertisements of other products
    "GPU available:",
    "TPU available:",
    "`Trainer.fit` stopped: `max_",
    "Restoring states from the checkpoint path",
    "Restored all states from the checkpoint",
    "Loaded model weights from the checkpoint",
    "LOCAL_RANK:",
)
NOISY_WARNINGS = (
    r"The '.*' does not have many workers",  # data.num_workers is the user's choice
    r"This DataLoader will create \d+ worker processes",  # likewise
    r".*smaller than the logging interval",
    r"Found \d+ module\(s\) in eval mode at the start of training",  # RDE is published so
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"Experiment logs directory .* exists and is not empty",
    r"It is recommended to use `self.log\(.*sync_dist=True",  # ours are equal on all processes
    r"Total length of `list` across ranks is zero",  # protocol=last has no val loaders
    r"Be aware that when using `ckpt_path`, callbacks",  # an evaluation observes less
    r"`broadcast_buffers` is deprecated",  # its successor still sends buffers at the start
)


class _NoNoise(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not any(noise in message for noise in NOISE)


def quiet_lightning() -> None:
    """Silence the remarks of Lightning that tell a user nothing, and only those.

    Example:
        >>> quiet_lightning()
        >>> logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
        >>> record = logger.makeRecord("", 20, "", 0, "Tip: For seamless uploads", (), None)
        >>> bool(logger.filter(record))
        False
    """
    for package in ("lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(f"{package}.utilities.rank_zero")
        if not any(isinstance(each, _NoNoise) for each in logger.filters):
            logger.addFilter(_NoNoise())
        # a signal is said by who ends the command
        logging.getLogger(f"{package}.trainer.connectors.signal_connector").setLevel("WARNING")
    for message in NOISY_WARNINGS:
        warnings.filterwarnings("ignore", message=message)


def clock(seconds: float) -> str:
    """Return a duration as ``mm:ss`` or ``h:mm:ss``.

    Example:
        >>> clock(151), clock(3661)
        ('02:31', '1:01:01')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


class _Stage:
    """One thing that is counted: an epoch, a sweep, an evaluation."""

    def __init__(self, what: str, total: int | None, now: float) -> None:
        self.what, self.total, self.done = what, total, 0
        self.started = self.last = now

    def advance(self, parts: int, now: float) -> None:
        self.done += parts
        self.last = now

    def left(self, now: float) -> float:
        """Return the seconds left if all goes on as since the start; 0 where that is not known."""
        if self.total is None or self.done == 0:
            return 0.0
        return (now - self.started) / self.done * (self.total - self.done)

    @property
    def rate(self) -> float:
        return self.done / max(self.last - self.started, 1e-9)


class Progress(L.Callback):
    """Shows the step, the mean loss of the epoch so far, the speed and the time left of the run.

    On a terminal two bars: the run, and what it is doing. Elsewhere a plain line every
    ``interval`` seconds and at the end of every epoch. Only the first process shows anything.

    Sweeps and whatever else takes long show theirs with `start`, `advance` and `stop`, or with
    `track`, before, during or without a training.

    Args:
        interval: Seconds between two plain lines.
        metrics: Names of metrics, in [0, 1], shown at the end of an epoch that has them.
        stream: Where lines go; standard error by default.
        terminal: Whether bars are drawn; by default, whether ``stream`` is a terminal.
        now: Clock in seconds.

    Example:
        >>> progress = Progress(stream=sys.stdout, terminal=False, interval=0, now=lambda: 0.0)
        >>> for _ in progress.track(range(2), what="sweep"):
        ...     pass
        sweep 1/2
        sweep 2/2
    """

    def __init__(
        self,
        *,
        interval: float = 10.0,
        metrics: Sequence[str] = ("val/rank1",),
        stream: TextIO | None = None,
        terminal: bool | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.interval = interval
        self.metrics = tuple(metrics)
        self.stream = sys.stderr if stream is None else stream
        self.terminal = self.stream.isatty() if terminal is None else terminal
        self.now = now
        self.shown = True
        self._stages: list[_Stage] = []
        self._last_line = -float("inf")
        self._loss: float | None = None
        self._run_started = now()
        self._steps_at_start = 0
        self._bars: rich.progress.Progress | None = None
        self._tasks: list[rich.progress.TaskID] = []

    # For anyone

    def start(self, total: int | None, what: str) -> None:
        """Begin to count ``total`` parts of ``what``; stages may lie within each other."""
        self._stages.append(_Stage(what, total, self.now()))
        if self.terminal and self.shown:
            self._tasks.append(self._open_bars().add_task(what, total=total, note=""))

    def advance(self, parts: int = 1) -> None:
        """Count ``parts`` as done."""
        stage = self._stages[-1]
        stage.advance(parts, self.now())
        if self._tasks and self._bars is not None:
            left = f"left {clock(stage.left(self.now()))}" if len(self._tasks) == 1 else ""
            self._bars.update(self._tasks[-1], completed=stage.done, note=left)
        elif stage.done != stage.total and self.now() - self._last_line >= self.interval:
            self._line(self._describe(stage))

    def stop(self) -> None:
        """End the stage that was started last."""
        stage = self._stages.pop()
        if self._tasks and self._bars is not None:
            self._bars.remove_task(self._tasks.pop())
            if not self._tasks:
                self._close_bars()
        elif stage.done and self.now() - stage.started >= self.interval:
            self._line(self._describe(stage))

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        """Yield ``items`` and count them."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        self.start(total, what)
        try:
            for item in items:
                yield item
                self.advance()
        finally:
            self.stop()

    def say(self, text: str) -> None:
        """Print a line without disturbing the bars."""
        if not self.shown:
            return
        if self._bars is not None:
            self._bars.console.print(text, highlight=False)
        else:
            self._line(text)

    # For Lightning

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Show nothing on other processes than the first."""
        self.shown = trainer.is_global_zero

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the run."""
        self._run_started = self.now()
        self._steps_at_start = self._steps_done(trainer)
        self.start(self._steps_in_all(trainer), "training")

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin an epoch. Place the callback before `EpochSweep`, whose sweep lies within it."""
        self._begin_epoch(trainer)

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Begin to measure the speed: a sweep before the first step does not count."""
        if len(self._stages) == 1:  # resumed in mid-epoch, where no epoch starts
            self._begin_epoch(trainer)
        if self._stages and self._stages[-1].done == 0:
            self._stages[-1].started = self.now()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Count a step."""
        if not self.shown or not self._stages:
            return
        run, epoch = self._stages[0], self._stages[-1]
        epoch.advance(1, self.now())
        run.done = self._steps_done(trainer)
        if self._tasks and self._bars is not None:
            if self.now() - self._last_line < 1 / BARS_PER_SECOND and epoch.done != epoch.total:
                return
            self._last_line = self.now()
            self._note_loss(trainer)
            loss = "" if self._loss is None else f"loss {self._loss:.3f}"
            self._bars.update(self._tasks[-1], completed=batch_idx + 1, note=loss)
            note = f"left {clock(self._time_left())}"
            self._bars.update(self._tasks[0], completed=run.done, note=note)
        elif batch_idx + 1 != epoch.total and self.now() - self._last_line >= self.interval:
            self._note_loss(trainer)  # the last step's line is that of the epoch
            self._line(self._describe_step(epoch, batch_idx))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a validation."""
        if not trainer.sanity_checking:
            self.start(_total(trainer.num_val_batches), "validation")

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Count a batch."""
        if not trainer.sanity_checking:
            self.advance()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End a validation."""
        if not trainer.sanity_checking:
            self.stop()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a test."""
        self.start(_total(trainer.num_test_batches), "test")

    on_test_batch_end = on_validation_batch_end
    on_test_end = on_validation_end

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End an epoch."""
        if len(self._stages) < 2:
            return
        stage = self._stages.pop()
        if self._tasks and self._bars is not None:
            self._bars.remove_task(self._tasks.pop())
        self._note_loss(trainer)
        known = trainer.callback_metrics
        values = [
            f"{name} {100 * float(known[name]):.2f} %" for name in self.metrics if name in known
        ]
        last = trainer.fit_loop.epoch_loop.batch_progress.current.ready - 1
        self.say("  ".join([self._describe_step(stage, last), *values]))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End the training."""
        self._stages.clear()
        self._close_bars()
        self.say(f"training took {clock(self.now() - self._run_started)}")

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Leave the terminal as it was."""
        self._stages.clear()
        self._close_bars()

    # Parts

    def _begin_epoch(self, trainer: L.Trainer) -> None:
        steps, whole = trainer.num_training_batches, self._steps_in_all(trainer)
        total = int(steps) if steps != float("inf") else None
        last = f"/{math.ceil(whole / total)}" if whole and total else ""
        self.start(total, f"epoch {trainer.current_epoch + 1}{last}")

    def _note_loss(self, trainer: L.Trainer) -> None:
        """Read the mean loss of this epoch, which waits for the device: only when it is shown."""
        self._loss = running_mean(trainer, "train/loss")

    @staticmethod
    def _steps_done(trainer: L.Trainer) -> int:
        return int(trainer.fit_loop.epoch_loop.batch_progress.total.ready)

    @staticmethod
    def _steps_in_all(trainer: L.Trainer) -> int | None:
        limits = []
        if trainer.max_steps != -1:
            limits.append(trainer.max_steps * trainer.accumulate_grad_batches)
        steps, epochs = trainer.num_training_batches, trainer.max_epochs
        if steps != float("inf") and epochs not in (None, -1):
            limits.append(int(steps) * epochs)
        return min(limits, default=None)

    def _time_left(self) -> float:
        """Return the seconds left if all goes on as since the start, sweeps and tests included."""
        run = self._stages[0]
        done = run.done - self._steps_at_start
        if run.total is None or done == 0:
            return 0.0
        return (self.now() - self._run_started) / done * max(run.total - run.done, 0)

    def _describe_step(self, epoch: _Stage, batch_idx: int) -> str:
        """Return the words of a plain line."""
        parts = [f"{epoch.what} step {batch_idx + 1}/{epoch.total if epoch.total else '?'}"]
        if self._loss is not None:
            parts.append(f"loss {self._loss:.3f}")
        parts.append(f"{epoch.rate:.1f} it/s")
        if self._stages and self._stages[0].total is not None:
            parts.append(f"eta {clock(self._time_left())}")
        return "  ".join(parts)

    def _describe(self, stage: _Stage) -> str:
        text = f"{stage.what} {stage.done}/{stage.total if stage.total is not None else '?'}"
        if left := stage.left(self.now()):
            text += f"  eta {clock(left)}"
        return text

    def _line(self, text: str) -> None:
        if self.shown:
            self._last_line = self.now()
            print(text, file=self.stream, flush=True)

    def _open_bars(self) -> rich.progress.Progress:
        if self._bars is None:
            self._bars = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[note]}"),
                console=Console(file=self.stream, force_terminal=True),
                transient=True,
                refresh_per_second=BARS_PER_SECOND,
            )
            self._bars.start()
        return self._bars

    def _close_bars(self) -> None:
        self._tasks.clear()
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def _total(num_batches: list[int | float]) -> int | None:
    total = sum(num_batches)
    return None if total == float("inf") else int(total)
