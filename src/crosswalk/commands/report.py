"""The command ``crosswalk report``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.epilog = (
        "A page of results, curves, ranking lists and configuration, one file that needs no\n"
        "other. Training writes it too.\n\n"
        "Examples:\n"
        "  crosswalk report runs/<name>\n"
        "  crosswalk report runs/<name> --out page.html\n"
    )
    add = parser.add_argument
    add("run_folder", metavar="RUN", type=Path, help="a run folder")
    add("--out", metavar="FILE", type=Path, help="where to (default: report.html in RUN)")


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    from crosswalk.files import check_writable
    from crosswalk.run.run_folder import RunFolder

    RunFolder(options.run_folder).config()  # what is no run is said before the slow imports
    if options.out is not None:
        check_writable(options.out, "--out")
    from crosswalk.lab.report.report import run_report

    return run_report(options.run_folder, options.out)
