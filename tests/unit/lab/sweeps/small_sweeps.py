"""Sweeps whose trials are `fake_train`, which take seconds."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from crosswalk.files import write_text
from crosswalk.lab.claims import Claims
from crosswalk.lab.local import run_locally
from crosswalk.lab.sweeps.search import open_study
from crosswalk.lab.sweeps.sweep_file import SweepFile, read_sweep_file
from crosswalk.lab.sweeps.trials import LocalSweep, Trials
from crosswalk.run.processes import make_slots
from tests.unit.lab.sweeps.fake_train import config_of

FAKE = (sys.executable, str(Path(__file__).with_name("fake_train.py")))
COMMAND = ["${env}", "${interpreter}", "-m", "crosswalk", "train", "${args_no_hyphens}"]
METRIC = {"name": "val/rank1", "goal": "maximize"}


def sweep_file(folder: Path, **changes: Any) -> SweepFile:  # noqa: ANN401
    """Return a sweep of ``quality`` between 0 and 1, changed; None takes a key away."""
    contents = {
        "command": COMMAND,
        "method": "random",
        "metric": METRIC,
        "parameters": {"quality": {"min": 0.0, "max": 1.0}},
    } | changes
    path = folder / "fake.yaml"
    given = {key: value for key, value in contents.items() if value is not None}
    write_text(path, yaml.safe_dump(given, sort_keys=False))  # two workers may do so at a time
    return read_sweep_file(path)


def local_sweep(
    folder: Path,
    *overrides: str,
    trials: int = 4,
    seed: int = 1,
    **changes: Any,  # noqa: ANN401
) -> LocalSweep:
    """Return a local sweep of `sweep_file` with fake trials."""
    folder.mkdir(parents=True, exist_ok=True)
    return LocalSweep(
        sweep_file(folder, **changes),
        folder / "sweeps" / "fake",
        overrides,
        seed,
        trials,
        uses_wandb=False,
        train=FAKE,
        configure=config_of,
    )


def work(
    sweep: LocalSweep, *, agents: int = 1, claims: Claims | None = None, interval: float = 0.02
) -> list[str]:
    """Run a worker to its end; return what it said."""
    said = io.StringIO()
    trials = Trials(sweep, at_a_time=agents, claims=claims, console=Console(file=said, width=200))
    try:
        run_locally(trials, make_slots(agents), train=sweep.train, interval=interval)
    finally:
        lines = said.getvalue().splitlines()
    return lines


def outcome(sweep: LocalSweep) -> list[tuple[int, str, float | None, dict[str, Any]]]:
    """Return number, state, value and parameters of all trials."""
    return [
        (trial.number, trial.state.name, trial.value, trial.params)
        for trial in open_study(sweep.folder, sweep.file).trials
    ]
