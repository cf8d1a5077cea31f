"""The command ``crosswalk sweep``."""

from __future__ import annotations

import json
import re
import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml
from rich.console import Console

from crosswalk.config.compose import compose
from crosswalk.config.places import refuse_inside_data
from crosswalk.files import check_folder, lock, write_text
from crosswalk.lab.launch import launcher, only_said
from crosswalk.lab.pool import PlannedRun, command_of
from crosswalk.lab.sweeps.check import check_sweep, key_of
from crosswalk.lab.sweeps.search import JOURNAL, preview
from crosswalk.lab.sweeps.summary import SweepSummary, as_text, summarize
from crosswalk.lab.sweeps.summary_page import write_summary
from crosswalk.lab.sweeps.sweep_file import (
    EarlyTermination,
    SweepFile,
    find_sweep_file,
    read_sweep_file,
    with_overrides,
)
from crosswalk.lab.sweeps.trials import LocalSweep, Trials
from crosswalk.run.processes import to_type
from crosswalk.run.run_folder import RunFolder
from crosswalk.words import counted

NUM_TRIALS = 20
"""Trials of a search that has no end of its own, unless the user says how many."""

SHOWN = 3
"""Commands of a dry run."""

WITHOUT_EFFECT = ("name", "description", "project", "entity", "run_cap", "program")
"""Keys of a sweep file that may change while its trials run."""


def run_sweep(options: Namespace) -> int:
    """Search as a W&B sweep file says, here or on W&B's server; return the exit status.

    It is 1 if a trial of the sweep failed, or an agent.

    Args:
        options: Those of ``crosswalk sweep``.

    Raises:
        ValueError: If the file, a parameter or an option is not right.
    """
    file = read_sweep_file(find_sweep_file(options.sweep))
    name = options.name or file.stem
    if not re.fullmatch(r"[\w.+=-]+", name):
        raise ValueError(f"--name {name!r} may contain letters, digits and . _ + = - only.")
    overrides = tuple(options.overrides)
    on_slurm = options.launcher == "slurm"
    if on_slurm and not options.local:
        raise ValueError("--launcher slurm is for searches here: add --local.")
    check_folder(options.output_dir, f"--output-dir {options.output_dir}")
    output_dir = options.output_dir.resolve() if on_slurm else options.output_dir
    folder = output_dir / "sweeps" / name
    seed = 1 if options.seed is None else options.seed
    sweep = LocalSweep(file, folder, overrides, seed, num_trials(file, options.trials))
    if options.show:
        _show(sweep, started=options.local)
        return 0
    config = check_sweep(file, overrides)
    refuse_inside_data(config, folder, "--output-dir")
    agents = min(options.agents, sweep.num_trials) if options.local else options.agents
    # by Slurm all at once would propose without looking
    where = launcher(options, [config], at_a_time=agents or int(on_slurm))
    at_a_time = min(where.at_a_time, sweep.num_trials)
    sweep = replace(sweep, uses_wandb=config["logger"]["wandb"] is not None)
    if options.dry_run:
        print(plan(sweep, at_a_time))
    with only_said(options.dry_run):
        where.look_ahead(config)
    if options.dry_run:
        return 0
    if not options.local:
        from crosswalk.lab.sweeps.server import register, run_agents

        path = register(
            with_overrides(file.contents, [*overrides, f"output_dir={folder}"]),
            project=(config["logger"]["wandb"] or {}).get("project", "crosswalk"),
            num_trials=options.trials,
        )
        return run_agents(path, where.slots, folder / "logs")
    sweep = begin(sweep, options.seed)
    print(plan(sweep, at_a_time).split("\n\n")[0], flush=True)
    status = 0
    trials = Trials(sweep, at_a_time=where.at_a_time)
    like_all = PlannedRun("a trial", overrides, config, RunFolder(folder / "trial"), ())
    try:
        with trials.board:
            where.make(trials, folder / "slurm", first=[like_all], train=sweep.train)
    except ChildProcessError as error:
        print(f"crosswalk: {error}", flush=True)
        status = 1
    except KeyboardInterrupt:
        jobs = " Jobs that were submitted go on." if on_slurm else ""
        print(
            f"\nInterrupted.{jobs} The same command goes on with the sweep:\n  {to_type()}",
            flush=True,
        )
        status = 130
    failed = _show(sweep).failed
    return status or int(bool(failed))


def num_trials(file: SweepFile, given: int | None) -> int:
    """Return how many trials a sweep has at most."""
    wanted = given or file.run_cap
    size = file.grid_size
    if size is not None:
        return size if wanted is None else min(wanted, size)
    return wanted or NUM_TRIALS


def begin(sweep: LocalSweep, seed: int | None) -> LocalSweep:
    """Note what a sweep is, or see that the one in its folder is the same; return it.

    Args:
        sweep: As the command line describes it.
        seed: What the user said; None takes that of the folder.

    Raises:
        ValueError: If the folder holds another sweep, naming what differs.
    """
    note = sweep.folder / "sweep.json"
    with lock(sweep.folder / "take.lock"):
        ours = _identity(sweep)
        if not note.exists():
            write_text(note, json.dumps(ours, indent=2) + "\n")
            text = yaml.safe_dump(dict(sweep.file.contents), sort_keys=False)
            write_text(sweep.folder / "sweep.yaml", text)
            return sweep
        theirs = json.loads(note.read_text(encoding="utf-8"))
        if seed is None:
            sweep = replace(sweep, seed=theirs["seed"])
            ours = _identity(sweep)
        if differing := _differing(theirs, ours):
            raise ValueError(
                f"{sweep.folder} holds a sweep of its own (its value → yours):\n"
                + "\n".join(differing)
                + "\nGo on with it by the same command, or choose another --name."
            )
    return sweep


def _differing(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Return where two identities differ, a line each; the order of overrides is nobody's."""
    lines = []
    before, after = ({**each["file"], "seed": each["seed"]} for each in (theirs, ours))
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key):
            values = before.get(key), after.get(key)
            lines.append(f"  {key}: {_told(*values)} → {_told(*reversed(values))}")
    typed, wanted = ({key_of(word): word for word in each["overrides"]} for each in (theirs, ours))
    for key in sorted({*typed, *wanted}):
        if typed.get(key) != wanted.get(key):
            lines.append(f"  override: {typed.get(key, 'none')} → {wanted.get(key, 'none')}")
    return lines


def _told(value: Any, other: Any) -> Any:  # noqa: ANN401
    """Return a value in words; of a list what the other lacks, or all where one has no more."""
    if not isinstance(value, list):
        return "none" if value is None else value
    lists = [value, other if isinstance(other, list) else []]
    own, lacking = ([word for word in a if word not in b] for a, b in (lists, lists[::-1]))
    return " ".join(map(str, own if own and lacking else value)) or "none"


def _identity(sweep: LocalSweep) -> dict[str, Any]:
    contents = {
        key: value for key, value in sweep.file.contents.items() if key not in WITHOUT_EFFECT
    }
    identity: dict[str, Any] = json.loads(
        json.dumps({"file": contents, "overrides": sweep.overrides, "seed": sweep.seed})
    )
    return identity


def _early_in_words(sweep: LocalSweep, early: EarlyTermination) -> str:
    """Return when trials are stopped early."""
    (first,) = preview(sweep.file, seed=sweep.seed, count=1)
    epochs = compose(sweep.trial_overrides(first)).trainer.max_epochs
    if epochs <= early.min_iter:
        return f"no trial is stopped early: of {epochs} epochs, before epoch {early.min_iter}"
    upto = f", below {early.max_iter} epochs" if early.max_iter else ""
    return (
        f"after {early.min_iter} epochs, {early.eta} times as many and so on{upto}, one of "
        f"{early.eta} trials goes on"
    )


def plan(sweep: LocalSweep, at_a_time: int) -> str:
    """Return what a sweep will do, in words, and the commands of its first trials."""
    file = sweep.file
    size = f" of the {file.grid_size} points of the grid" if file.grid_size is not None else ""
    lines = [
        f"{file.path}: {file.method} search for the highest {file.metric}, best over the epochs of "
        "a trial",
        f"  {counted(sweep.num_trials, 'trial')}{size}, {at_a_time} at a time, in {sweep.folder}",
    ]
    if file.early is not None:
        lines.append(f"  {_early_in_words(sweep, file.early)}")
    width = max(map(len, file.parameters))
    lines += [f"  {name:{width}}  {parameter}" for name, parameter in file.parameters.items()]
    if sweep.overrides:
        lines.append(f"  {' '.join(sweep.overrides)}")
    if file.metric.startswith("test/"):
        lines.append("  note: trials are compared on test, so the best test result is too good")
    lines += ["", "First trials:"]
    shown = min(SHOWN, sweep.num_trials)
    for number, values in enumerate(preview(file, seed=sweep.seed, count=shown)):
        words = [*sweep.trial_overrides(values), *sweep.place(number)]
        lines.append(f"  {command_of(words)}")
    return "\n".join(lines)


def _show(sweep: LocalSweep, *, started: bool = True) -> SweepSummary:
    """Print what a sweep has found so far, write its page, and return it.

    Args:
        sweep: The sweep.
        started: Whether the same command without --show would begin it here.
    """
    if not (sweep.folder / JOURNAL).exists():
        instead = "without --show" if started else "with --local in the place of --show"
        raise FileNotFoundError(
            f"{sweep.folder} holds no local sweep. The same command {instead} starts it; one that "
            "lies elsewhere is named with --name and --output-dir."
        )
    stored = json.loads((sweep.folder / "sweep.json").read_text(encoding="utf-8"))
    sweep = replace(
        sweep,
        file=read_sweep_file(sweep.folder / "sweep.yaml"),
        overrides=tuple(stored["overrides"]),
        seed=stored["seed"],
    )
    summary = summarize(sweep)
    page = write_summary(sweep, summary)
    width = Console().width if sys.stdout.isatty() else 10**4
    print(f"\n{as_text(sweep, summary, width)}\nPage: {page}", flush=True)
    return summary
