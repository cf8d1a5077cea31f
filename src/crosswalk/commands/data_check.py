"""The command ``crosswalk data check``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.epilog = (
        "Layout, counts against the published ones, missing and damaged images, suspicious\n"
        "captions, identities in two splits, cameras, queries without a match. Status 1 if\n"
        "something is broken, 0 for warnings, 2 if there is nothing to examine.\n\n"
        "Examples:\n"
        "  crosswalk data check /datasets\n"
        "  crosswalk data check /datasets --dataset market1501 --json report.json\n"
    )
    add = parser.add_argument
    add("root", metavar="ROOT", help="folder of one or several data sets, or a file")
    add("--dataset", help="which one, e.g. cuhk_pedes (default: all that are found)")
    add("--json", metavar="FILE", help="also write the report to FILE")


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    from crosswalk.doctor.pairs import run_check

    return run_check(options.root, options.dataset, options.json)
