"""The command ``crosswalk import-weights``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.epilog = (
        "Examples:\n"
        "  crosswalk import-weights rde best.pth rde.safetensors\n"
        "  crosswalk train method=rde data=cuhk_pedes checkpoint=rde.safetensors\n"
    )
    add = parser.add_argument
    add("method", metavar="METHOD", help="whose checkpoint it is, a file of configs/method")
    add("source", metavar="FILE", type=Path, help="the official checkpoint")
    add("target", metavar="OUT", type=Path, help="the .safetensors to write")


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    from crosswalk.run.weights import run_import

    return run_import(options.method, options.source, options.target)
