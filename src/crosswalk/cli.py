"""The program ``crosswalk``. Heavy imports happen inside the commands that need them."""

from __future__ import annotations

import argparse
import gc
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Command = Callable[[argparse.Namespace], int]
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

OVERRIDE = re.compile(r"(--)?(\+{1,2})?[A-Za-z_][\w./@]*=|~[A-Za-z_][\w.]*$", re.ASCII)
OPTIONS_OF_ABLATE = (
    *("--row", "--seeds", "--data", "--jobs", "--devices", "--launcher", "--slurm"),
    "--output-dir",
)
"""Options that a value follows."""
OVERRIDES_HELP = """
overrides:
  group=file         method=rde, data=cuhk_pedes, encoder=..., loss=..., trainer=one_gpu, logger=csv
  dotted.key=value   data.root=/datasets, data.noise_rate=0.5, trainer.max_epochs=3, seed=2
  +new.key=value     a key that no file has; ~key removes one; --key=value is understood too
`crosswalk config show` with the same overrides prints the result and runs nothing.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 2 for mistakes of the user, 1 for failures.

    Example:
        >>> main(["config", "show", "methd=rde"])
        2
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words or os.environ.get("CROSSWALK_DEBUG", "") not in ("", "0")
    words = [word for word in words if word != "--debug"]
    parser = _parser()
    rest, overrides = _split(words) if _takes_overrides(words) else (words, [])
    options, strays = parser.parse_known_args(rest)
    if strays:
        takes = "; overrides are written key=value" if _takes_overrides(words) else ""
        parser.error(f"not understood: {' '.join(strays)}{takes}")
    options.overrides = overrides
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        print("crosswalk: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 0
    except (ValueError, OSError) as error:
        mistake = _is_users_mistake(error)
        if debug or not mistake:
            traceback.print_exc()
        else:
            print(f"crosswalk: {_message(error)}", file=sys.stderr)
        return 2 if mistake else 1


def _is_users_mistake(error: Exception) -> bool:
    """Return whether the error was raised on purpose, by a line of this package."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError, PermissionError)):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(Path(__file__).parent)


def _message(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    return text


def _takes_overrides(words: Sequence[str]) -> bool:
    commands = [word for word in words if not word.startswith("-")][:2]
    return bool(commands) and (
        commands[0] in ("train", "evaluate", "sweep", "ablate")
        or tuple(commands[:2]) == ("config", "show")
    )


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words for argparse and the overrides; `ablate` has options that look like those.

    Example:
        >>> _split(["ablate", "t.yaml", "--row", "margin=0.1", "--seeds=1,2", "trainer=cpu"])
        (['ablate', 't.yaml', '--row', 'margin=0.1', '--seeds=1,2'], ['trainer=cpu'])
    """
    rest: list[str] = []
    overrides: list[str] = []
    own = OPTIONS_OF_ABLATE if "ablate" in words[:1] else ()
    awaits_value = False
    for word in words:
        if awaits_value or word.partition("=")[0] in own:
            awaits_value = not awaits_value and "=" not in word
            rest.append(word)
        else:
            (overrides if OVERRIDE.match(word) else rest).append(word)
    return rest, overrides


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="crosswalk",
        description="Text-based person search and person re-identification.",
        epilog="Examples:\n"
        "  crosswalk train method=rde\n"
        "  crosswalk train method=rde data=cuhk_pedes data.root=/datasets data.noise_rate=0.5\n"
        "  crosswalk evaluate runs/<name>\n\n"
        "`crosswalk <command> --help` explains each command. Errors come as one message; --debug\n"
        "or CROSSWALK_DEBUG=1 shows where they were raised.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(title="commands", metavar="<command>", required=True)
    train = _command(
        commands,
        "train",
        _train,
        "train a method, evaluate its best epoch",
        "Examples:\n"
        "  crosswalk train method=rde\n"
        "  crosswalk train method=rde data=cuhk_pedes data.root=/datasets data.noise_rate=0.5\n"
        "  crosswalk train method=rde data=cuhk_pedes data.root=/datasets trainer=ddp\n"
        "  crosswalk train method=rde resume=true\n" + OVERRIDES_HELP,
    )
    train.usage = "crosswalk train [key=value ...]"
    evaluate = _command(
        commands,
        "evaluate",
        _evaluate,
        "evaluate a finished run again",
        "Examples:\n"
        "  crosswalk evaluate runs/<name>\n"
        "  crosswalk evaluate runs/<name> data=icfg_pedes data.root=/datasets\n" + OVERRIDES_HELP,
    )
    evaluate.usage = "crosswalk evaluate RUN [key=value ...]"
    evaluate.add_argument("run_folder", metavar="RUN", type=Path, help="a run folder")
    _config_commands(commands)
    _data_commands(commands)
    _weight_commands(commands)
    _report_command(commands)
    _compare_command(commands)
    _audit_command(commands)
    _sweep_command(commands)
    _ablate_command(commands)
    return parser


def _config_commands(commands: SubParsers) -> None:
    config = commands.add_parser("config", help="show and compare configurations")
    parts = config.add_subparsers(metavar="<command>", required=True)
    show = _command(
        parts,
        "show",
        _config_show,
        "print the configuration of a run, and run nothing",
        "Examples:\n"
        "  crosswalk config show method=rde data=cuhk_pedes\n"
        "  crosswalk config show data.noise_rate=0.8\n" + OVERRIDES_HELP,
    )
    show.usage = "crosswalk config show [key=value ...]"
    diff = _command(
        parts,
        "diff",
        _config_diff,
        "print where two configurations differ",
        "Each side is a run folder or overrides in quotes; without RIGHT, LEFT is compared with\n"
        "the default run.\n\n"
        "Examples:\n"
        "  crosswalk config diff runs/<name> runs/<other name>\n"
        "  crosswalk config diff 'data=cuhk_pedes' 'data=cuhk_pedes data.noise_rate=0.5'\n",
    )
    diff.add_argument("left", metavar="LEFT")
    diff.add_argument("right", metavar="RIGHT", nargs="?", default="")


def _data_commands(commands: SubParsers) -> None:
    data = commands.add_parser("data", help="check data sets, make synthetic ones")
    parts = data.add_subparsers(metavar="<command>", required=True)
    check = _command(
        parts,
        "check",
        _data_check,
        "examine a data set and report what is wrong with it",
        "Layout, counts against the published ones, missing and damaged images, suspicious\n"
        "captions, identities in two splits, cameras, queries without a match. Status 1 if\n"
        "something is broken, 0 for warnings.\n\n"
        "Examples:\n"
        "  crosswalk data check /datasets\n"
        "  crosswalk data check /datasets --dataset market1501 --json report.json\n",
    )
    check.add_argument("root", metavar="ROOT", help="folder of one or several data sets, or a file")
    check.add_argument("--dataset", help="which one, e.g. cuhk_pedes (default: all that are found)")
    check.add_argument("--json", metavar="FILE", help="also write the report to FILE")
    synthesize = _command(
        parts,
        "synthesize",
        _data_synthesize,
        "write a synthetic data set",
        "Examples:\n"
        "  crosswalk data synthesize /tmp/people --kind pairs --size toy\n"
        "  crosswalk data synthesize /tmp/people --kind pairs --size small --seed 7\n"
        "  crosswalk data synthesize /tmp/target --kind images --layout market1501\n",
    )
    synthesize.add_argument("folder", metavar="DIR", help="where to write it")
    synthesize.add_argument(
        "--kind",
        default="pairs",
        help="pairs: images with captions (default); images: people under several cameras",
    )
    synthesize.add_argument("--size", default="toy", help="toy (default), small, full or tiny")
    synthesize.add_argument("--seed", type=int, default=0, help="another seed, other people")
    synthesize.add_argument(
        "--layout",
        help="layout of the files: cuhk_pedes (default of pairs); market1501 (default of images), "
        "dukemtmc or msmt17",
    )


def _weight_commands(commands: SubParsers) -> None:
    importing = _command(
        commands,
        "import-weights",
        _import_weights,
        "turn an official checkpoint into ours",
        "Examples:\n"
        "  crosswalk import-weights rde best.pth rde.safetensors\n"
        "  crosswalk train method=rde data=cuhk_pedes checkpoint=rde.safetensors\n",
    )
    importing.add_argument("method", metavar="METHOD", help="whose checkpoint it is, e.g. rde")
    importing.add_argument("source", metavar="FILE", type=Path, help="the official checkpoint")
    importing.add_argument("target", metavar="OUT", type=Path, help="the .safetensors to write")
    exporting = _command(
        commands,
        "export-weights",
        _export_weights,
        "write the encoder of a run as safetensors",
        "Example:\n  crosswalk export-weights runs/<name> encoder.safetensors\n",
    )
    exporting.add_argument("run_folder", metavar="RUN", type=Path, help="run folder or checkpoint")
    exporting.add_argument("target", metavar="OUT", type=Path, help="the .safetensors to write")
    exporting.add_argument("--which", choices=("best", "last"), default="best")
    exporting.add_argument("--part", default="", help="only this part of the encoder, e.g. clip")
    exporting.add_argument("--half", action="store_true", help="round to float16")


def _audit_command(commands: SubParsers) -> None:
    audit = _command(
        commands,
        "audit",
        _audit,
        "list the training pairs that a run of RDE judged wrong",
        "Writes a table and, beside it, a page to look through. The lowest probability of being\n"
        "right comes first.\n\n"
        "Examples:\n"
        "  crosswalk audit runs/<name>\n"
        "  crosswalk audit runs/<name> --out suspects.csv --threshold 0.1 --limit 500\n",
    )
    audit.add_argument("run_folder", metavar="RUN", type=Path, help="a run folder")
    audit.add_argument(
        "--out", metavar="FILE", type=Path, default=Path("suspects.csv"), help="the table to write"
    )
    audit.add_argument(
        "--threshold", metavar="P", type=float, help="list pairs that are right with at most this"
    )
    audit.add_argument("--limit", metavar="N", type=int, help="list at most so many")
    audit.add_argument(
        "--which", choices=("last", "first"), default="last", help="by which division of the run"
    )


def _report_command(commands: SubParsers) -> None:
    report = _command(
        commands,
        "report",
        _report,
        "write the report of a run again",
        "A page of results, curves, ranking lists and configuration, one file that needs no\n"
        "other. Training writes it too.\n\n"
        "Examples:\n"
        "  crosswalk report runs/<name>\n"
        "  crosswalk report runs/<name> --out page.html\n",
    )
    report.add_argument("run_folder", metavar="RUN", type=Path, help="a run folder")
    report.add_argument(
        "--out", metavar="FILE", type=Path, help="where to (default: report.html in RUN)"
    )


def _compare_command(commands: SubParsers) -> None:
    compare = _command(
        commands,
        "compare",
        _compare,
        "compare two runs query by query",
        "Prints paired differences with bootstrap intervals, groups of queries, and the queries\n"
        "that changed most; writes a page with their ranking lists and a .json file beside it.\n"
        "Several runs of a side, such as seeds, are named with commas between them.\n\n"
        "Examples:\n"
        "  crosswalk compare runs/<name> runs/<other name>\n"
        "  crosswalk compare runs/a1,runs/a2 runs/b1,runs/b2 --checkpoint last --out ab.html\n",
    )
    compare.add_argument("first", metavar="RUN_A", help="a run folder, or several: RUN,RUN,...")
    compare.add_argument("second", metavar="RUN_B", help="likewise; differences are B minus A")
    compare.add_argument("--checkpoint", choices=("best", "last", "start"), default="best")
    compare.add_argument("--split", choices=("test", "val"), default="test")
    compare.add_argument(
        "--out", metavar="FILE", type=Path, default=Path("compare.html"), help="the page to write"
    )


def _sweep_command(commands: SubParsers) -> None:
    sweep = _command(
        commands,
        "sweep",
        _sweep,
        "search hyper-parameters as a W&B sweep file says",
        "With a W&B login the file is registered on its server and agents here run its trials.\n"
        "--local runs the same file without a server: each trial is a run of its own below\n"
        "<output dir>/sweeps/<name>; the same command goes on after a kill, and several at once,\n"
        "also on several machines that share the folder, work on one sweep.\n\n"
        "Examples:\n"
        "  crosswalk sweep rde --local --dry-run\n"
        "  crosswalk sweep rde --local --trials 20 --agents 2 --devices 0,1\n"
        "  crosswalk sweep rde data=cuhk_pedes data.root=/datasets data.noise_rate=0.5\n"
        "  crosswalk sweep mine.yaml --local --name second trainer.max_epochs=20\n"
        + OVERRIDES_HELP,
    )
    sweep.usage = "crosswalk sweep SWEEP [options] [key=value ...]"
    sweep.add_argument("sweep", metavar="SWEEP", help="a file, or its name in configs/sweep")
    sweep.add_argument("--local", action="store_true", help="search here, not on W&B's server")
    sweep.add_argument(
        "--agents", type=int, default=0, help="trials at a time (default: one for each device)"
    )
    sweep.add_argument("--devices", default="", help="GPUs to use, such as 0,1")
    sweep.add_argument(
        "--trials", type=int, help="at most so many (default: the file's run_cap, the grid, or 20)"
    )
    sweep.add_argument("--seed", type=int, help="of the search (default 1)")
    sweep.add_argument("--name", help="of the sweep (default: that of the file)")
    sweep.add_argument(
        "--output-dir", metavar="DIR", type=Path, default=Path("runs"), help="default: runs"
    )
    sweep.add_argument("--show", action="store_true", help="print what there is, run nothing")
    sweep.add_argument(
        "--dry-run", action="store_true", help="check the file, print the first trials"
    )


def _ablate_command(commands: SubParsers) -> None:
    ablate = _command(
        commands,
        "ablate",
        _ablate,
        "run the rows of a table and compare them with the published numbers",
        "Every row and seed is a run of its own. What is finished with the same configuration and\n"
        "code is not run again, and a command that was stopped goes on where it was. key=value\n"
        "changes all rows.\n\n"
        "Examples:\n"
        "  crosswalk ablate experiments/rde/table2.yaml --data synthetic_pairs --dry-run\n"
        "  crosswalk ablate experiments/rde/table2.yaml --data synthetic_pairs --jobs 2\n"
        "  crosswalk ablate experiments/rde/table2.yaml --row 'without CCD' --seeds 1,2,3 \\\n"
        "    --devices 0,1 data.root=/datasets trainer=one_gpu\n"
        "  crosswalk ablate experiments/rde/table2.yaml --launcher slurm \\\n"
        "    --slurm partition=gpu --slurm timeout_min=600 data.root=/datasets trainer=one_gpu\n",
    )
    ablate.usage = "crosswalk ablate TABLE [options] [key=value ...]"
    ablate.add_argument(
        "table", metavar="TABLE", type=Path, help="experiments/<method>/<table>.yaml"
    )
    add = ablate.add_argument
    add("--row", metavar="NAME", action="append", default=[], help="only this row; repeatable")
    add("--seeds", default="", metavar="1,2,3", help="default: the table's")
    add("--data", default="", metavar="NAME", help="other data than the table's: synthetic_pairs")
    add("--jobs", type=int, default=0, metavar="N", help="runs side by side (1, or one a device)")
    add("--devices", default="", metavar="0,1,2", help="GPUs to divide among the runs")
    add("--dry-run", action="store_true", help="say what would be run and how long, run nothing")
    add("--show", action="store_true", help="print the table as it stands, run nothing")
    add("--save", action="store_true", help="also keep the results beside the table's file")
    add("--any-code", action="store_true", help="take runs of other code as finished, too")
    add("--launcher", choices=("local", "slurm"), default="local", help="where runs are started")
    add(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what Slurm is asked for, in submitit's names: partition, timeout_min; repeatable",
    )
    add("--output-dir", type=Path, default=Path("runs"), help="folder of runs (default: runs)")


def _command(
    parent: SubParsers, name: str, run: Command, summary: str, epilog: str
) -> argparse.ArgumentParser:
    parser = parent.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


class _Version(argparse.Action):
    def __init__(self, option_strings: list[str], dest: str, **_: Any) -> None:  # noqa: ANN401
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:  # noqa: ANN401
        from crosswalk import __version__

        print(f"crosswalk {__version__}")
        parser.exit()


def _train(options: argparse.Namespace) -> int:
    from crosswalk.config.compose import compose

    config = compose(options.overrides)
    from crosswalk.run.train import train

    return train(config)


def _evaluate(options: argparse.Namespace) -> int:
    if not options.run_folder.exists():
        raise FileNotFoundError(f"{options.run_folder} is no run folder; `ls runs` shows yours.")
    from crosswalk.run.train import evaluate

    return evaluate(options.run_folder, options.overrides)


def _config_show(options: argparse.Namespace) -> int:
    gc.disable()  # a tenth of the time of so short a command
    from crosswalk.config.compose import compose, missing_keys, to_yaml

    config = compose(options.overrides)
    print(to_yaml(config), end="", flush=True)
    missing = missing_keys(config)
    if missing:
        print(f"note: still to be set: {', '.join(missing)}", file=sys.stderr)
        return 0
    from crosswalk.config.check import check  # after the print: it imports what is named

    check(config)
    return 0


def _config_diff(options: argparse.Namespace) -> int:
    gc.disable()
    from crosswalk.config.compose import differences

    left, right = _side(options.left), _side(options.right)
    if not options.right:
        left, right = right, left
    for key, before, after in differences(left, right):
        print(f"{key}: {before} -> {after}")
    return 0


def _side(words: str) -> dict[str, Any]:
    from crosswalk.config.compose import compose, read_yaml, to_plain

    folder = Path(words)
    if words and folder.is_dir():
        return read_yaml(folder / "config.yaml")
    return to_plain(compose(shlex.split(words)))


def _data_check(options: argparse.Namespace) -> int:
    from crosswalk.doctor.pairs import run_check

    return run_check(options.root, options.dataset, options.json)


def _data_synthesize(options: argparse.Namespace) -> int:
    from crosswalk.synthetic.generate import run_synthesize

    return run_synthesize(options.folder, options.kind, options.size, options.seed, options.layout)


def _import_weights(options: argparse.Namespace) -> int:
    from crosswalk.run.weights import run_import

    return run_import(options.method, options.source, options.target)


def _export_weights(options: argparse.Namespace) -> int:
    from crosswalk.run.weights import run_export

    return run_export(
        options.run_folder,
        options.target,
        options.which,
        part=options.part,
        half=options.half,
    )


def _sweep(options: argparse.Namespace) -> int:
    from crosswalk.lab.sweeps.command import SweepOptions, run_sweep

    return run_sweep(
        SweepOptions(
            file=options.sweep,
            overrides=options.overrides,
            local=options.local,
            agents=options.agents,
            devices=[device for device in options.devices.split(",") if device],
            trials=options.trials,
            seed=options.seed,
            name=options.name,
            output_dir=options.output_dir,
            show=options.show,
            dry_run=options.dry_run,
        )
    )


def _audit(options: argparse.Namespace) -> int:
    from crosswalk.lab.compare.audit_command import run_audit

    return run_audit(
        options.run_folder,
        options.out,
        threshold=options.threshold,
        limit=options.limit,
        which=options.which,
    )


def _report(options: argparse.Namespace) -> int:
    from crosswalk.lab.report.report import run_report

    return run_report(options.run_folder, options.out)


def _compare(options: argparse.Namespace) -> int:
    from crosswalk.lab.compare.command import run_compare

    return run_compare(
        options.first,
        options.second,
        checkpoint=options.checkpoint,
        split=options.split,
        out=options.out,
    )


def _ablate(options: argparse.Namespace) -> int:
    from crosswalk.lab.tables.command import Request, run_ablation

    return run_ablation(
        Request(
            table=options.table,
            rows=options.row,
            seeds=options.seeds,
            data=options.data,
            jobs=options.jobs,
            devices=options.devices,
            dry_run=options.dry_run,
            show=options.show,
            save=options.save,
            any_code=options.any_code,
            launcher=options.launcher,
            slurm=options.slurm,
            output_dir=options.output_dir,
            overrides=options.overrides,
        )
    )
