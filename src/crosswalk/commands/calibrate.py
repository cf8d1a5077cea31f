"""The command ``crosswalk calibrate``."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from crosswalk.config.model_file import THRESHOLDS
from crosswalk.gallery.description import FILE, KEPT, read_gallery
from crosswalk.use.source import MODELS, WHICH, check_out, source_of

if TYPE_CHECKING:
    from crosswalk.run.run_folder import RunFolder
    from crosswalk.use.thresholds import Thresholds


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.usage = "crosswalk calibrate MODEL [--split test|val] [--out FILE] [key=value ...]"
    parser.epilog = (
        "A ranking list always has a first place, whether the person is there or not. This takes\n"
        "the scores of an evaluation, with every query's person in the gallery and without, and\n"
        "says at which threshold 1 % of absent people pass, whom it accepts, and whether scores\n"
        "can tell at all. Of a run, or of the folder of an evaluation, the scores are kept; with\n"
        "overrides the model is evaluated first, as by `crosswalk evaluate`.\n\n"
        "Examples:\n"
        "  crosswalk calibrate runs/<name> --out thresholds.json\n"
        "  crosswalk calibrate model/ data=own_pairs data.root=pairs.csv --out thresholds.json\n"
        "  crosswalk calibrate photos.gallery --label person_id\n\n"
        "Of a gallery its labelled pictures are looked for among all, and the result is kept\n"
        "in it.\n"
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help=MODELS)
    add("--split", choices=("test", "val"), default="test")
    add("--checkpoint", choices=WHICH, help="of a run; default: the best there is")
    add("--label", metavar="COLUMN", help="of a gallery: the column that says who is on a picture")
    add("--out", metavar="FILE", type=Path, help="write a thresholds.json; default: print alone")


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    from crosswalk.files import check_writable
    from crosswalk.run.run_folder import RunFolder

    if (Path(options.model) / FILE).is_file():
        return _calibrate_gallery(options)
    if options.label is not None:
        raise ValueError(f"--label is of a gallery, and {options.model} is none.")
    folder = RunFolder(Path(options.model).expanduser())
    is_run = folder.config_file.is_file() or folder.record_file.is_file()
    source = None if is_run or options.overrides else source_of(options.model, options.checkpoint)
    if options.out is not None:
        check_writable(options.out, "--out")
        check_out(folder if source is None else source.folder, options.out)
    if options.overrides:
        from crosswalk.commands.evaluate import evaluated

        done = evaluated(options.model, options.overrides)
        if done is None:
            return 0
        folder = done.folder
    from crosswalk.use.calibrate import print_thresholds, thresholds_of, thresholds_of_run

    if source is None:
        folder.config()
        found = thresholds_of_run(folder, split=options.split, checkpoint=options.checkpoint)
    else:
        told = thresholds_of(source)
        if told is None or told.split != options.split:
            raise ValueError(
                f"{source.name} is of no run here, and nothing is known of its scores on "
                f"{options.split}. Say on which data to measure them: crosswalk calibrate "
                f"{options.model} data=<data set> data.root=<folder>; or name the folder of its "
                "evaluation."
            )
        found = told
    print_thresholds(found)
    if options.out is not None:
        _with_fingerprint(found, folder, options.checkpoint).write(options.out)
        print(f"Thresholds: {options.out}")
    return 0


def _calibrate_gallery(options: Namespace) -> int:
    gallery = Path(options.model)
    columns = read_gallery(gallery).columns
    if options.label is None:
        names = ", ".join(name for name in columns if name not in KEPT) or "none"
        raise ValueError(f"which column says who is on a picture? --label; {gallery} has {names}.")
    if options.overrides or options.checkpoint:
        raise ValueError(f"{gallery} is a gallery: give --label alone.")
    from crosswalk.gallery.measure import thresholds_by
    from crosswalk.use.calibrate import print_thresholds

    found = thresholds_by(gallery, options.label)
    print_thresholds(found)
    target = options.out or gallery / THRESHOLDS
    found.write(target)
    print(f"Thresholds: {target}")
    return 0


def _with_fingerprint(found: Thresholds, folder: RunFolder, checkpoint: str | None) -> Thresholds:
    """Return the thresholds with the fingerprint of their model, if that is here."""
    from crosswalk.use.calibrate import model_of

    if found.fingerprint is not None:
        return found
    source = model_of(folder, checkpoint)
    if source is None:
        print(
            f"note: {found.model} is not here any more, so the file does not say which weights it "
            "is of.",
            file=sys.stderr,
        )
        return found
    from crosswalk.use.described import described_by
    from crosswalk.use.load import fingerprint_with, weights_of

    described = described_by(source)
    return found._replace(fingerprint=fingerprint_with(weights_of(source, described), described))
