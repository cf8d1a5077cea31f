"""The command ``crosswalk export-weights``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.epilog = "Example:\n  crosswalk export-weights runs/<name> encoder.safetensors\n"
    add = parser.add_argument
    add("run_folder", metavar="RUN", type=Path, help="run folder or checkpoint")
    add("target", metavar="OUT", type=Path, help="the .safetensors to write")
    add("--which", choices=("best", "last"), default="best")
    add("--part", default="", help="only this part of the encoder, e.g. clip")
    add("--half", action="store_true", help="round to float16")


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    from crosswalk.files import check_safetensors, check_writable
    from crosswalk.run.run_folder import RunFolder
    from crosswalk.use.source import check_out

    check_safetensors(options.target)
    check_writable(options.target, "OUT")
    if not options.run_folder.is_file():  # what is no run is said before the slow imports
        RunFolder(options.run_folder).config()
        check_out(RunFolder(options.run_folder), options.target, "OUT")
    from crosswalk.run.weights import run_export

    return run_export(
        options.run_folder, options.target, options.which, part=options.part, half=options.half
    )
