"""The command ``crosswalk compare``."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.epilog = (
        "Prints paired differences with bootstrap intervals, groups of queries, and the queries\n"
        "that changed most; writes a page with their ranking lists and a .json file beside it.\n"
        "Several runs of a side, such as seeds, are named with commas between them. Further runs\n"
        "are compared with the first one too, each on a page of its own.\n\n"
        "Examples:\n"
        "  crosswalk compare runs/<name> runs/<other>\n"
        "  crosswalk compare runs/<name> runs/<second> runs/<third>\n"
        "  crosswalk compare runs/a1,runs/a2 runs/b1,runs/b2 --checkpoint last --out ab.html\n"
    )
    add = parser.add_argument
    add("first", metavar="RUN_A", help="a run folder, or several: RUN,RUN,...")
    add("second", metavar="RUN_B", help="likewise; differences are B minus A")
    add(
        "more",
        metavar="RUN",
        nargs="*",
        default=[],  # without one argparse calls it required
        help="further runs, compared with RUN_A as well",
    )
    add(
        "--checkpoint",
        choices=("best", "last", "start"),
        help="default: the first of these that all runs have",
    )
    add("--split", choices=("test", "val"), default="test")
    add("--out", metavar="FILE", type=Path, default=Path("compare.html"), help="the page to write")


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    from crosswalk.files import check_writable
    from crosswalk.run.run_folder import check_different, runs_named

    sides = [runs_named(words) for words in (options.first, options.second, *options.more)]
    for run_folder in (run_folder for side in sides for run_folder in side):
        run_folder.config()  # what is no run is said before the slow imports
    for other in sides[1:]:
        check_different(sides[0], other)
    check_writable(options.out, "--out")
    print("Comparing query by query …", file=sys.stderr, flush=True)
    from crosswalk.lab.compare.command import run_compare

    return run_compare(
        options.first,
        options.second,
        *options.more,
        checkpoint=options.checkpoint,
        split=options.split,
        out=options.out,
    )
