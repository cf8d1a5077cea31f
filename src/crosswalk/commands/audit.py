"""The command ``crosswalk audit``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from crosswalk.commands.at_least import AtLeast


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.epilog = (
        "Writes a table and, beside it, a page to look through. The lowest probability of being\n"
        "right comes first.\n\n"
        "Examples:\n"
        "  crosswalk audit runs/<name>\n"
        "  crosswalk audit runs/<name> --out suspects.csv --threshold 0.1 --limit 500\n"
    )
    add = parser.add_argument
    add("run_folder", metavar="RUN", type=Path, help="a run folder")
    told = "the table to write; default: suspects.csv"
    add("--out", metavar="FILE", type=Path, default=Path("suspects.csv"), help=told)
    add("--threshold", metavar="P", type=float, help="list pairs that are right with at most this")
    add("--limit", metavar="N", type=AtLeast(1), help="list at most so many")
    add("--which", choices=("last", "first"), default="last", help="by which division of the run")


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    from crosswalk.files import check_writable
    from crosswalk.run.run_folder import RunFolder

    RunFolder(options.run_folder).config()  # what is no run is said before the slow imports
    check_writable(options.out, "--out")
    from crosswalk.lab.compare.audit import run_audit

    return run_audit(
        options.run_folder,
        options.out,
        threshold=options.threshold,
        limit=options.limit,
        which=options.which,
    )
