"""The command ``crosswalk data synthesize``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from crosswalk.commands.at_least import AtLeast


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.epilog = (
        "Examples:\n"
        "  crosswalk data synthesize /tmp/people --kind pairs --size toy\n"
        "  crosswalk data synthesize /tmp/people --kind pairs --size small --seed 7\n"
        "  crosswalk data synthesize /tmp/target --kind images --layout market1501\n"
    )
    add = parser.add_argument
    add("folder", metavar="DIR", help="where to write it")
    add(
        "--kind",
        default="pairs",
        help="pairs: images with captions (default); images: people under several cameras",
    )
    add("--size", default="toy", help="toy (default), small, full or tiny")
    add("--seed", type=AtLeast(0), default=0, help="another seed, other people")
    add(
        "--layout",
        help="layout of the files: cuhk_pedes (default of pairs); market1501 (default of images), "
        "dukemtmc or msmt17",
    )


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    from crosswalk.synthetic.generate import run_synthesize

    return run_synthesize(options.folder, options.kind, options.size, options.seed, options.layout)
