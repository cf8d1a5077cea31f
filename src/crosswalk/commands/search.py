"""The command ``crosswalk search``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from crosswalk.commands.at_least import AtLeast


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.epilog = (
        "A filter joins comparisons by `and`: ==, in, and of numbers and times <, <=, >, >=.\n\n"
        "Examples:\n"
        '  crosswalk search photos.gallery "a woman in a red coat" -k 20\n'
        "  crosswalk search photos.gallery --image query.jpg --html found.html\n"
        '  crosswalk search photos.gallery "a man with a bag" \\\n'
        "    --where \"camera in (2, 5) and time >= '2026-11-01'\""
    )
    parser.add_argument("gallery", metavar="GALLERY", type=Path, help="of `crosswalk index`")
    parser.add_argument("sentence", metavar="SENTENCE", nargs="?", help="what is to be seen")
    parser.add_argument("--image", type=Path, metavar="FILE", help="search by a picture instead")
    parser.add_argument(
        "-k", type=AtLeast(1), default=10, metavar="N", help="pictures to show; default: 10"
    )
    parser.add_argument("--where", default="", metavar="FILTER", help="what they have to be of")
    parser.add_argument(
        "--group",
        nargs="?",
        const=True,
        default=False,
        type=float,
        metavar="COSINE",
        help="show near-duplicates as one, with their number; default of COSINE: 0.97",
    )
    parser.add_argument(
        "--rerank", action="store_true", help="order the first 200 by the neighbours they share"
    )
    parser.add_argument(
        "--exact", action="store_true", help="look at every picture, also in a large gallery"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with the pictures")
    parser.add_argument(
        "--json", action="store_true", help="print a line of JSON per picture, for programs"
    )
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="where the model of the gallery is now; default: where it was",
    )
    parser.add_argument("--device", default="cpu", help="such as cuda; default: cpu")


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    from crosswalk.gallery.find import check, find

    check(options)  # before torch is imported
    return find(options)
