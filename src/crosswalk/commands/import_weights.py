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
        "  crosswalk evaluate rde.safetensors data=cuhk_pedes data.root=/datasets\n"
    )
    add = parser.add_argument
    add("method", metavar="METHOD", help="whose checkpoint it is, a file of configs/method")
    add("source", metavar="FILE", type=Path, help="the official checkpoint")
    add("target", metavar="OUT", type=Path, help="the .safetensors to write")
    add(
        "--vocabulary",
        metavar="FILE",
        type=Path,
        help="the words of its token ids, where it learned words",
    )
    add(
        "--word-table",
        metavar="FILE.npy",
        type=Path,
        help="their vectors, where the file lacks them",
    )


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    from crosswalk.run.weights import run_import

    return run_import(
        options.method,
        options.source,
        options.target,
        vocabulary=options.vocabulary,
        word_table=options.word_table,
    )
