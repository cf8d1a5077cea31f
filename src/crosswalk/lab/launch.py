"""Where runs are made: as processes of this machine, or as jobs of Slurm."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crosswalk.config.paths import check_paths, read_annotations
from crosswalk.lab.local import TRAIN, Run, Work, run_locally
from crosswalk.lab.pool import PlannedRun
from crosswalk.lab.slurm import parse_parameters, run_on_slurm
from crosswalk.run.processes import Slot, devices_per_run, make_slots


@dataclass(frozen=True)
class Launcher:
    """Makes runs where the user said.

    Attributes:
        slots: Places of this machine; none where Slurm has them.
        at_a_time: Runs side by side; 0: as many as there are, which only Slurm takes.
        slurm: What Slurm is asked for; None: runs are made here.
    """

    slots: Sequence[Slot]
    at_a_time: int
    slurm: Mapping[str, Any] | None = None

    def look_ahead(self, config: Mapping[str, Any]) -> None:
        """Refuse data that every run would refuse; Slurm's machines may have others.

        Args:
            config: Of any run, plain.

        Raises:
            FileNotFoundError: If a file or folder is not there.
            ValueError: If annotations are damaged.
        """
        if self.slurm is None:
            check_paths(config)
            read_annotations(config.get("data") or {})

    def make(
        self,
        work: Work[Run],
        folder: Path,
        *,
        first: Sequence[PlannedRun],
        train: Sequence[str] = TRAIN,
    ) -> None:
        """Make runs until nothing is left.

        Args:
            work: Says which.
            folder: Where Slurm's files lie.
            first: Runs for which Slurm must be able to give what they need before any starts.
            train: The command in front of the overrides.

        Raises:
            ValueError: If Slurm cannot be asked for what a run needs; nothing was started then.
            KeyboardInterrupt: At Ctrl-C or SIGTERM, after the runs of this machine were ended.
        """
        if self.slurm is None:
            run_locally(work, self.slots, train=train)
        else:
            run_on_slurm(
                work,
                folder,
                first=first,
                parameters=self.slurm,
                at_a_time=self.at_a_time,
                train=train,
            )


@contextmanager
def only_said(dry_run: bool) -> Iterator[None]:
    """Let a dry run say on standard error what would refuse every run, and go on."""
    try:
        yield
    except (FileNotFoundError, ValueError) as error:
        if not dry_run:
            raise
        print(f"note: no run can start as it is: {error}", file=sys.stderr)


def launcher(
    options: Namespace, configs: Sequence[Mapping[str, Any]], *, at_a_time: int
) -> Launcher:
    """Return where runs are made.

    Args:
        options: ``launcher``, ``slurm`` and ``devices`` of the command.
        configs: The configurations of the runs, as far as they are known.
        at_a_time: Runs side by side; 0: as many as there are devices, or all at once by Slurm.

    Raises:
        ValueError: If the options do not fit each other, the runs or the machine.
    """
    devices = options.devices
    if options.launcher == "slurm":
        if devices:
            raise ValueError("--devices is about this machine; Slurm is told with --slurm.")
        return Launcher((), at_a_time, parse_parameters(options.slurm))
    if options.slurm:
        raise ValueError("--slurm says what Slurm is asked for: add --launcher slurm.")
    shapes = [config["trainer"] for config in configs]
    if any(int(trainer.get("num_nodes", 1) or 1) > 1 for trainer in shapes):
        raise ValueError("trainer.num_nodes is more than 1: add --launcher slurm.")
    wanted = [
        devices_per_run(each.get("devices", "auto"), len(devices), at_a_time=at_a_time)
        for each in shapes
    ]
    slots = make_slots(at_a_time, devices, devices_per_job=max(wanted, default=1))
    return Launcher(slots, len(slots))
