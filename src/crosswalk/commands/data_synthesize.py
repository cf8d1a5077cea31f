"""The command ``crosswalk data synthesize``."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser, Namespace
from pathlib import Path

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

    status = run_synthesize(
        options.folder, options.kind, options.size, options.seed, options.layout
    )
    print(f"Train on them: {_training(options)}")
    return status


def _training(options: Namespace) -> str:
    """Return the command that trains a small network on the set: published ones want weights."""
    from crosswalk.config.compose import compose
    from crosswalk.config.search import default_method, group_values

    root, data = Path(options.folder).resolve(), f"synthetic_{options.kind}"
    methods = [run.split("/")[0] for run in group_values("experiment") if run.endswith(f"/{data}")]
    # a stage has other data
    of_one = [name for name in methods if compose([f"method={name}", f"data={data}"]).stage is None]
    method = default_method() if default_method() in of_one else of_one[0]
    words = [f"method={method}", f"data={data}", f"data.root={root}"]
    if options.kind == "images" and options.size == "tiny":
        words.append("data.batch_size=32")  # of as many people as it has
    if options.layout not in (None, "cuhk_pedes", "market1501"):
        reader = f"crosswalk.data.readers.{options.layout}.read_{options.layout}"
        words.append(f"data.reader._target_={reader}")
    return shlex.join(["crosswalk", "train", *words])
