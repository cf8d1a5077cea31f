"""The command ``crosswalk export``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from crosswalk.use.source import MODELS, WHICH, source_of


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.epilog = (
        "The folder holds model.safetensors, config.json and README.md, a model card.\n"
        '`crosswalk.load("model/")` reads it.\n\n'
        "Example:\n  crosswalk export runs/<name> --out model/\n"
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help=MODELS)
    add("--out", required=True, type=Path, metavar="FOLDER", help="the folder to write")
    add("--which", choices=WHICH, help="of the run; default: the best there is")
    add("--half", action="store_true", help="round the weights to float16")


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    source = source_of(options.model, options.which)
    from crosswalk.use.export import check_target, export

    check_target(options.out)
    return export(source, options.out, half=options.half)
