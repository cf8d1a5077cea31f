"""The command ``crosswalk ablate``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from crosswalk.commands.at_least import AtLeast
from crosswalk.run.processes import device_names


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.usage = "crosswalk ablate TABLE [options] [key=value ...]"
    parser.epilog = (
        "Every row and seed is a run of its own. What is finished with the same configuration and\n"
        "code is not run again, and a command that was stopped goes on where it was. key=value\n"
        "changes all rows.\n\n"
        "Examples:\n"
        "  crosswalk ablate rde/table2 --data synthetic_pairs --dry-run\n"
        "  crosswalk ablate experiments/rde/table2.yaml --data synthetic_pairs --jobs 2\n"
        "  crosswalk ablate experiments/rde/table2.yaml --row 'without CCD' --seeds 1,2,3 \\\n"
        "    --devices 0,1 data.root=/datasets trainer=one_gpu\n"
        "  crosswalk ablate experiments/rde/table2.yaml --launcher slurm \\\n"
        "    --slurm partition=gpu --slurm timeout_min=600 data.root=/datasets trainer=one_gpu\n"
    )
    add = parser.add_argument
    add("table", metavar="TABLE", type=Path, help="a file, or <method>/<table> of experiments")
    add("--row", metavar="NAME", action="append", default=[], help="only this row; repeatable")
    add("--seeds", default="", metavar="1,2,3", help="default: the table's")
    add("--data", default="", metavar="NAME", help="other data than the table's: synthetic_pairs")
    add(
        "--jobs",
        type=AtLeast(1),
        default=0,
        metavar="N",
        help="runs side by side (1, or one a device)",
    )
    add_launcher(parser)
    only = parser.add_mutually_exclusive_group().add_argument
    only("--dry-run", action="store_true", help="say what would be run and how long, run nothing")
    only("--show", action="store_true", help="print the table as it stands, run nothing")
    only("--save", action="store_true", help="also keep the results beside the table's file")
    add("--any-code", action="store_true", help="take runs of other code as finished, too")
    add("--output-dir", type=Path, default=Path("runs"), help="folder of runs (default: runs)")


def add_launcher(parser: ArgumentParser) -> None:
    """Add the words that say where many runs are made."""
    add = parser.add_argument
    add(
        "--devices",
        type=device_names,
        default=[],
        metavar="0,1,2",
        help="GPUs to divide among the runs",
    )
    add("--launcher", choices=("local", "slurm"), default="local", help="where runs are started")
    add(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what Slurm is asked for, in submitit's names: partition, timeout_min; repeatable",
    )


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    from crosswalk.lab.tables.manifest import find_table, read_manifest

    read_manifest(find_table(options.table))  # says what is wrong, with slow imports to come
    from crosswalk.lab.tables.command import run_ablation

    return run_ablation(options)
