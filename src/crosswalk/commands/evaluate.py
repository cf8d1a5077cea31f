"""The command ``crosswalk evaluate``."""

from __future__ import annotations

import contextlib
from argparse import ArgumentParser, Namespace
from pathlib import Path

from crosswalk.commands.train import leave_report


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.usage = "crosswalk evaluate RUN [key=value ...]"
    parser.epilog = (
        "With overrides the results, per query too, and a report go to a folder of their own,\n"
        "RUN/evaluations/<data>-<protocol>-<digest>; `report` and `compare` take it as a run.\n\n"
        "Examples:\n"
        "  crosswalk evaluate runs/<name>\n"
        "  crosswalk evaluate runs/<name> data=icfg_pedes data.root=/datasets\n"
    )
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="a run folder")


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    from crosswalk.config.check import check_paths
    from crosswalk.config.compose import restore, to_plain
    from crosswalk.run.run_folder import RunFolder

    with contextlib.suppress(ValueError):  # said by `evaluate`, which looks at the whole of it
        folder = RunFolder(options.run_folder)
        config = restore(
            folder.runnable_config(), options.overrides, vocabulary=folder.kept_vocabulary
        )
        data = to_plain(config)["data"]
        if not options.overrides:
            data.pop("noise_index", None)  # of the training alone
        check_paths({"data": data})
    from crosswalk.run.train import evaluate

    evaluated = evaluate(options.run_folder, options.overrides)
    if evaluated is not None and options.overrides:
        leave_report(evaluated.folder, evaluated.data)
    return 0
