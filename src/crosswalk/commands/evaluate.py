"""The command ``crosswalk evaluate``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.usage = "crosswalk evaluate RUN [key=value ...]"
    parser.epilog = (
        "Examples:\n"
        "  crosswalk evaluate runs/<name>\n"
        "  crosswalk evaluate runs/<name> data=icfg_pedes data.root=/datasets\n"
    )
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="a run folder")


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    if not options.run_folder.exists():
        raise FileNotFoundError(f"{options.run_folder} is no run folder; `ls runs` shows yours.")
    from crosswalk.run.train import evaluate

    return evaluate(options.run_folder, options.overrides)
