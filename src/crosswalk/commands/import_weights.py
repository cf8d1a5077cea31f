"""The command ``crosswalk import-weights``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from crosswalk.commands.at_least import AtLeast


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
    add(
        "--image-size",
        metavar="HEIGHTxWIDTH",
        type=image_size,
        help="of its images, in pixels, where weights do not tell; default: as published",
    )
    add("--stride", metavar="PIXELS", type=AtLeast(1), help="of its patches; default: their size")


def image_size(text: str) -> tuple[int, int]:
    """Return height and width of ``384x128``.

    Example:
        >>> image_size("384x128")
        (384, 128)
    """
    height, width = map(AtLeast(1), text.split("x"))
    return height, width


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    from crosswalk.files import check_safetensors, check_writable
    from crosswalk.importers._methods import check_importable

    check_importable(options.method)  # all of this before the slow imports
    for name in ("source", "vocabulary", "word_table"):
        path = getattr(options, name)
        if path is not None and not path.is_file():
            what = "the official checkpoint" if name == "source" else f"--{name.replace('_', '-')}"
            raise FileNotFoundError(f"{path} is no file: name {what}.")
    check_safetensors(options.target)
    check_writable(options.target, "OUT")
    from crosswalk.run.weights import run_import

    return run_import(
        options.method,
        options.source,
        options.target,
        vocabulary=options.vocabulary,
        word_table=options.word_table,
        image_size=options.image_size,
        stride=options.stride,
    )
