"""What every task of a cluster's job does for one run of a table."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from crosswalk.lab.claims import reason_of
from crosswalk.lab.pool import is_whole, remove_half_made
from crosswalk.run.code_digest import code_digest
from crosswalk.run.processes import PARENT_VARIABLE
from crosswalk.run.run_folder import RunFolder

GRACE = 60.0
"""Seconds that a run waits for its own end after Slurm has stopped it: ours is no result then."""


@dataclass(frozen=True)
class TrainingJob:
    """Starts ``crosswalk train``, or goes on with it in a job that was requeued.

    srun starts one such task for each process of a run, and Lightning finds the others in Slurm's
    environment.

    Attributes:
        overrides: Of the run, without ``resume=``.
        folder: Where it lies, or will lie.
        config: Its configuration.
        code: Digest of the code that it was submitted with.
        command: What starts a run.
    """

    overrides: tuple[str, ...]
    folder: RunFolder
    config: dict[str, Any]
    code: str
    command: tuple[str, ...]

    def __call__(self) -> None:
        """Train.

        Raises:
            RuntimeError: If the run failed, or the code was changed since the job was submitted.
        """
        if is_whole(self.folder):
            return
        if code_digest(self.config) != self.code:
            raise RuntimeError(
                f"the code is not that any more ({self.code}) with which this run was submitted. "
                "Start the table again."
            )
        if os.environ.get("SLURM_PROCID", "0") == "0":
            remove_half_made(self.folder)
        words = [*self.command, *self.overrides]
        if self.folder.config_file.exists():
            words.append("resume=true")
        environment = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
        status = subprocess.run(words, env=environment).returncode
        if status in (-signal.SIGTERM, 128 + signal.SIGTERM):
            time.sleep(GRACE)
        if status:
            raise RuntimeError(f"{reason_of(status)}; its messages are above")

    def checkpoint(self) -> Any:  # noqa: ANN401
        """Return what submitit runs in the next job after a time limit: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
