"""The command ``crosswalk card``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from crosswalk.use.source import MODELS, WHICH, check_out, source_of


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.epilog = "Example:\n  crosswalk card runs/<name> --out README.md\n"
    add = parser.add_argument
    add("model", metavar="MODEL", help=MODELS)
    add("--out", type=Path, metavar="FILE.md", help="default: the card is printed")
    add("--which", choices=WHICH, help="of the run; default: the best there is")


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    source = source_of(options.model, options.which)
    from crosswalk.files import check_writable, write_text
    from crosswalk.use.card import card_of
    from crosswalk.use.described import described_by

    if options.out is not None:
        check_writable(options.out, "--out")
        check_out(source.folder, options.out)
    card = card_of(source, described_by(source))
    if options.out is None:
        print(card, end="")
    else:
        write_text(options.out, card)
        print(f"Model card: {options.out}")
    return 0
