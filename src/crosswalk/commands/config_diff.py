"""The command ``crosswalk config diff``."""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.epilog = (
        "Each side is a run folder or overrides in quotes; without RIGHT, LEFT is compared with\n"
        "the default run.\n\n"
        "Examples:\n"
        "  crosswalk config diff runs/<name> runs/<other>\n"
        "  crosswalk config diff 'data=cuhk_pedes' 'data=cuhk_pedes data.noise_rate=0.5'\n"
    )
    parser.add_argument("left", metavar="LEFT")
    parser.add_argument("right", metavar="RIGHT", nargs="?", default="")


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    from crosswalk.config.plain import differences

    left, right = _side(options.left), _side(options.right)
    if not options.right:
        left, right = right, left
    rows = differences(left, right)
    for key, before, after in rows:
        print(f"{key}: {before} -> {after}")
    if not rows:
        print("note: no key differs.", file=sys.stderr)
    return 0


def _side(words: str) -> dict[str, Any]:
    from crosswalk.config.check import check_early, compose_training
    from crosswalk.config.plain import to_plain

    folder = Path(words)
    if words and folder.is_dir():
        from crosswalk.run.run_folder import RunFolder

        return RunFolder(folder).config()
    if words and "=" not in words and not words.startswith(("+", "~", "-")):
        from crosswalk.run.run_folder import no_run

        raise ValueError(f"{no_run(folder)} Overrides are key=value, several of them in quotes.")
    config = compose_training(shlex.split(words))
    check_early(config)
    return to_plain(config)
