"""A local sweep: where it lies, and the command of each of its trials."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crosswalk.lab.sweeps.parameters import Value
from crosswalk.lab.sweeps.sweep_file import SweepFile
from crosswalk.run.run_folder import RunFolder

PROGRAM = (sys.executable, "-m", "crosswalk", "train")


@dataclass(frozen=True)
class LocalSweep:
    """A sweep on this machine, or on several that share its folder.

    Attributes:
        file: What is searched.
        folder: Where everything of it lies.
        overrides: Further overrides of all trials.
        seed: Of the search.
        num_trials: Trials at most, those of earlier sessions and other workers included.
        uses_wandb: Whether the runs log to W&B.
        program: What a trial starts.
    """

    file: SweepFile
    folder: Path
    overrides: tuple[str, ...]
    seed: int
    num_trials: int
    uses_wandb: bool = True
    program: tuple[str, ...] = PROGRAM

    @property
    def name(self) -> str:
        """The name of the sweep, which is W&B's group."""
        return self.folder.name

    def trial_overrides(self, values: Mapping[str, Value]) -> list[str]:
        """Return what repeats a trial anywhere."""
        return [*self.file.command.overrides(values), *self.overrides]

    def command(self, number: int, values: Mapping[str, Value], *, resume: bool) -> list[str]:
        """Return the command of a trial."""
        ours = [f"output_dir={self.folder}", f"name={trial_name(number)}"]
        if self.uses_wandb:
            ours += [f"logger.wandb.group={self.name}", "logger.wandb.job_type=trial"]
        ours += ["resume=true"] if resume else []
        return [*self.program, *self.trial_overrides(values), *ours]

    def run_folder(self, number: int) -> RunFolder | None:
        """Return the folder of a trial's run; None before it was started."""
        found = [path for path in self.folder.glob(f"*-{trial_name(number)}") if path.is_dir()]
        return RunFolder(found[0]) if found else None


def trial_name(number: int) -> str:
    """Return the name of a trial's run.

    Example:
        >>> trial_name(7)
        'trial-007'
    """
    return f"trial-{number:03}"
