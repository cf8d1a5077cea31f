"""The command ``crosswalk train``."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crosswalk.run.run_folder import RunFolder


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    from crosswalk.config.search import config_folder, default_method, group_values

    parser.usage = "crosswalk train [key=value ...]"
    listed = (
        fill(f"{title}: {', '.join(group_values(group))}.", 79, subsequent_indent="  ")
        for group, title in {"method": "Methods", "data": "Data sets"}.items()
    )
    parser.epilog = (
        "Examples:\n"
        "  crosswalk train method=rde\n"
        "  crosswalk train method=rde data=cuhk_pedes data.root=/datasets data.noise_rate=0.5\n"
        "  crosswalk train method=rde data=cuhk_pedes data.root=/datasets trainer=ddp\n"
        "  crosswalk train method=rde resume=true\n\n"
        + "\n".join(listed)
        + f"\nWithout method= it is {default_method()}, without data= people that are generated."
        + f"\nEvery key stands, with its source, in the files of {config_folder()}.\n"
    )


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    from crosswalk.config.check import check_early, compose_training
    from crosswalk.config.plain import to_plain
    from crosswalk.config.stored import targets_of, trusting
    from crosswalk.run.processes import end_with_parent, to_type
    from crosswalk.run.run_folder import STAGE_VARIABLE

    end_with_parent()  # before the slow imports, in which the first process may end
    config = compose_training(options.overrides)
    check_early(config)  # what is wrong is said before the slow imports
    _look_ahead(config)
    say_begun(f"Training {config['choices']['method']} on {config['choices']['data']}")
    from crosswalk.run.train import train

    trained = train(config)
    if trained is not None:
        with trusting(str(target) for _, target in targets_of(to_plain(config))):
            leave_report(trained.folder, trained.data)
        if STAGE_VARIABLE not in os.environ:
            folder = str(trained.folder.path)
            search = to_type("index", folder, "photos/", "--out", "photos.gallery")
            print(f"To search pictures of yours with it: {search}")
    return 0


def _look_ahead(config: Mapping[str, Any]) -> None:
    """Refuse paths and files that the run would refuse, before the slow imports."""
    from crosswalk.config.keys import with_absolute_paths
    from crosswalk.config.paths import check_paths, read_annotations
    from crosswalk.config.plain import to_plain
    from crosswalk.files import check_folder
    from crosswalk.run.run_folder import is_first_process, run_to_resume, weights_of

    try:
        plain = with_absolute_paths(to_plain(config))
    except ValueError:  # what has no value yet is said by the check of the run
        return
    check_paths(to_plain(config))
    if not is_first_process(os.environ):
        return
    if not isinstance(plain["resume"], str) or plain["resume"] == "restart":
        check_folder(Path(plain["output_dir"]), f"output_dir={config['output_dir']}")
    if plain.get("checkpoint") is not None:
        weights_of(Path(plain["checkpoint"]))
    if plain["resume"] not in (False, "restart"):
        run_to_resume(plain)
    read_annotations(plain["data"])


def say_begun(what: str) -> None:
    """Say what a command does before the slow imports, in which nothing else is said."""
    from crosswalk.run.run_folder import is_first_process

    if is_first_process(os.environ):
        print(f"{what} …", file=sys.stderr, flush=True)


def leave_report(folder: RunFolder, data: Any) -> None:  # noqa: ANN401
    """Write the report of a run or an evaluation; where that fails, say so and how to try again."""
    try:
        from crosswalk.lab.report.report import write_report

        print(f"Report: {write_report(folder, data)}")
    except Exception as error:  # whatever it is, the run itself is finished
        print(
            f"note: no report was written ({type(error).__name__}: {error}). The run is finished; "
            f"`crosswalk report {folder.path}` tries again.",
            file=sys.stderr,
        )
