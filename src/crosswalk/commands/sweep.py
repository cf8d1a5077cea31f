"""The command ``crosswalk sweep``."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from crosswalk.commands.ablate import add_launcher
from crosswalk.commands.at_least import AtLeast


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.usage = "crosswalk sweep SWEEP [options] [key=value ...]"
    parser.epilog = (
        "With a W&B login the file is registered on its server and agents here run its trials.\n"
        "--local runs the same file without a server: each trial is a run of its own below\n"
        "<output dir>/sweeps/<name>; the same command goes on after a kill, and several at once,\n"
        "also on several machines that share the folder, work on one sweep.\n\n"
        "Examples:\n"
        "  crosswalk sweep rde --local --dry-run\n"
        "  crosswalk sweep rde --local --trials 20 --agents 2 --devices 0,1\n"
        "  crosswalk sweep rde --local --launcher slurm --slurm timeout_min=600 --agents 4\n"
        "  crosswalk sweep rde data=cuhk_pedes data.root=/datasets data.noise_rate=0.5\n"
        "  crosswalk sweep mine.yaml --local --name second trainer.max_epochs=20\n"
    )
    add = parser.add_argument
    add("sweep", metavar="SWEEP", help="a file, or its name in configs/sweep")
    add("--local", action="store_true", help="search here, not on W&B's server")
    add(
        "--agents",
        type=AtLeast(1),
        default=0,
        help="trials at a time (default: one for each device, 1 by Slurm)",
    )
    add_launcher(parser)
    add(
        "--trials",
        type=AtLeast(1),
        help="at most so many (default: the file's run_cap, the grid, or 20)",
    )
    add(
        "--seed",
        type=AtLeast(0),
        help="of the search (default: 1, or that of the sweep that goes on)",
    )
    add("--name", help="of the sweep (default: that of the file)")
    add("--output-dir", metavar="DIR", type=Path, default=Path("runs"), help="default: runs")
    only = parser.add_mutually_exclusive_group().add_argument
    only("--show", action="store_true", help="print what there is, run nothing")
    only("--dry-run", action="store_true", help="check the file, print the first trials")


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    from crosswalk.lab.sweeps.check import check_sweep
    from crosswalk.lab.sweeps.server import check_online
    from crosswalk.lab.sweeps.sweep_file import find_sweep_file, read_sweep_file

    # what is wrong is said before the slow imports
    file = read_sweep_file(find_sweep_file(options.sweep))
    if not options.show:
        check_sweep(file, options.overrides, early=True)
    if not (options.local or options.show or options.dry_run):
        check_online()
    if options.dry_run:
        print(f"Checking the trials of {file.path} …", file=sys.stderr, flush=True)
    from crosswalk.lab.sweeps.command import run_sweep

    return run_sweep(options)
