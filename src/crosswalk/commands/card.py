"""The command ``crosswalk card``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from crosswalk.use.source import WHICH, source_of


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.epilog = "Example:\n  crosswalk card runs/<name> --out README.md\n"
    add = parser.add_argument
    add("model", metavar="RUN", type=Path, help="a run folder")
    add("--out", type=Path, metavar="FILE.md", help="default: the card is printed")
    add("--which", choices=WHICH, help="of the run; default: the best there is")


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    source = source_of(options.model, options.which)
    if source.kind != "run":
        raise ValueError(
            f"{options.model} is no run folder, and a card tells of a run: its data, its results, "
            "its command. Name the run folder."
        )
    from crosswalk.files import write_text
    from crosswalk.use.card import model_card
    from crosswalk.use.described import described_by

    card = model_card(source.folder, described_by(source), source.weights.stem)
    if options.out is None:
        print(card, end="")
    else:
        write_text(options.out, card)
    return 0
