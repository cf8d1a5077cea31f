"""Where metrics go: files of the run folder always, Weights & Biases where it is wanted."""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from crosswalk.files import csv_text, write_text
from crosswalk.ranges import Label, Project
from crosswalk.run.run_folder import PLACE, RunFolder, rank_and_launch
from crosswalk.run.wandb_server import is_reachable, wandb_mode


def counted(metrics: Mapping[str, float], step: int | None) -> dict[str, Any]:
    """Return what to log with the place where it belongs, as every logger and reader counts it.

    Steps count from 0. Epochs count from 1, as on the terminal and in results; Lightning hands
    them over counted from 0.

    Example:
        >>> counted({"train/loss": 0.5, "epoch": 0}, step=9)
        {'train/loss': 0.5, 'epoch': 1, 'global_step': 9}
    """
    place = {} if step is None else {"global_step": step}
    if metrics.get("epoch") is not None:
        place = {"epoch": 1 + int(metrics["epoch"]), **place}
    return {**metrics, **place}


class RunLogger(Logger):
    """Writes ``metrics.jsonl``, one line per logging event, and ``metrics.csv``, one row per step.

    Each line is on the disk before the next step starts. When a run continues from a checkpoint,
    `cut` drops what was logged after it, so the lines are those of a run that never stopped. NaN
    and infinity are written as JSON strings.

    Args:
        folder: The run folder.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> logger = RunLogger(folder)
        >>> logger.log_metrics({"train/loss": 0.5, "epoch": 0}, step=3)
        >>> logger.log_metrics({"train/loss": 0.25, "epoch": 0}, step=4)
        >>> logger.cut(4)
        >>> [line["train/loss"] for line in RunFolder(folder).metrics()]
        [0.5]
        >>> logger.finalize("success")
        >>> print((folder / "metrics.csv").read_text().strip())
        global_step,epoch,train/loss
        3,1,0.5
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = RunFolder(Path(folder))

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def version(self) -> str:
        """Nothing: a run folder holds one run."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.folder.path)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Do nothing: the run folder holds the whole config already."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one line."""
        values = {
            name: value if math.isfinite(value) else str(value)
            for name, value in sorted(metrics.items())  # a resumed run meets them in another order
            if name not in PLACE
        }
        place = counted(metrics, step)
        line = {
            "global_step": step,
            "epoch": place.get("epoch"),
            "time": round(time.time(), 3),
        }
        self.folder.append_metrics(line | values)
        if any(name.startswith("val/") for name in values):
            self.write_csv()

    @rank_zero_only
    def cut(self, step: int) -> None:
        """Drop the lines of ``step`` and later; a run that continues writes them again."""
        lines = self.folder.metrics()
        if lines:
            self.folder.save_metrics(
                line for line in lines if (line.get("global_step") or 0) < step
            )

    @rank_zero_only
    def write_csv(self) -> None:
        """Write ``metrics.csv`` from the lines so far."""
        rows: dict[int, dict[str, Any]] = {}
        for line in self.folder.metrics():
            line.pop("time", None)
            rows.setdefault(line.get("global_step") or 0, {}).update(line)
        names = sorted({name for row in rows.values() for name in row} - set(PLACE))
        header = ["global_step", "epoch", *names]
        table = [[row.get(name) for name in header] for _, row in sorted(rows.items())]
        write_text(self.folder.metrics_file.with_suffix(".csv"), csv_text(header, table))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write ``metrics.csv``."""
        if self.folder.metrics_file.exists():
            self.write_csv()


def wandb_run_id(folder: Path) -> str:
    """Return the W&B id of a run, made up once and kept in the run folder.

    A run that W&B's agent has started for a sweep has its id from there.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> wandb_run_id(folder) == wandb_run_id(folder)
        True
    """
    run = RunFolder(Path(folder))
    known = run.wandb_id()
    if known is None:
        given = os.environ.get("WANDB_RUN_ID") if "WANDB_SWEEP_ID" in os.environ else None
        if given is not None and re.search(r"[/\\#?%:]", given):
            raise ValueError(
                f"WANDB_RUN_ID={given} holds one of /\\#?%:, which W&B's ids do not. Unset it."
            )
        known = given or secrets.token_hex(4)
        write_text(run.wandb_id_file, known)
    return known


class _RunWandbLogger(WandbLogger):
    """Counts steps itself: W&B's own counter starts at 0 again when an offline run continues."""

    _counters_defined = False
    _is_lost = False

    def __init__(self, **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)
        self._wandb_init.pop("anonymous", None)  # W&B warns of any value of it, None too

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log with ``global_step`` as a value of its own."""
        with self.kept_from_the_run():
            if not self._counters_defined:
                self._counters_defined = True
                self.experiment.define_metric("global_step")
                self.experiment.define_metric("epoch")
                self.experiment.define_metric("*", step_metric="global_step")
            if not self._is_lost:
                self.experiment.log(counted(metrics, step))

    @contextlib.contextmanager
    def kept_from_the_run(self) -> Iterator[None]:
        """Let a run go on without W&B where that fails, and say so once.

        Such as when its folder is gone or its disk is full: no number depends on it.
        """
        try:
            yield
        except Exception as error:  # whatever it is, the run does not end by it
            if not self._is_lost:
                print(
                    f"note: W&B has failed ({type(error).__name__}: {error}). The run goes on "
                    "without it; metrics.jsonl and metrics.csv hold everything.",
                    file=sys.stderr,
                )
            self._is_lost = True

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:  # noqa: ANN401
        """Log parameters, unless W&B has failed."""
        with self.kept_from_the_run():
            super().log_hyperparams(params)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End, unless W&B has failed."""
        with self.kept_from_the_run():
            super().finalize(status)


def wandb_logger(
    folder: Path,
    *,
    config: Mapping[str, Any],
    project: Project = "crosswalk",
    name: Label | None = None,
    group: Label | None = None,
    job_type: Label | None = None,
    tags: tuple[str, ...] = (),
) -> WandbLogger:
    """Return a W&B logger that never asks, never waits and needs no network unless logged in.

    Offline runs lie in ``<folder>/wandb``; ``wandb sync <folder>/wandb/offline-run-*`` uploads
    them. A continued run writes a second offline folder under the same id, and ``wandb sync``
    joins them. Checkpoints are never copied. wandb is imported when the run starts, not before.

    Args:
        folder: The run folder.
        config: The resolved config, plain containers.
        project: W&B project.
        name: Name of the run; the folder's by default.
        group: Runs of one sweep or table share it.
        job_type: What the run is in its group, such as "trial".
        tags: Words to find the run by.
    """
    import wandb

    mode = wandb_mode(os.environ)
    if mode == "online" and not is_reachable(os.environ):
        if rank_and_launch(os.environ)[0] == 0:
            print(
                "note: W&B's server does not answer, so the run is logged offline; "
                f"`wandb sync {folder}/wandb/offline-run-*` uploads it later.",
                file=sys.stderr,
            )
        mode = "offline"
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Pictures of tables wait there for the upload; by default that is the home folder.
    os.environ.setdefault("WANDB_DATA_DIR", str((folder / "wandb").resolve()))
    return _RunWandbLogger(
        name=name or folder.name,
        save_dir=folder,
        id=wandb_run_id(folder),
        project=os.environ.get("WANDB_PROJECT") or project,
        log_model=False,
        mode=mode,
        config=dict(config),
        group=group,
        job_type=job_type,
        tags=list(tags),
        resume="allow",
        settings=wandb.Settings(console="off", silent=True, save_code=False, init_timeout=60),
    )
