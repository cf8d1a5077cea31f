"""The search of a local sweep: Optuna's samplers, pruner and journal, told by a W&B file."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosswalk.lab.sweeps.parameters import Choice, Constant, Range, Value
from crosswalk.lab.sweeps.sweep_file import EarlyTermination, SweepFile

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

JOURNAL = "study.journal"
PATIENCE = 10
"""Seconds after which a lock of the journal is taken from a process that was killed with it."""


def distributions(sweep: SweepFile) -> dict[str, BaseDistribution]:
    """Return what Optuna draws each parameter from; constants are not drawn.

    A parameter that is rounded is drawn before it is rounded, so its values are as likely as
    W&B's.

    Example:
        >>> from crosswalk.lab.sweeps.sweep_file import find_sweep_file, read_sweep_file
        >>> distributions(read_sweep_file(find_sweep_file("mmcl")))["method.loss.delta"]
        CategoricalDistribution(choices=(3, 5))
    """
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    drawn: dict[str, BaseDistribution] = {}
    for name, parameter in sweep.parameters.items():
        if isinstance(parameter, Choice):
            drawn[name] = CategoricalDistribution(parameter.values)
        elif isinstance(parameter, Range) and parameter.whole:
            drawn[name] = IntDistribution(int(parameter.low), int(parameter.high))
        elif isinstance(parameter, Range):
            drawn[name] = FloatDistribution(parameter.low, parameter.high, log=parameter.log)
    return drawn


def values_of(sweep: SweepFile, drawn: Mapping[str, Any]) -> dict[str, Value]:
    """Return the values of a trial in the order of the file, constants included.

    Args:
        sweep: The file.
        drawn: What Optuna drew.
    """
    values: dict[str, Value] = {}
    for name, parameter in sweep.parameters.items():
        if isinstance(parameter, Constant):
            values[name] = parameter.value
        elif isinstance(parameter, Range):
            values[name] = parameter.rounded(drawn[name])
        else:
            values[name] = drawn[name]
    return values


def make_sampler(sweep: SweepFile, *, seed: int, number: int) -> BaseSampler:
    """Return what proposes the trial ``number``.

    It depends on nothing but the seed, the number and the trials before, so that a sweep that
    goes on proposes what it would have proposed.
    """
    from optuna.samplers import GridSampler, RandomSampler, TPESampler

    if sweep.method == "grid":
        return GridSampler(sweep.grid(), seed=seed)
    digest = hashlib.sha256(f"{seed} {number}".encode()).digest()
    own = int.from_bytes(digest[:4], "big")
    if sweep.method == "random":
        return RandomSampler(seed=own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant_liar was an experiment in Optuna 4
        # trials that run count as bad ones, so that several at a time are not the same
        return TPESampler(seed=own, n_startup_trials=10, constant_liar=True)


def make_pruner(early: EarlyTermination | None) -> BasePruner:
    """Return what stops bad trials.

    W&B's hyperband has a single bracket, which is successive halving: after ``min_iter`` epochs,
    then after ``eta`` times as many, one of ``eta`` trials goes on.
    """
    from optuna.pruners import NopPruner, SuccessiveHalvingPruner

    if early is None:
        return NopPruner()
    return SuccessiveHalvingPruner(
        min_resource=early.min_iter, reduction_factor=early.eta, min_early_stopping_rate=0
    )


def open_study(folder: Path, sweep: SweepFile) -> Study:
    """Return the study in the folder of a sweep, a new one where there is none.

    Several processes may have it open, also on several machines.
    """
    import optuna
    from optuna.samplers import RandomSampler
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / JOURNAL
    # a link is made whole or not at all on network file systems too
    lock = JournalFileSymlinkLock(str(path), grace_period=PATIENCE)
    _drop_half_line(path, lock)
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(path), lock_obj=lock)),
        study_name=folder.name,
        direction="maximize",
        sampler=RandomSampler(),  # not used: `ask` draws
        pruner=make_pruner(sweep.early),
        load_if_exists=True,
    )


def _drop_half_line(path: Path, lock: Any) -> None:  # noqa: ANN401
    """Cut off a line that was not written to its end, which would spoil the next one."""
    if not path.exists():
        return
    lock.acquire()
    try:
        contents = path.read_bytes()
        whole = contents.rfind(b"\n") + 1
        if whole < len(contents):
            with path.open("rb+") as file:
                file.truncate(whole)
    finally:
        lock.release()


def ask(study: Study, sweep: SweepFile, *, seed: int) -> FrozenTrial:
    """Return a new trial, in the state of one that runs. Only one process at a time may ask.

    Its parameters are drawn on a copy and reach the journal in one line: a killed search leaves a
    whole trial or none.

    Args:
        study: What `open_study` returned.
        sweep: The file.
        seed: Of the sweep.
    """
    import optuna

    trials = study.get_trials(deepcopy=False)
    copy = optuna.create_study(
        direction="maximize", sampler=make_sampler(sweep, seed=seed, number=len(trials))
    )
    copy.add_trials(trials)
    drawn = distributions(sweep)
    asked = copy.ask(drawn)
    study.add_trial(
        optuna.create_trial(
            state=optuna.trial.TrialState.RUNNING, params=asked.params, distributions=drawn
        )
    )
    return study.get_trials(deepcopy=False)[asked.number]


def preview(sweep: SweepFile, *, seed: int, count: int) -> list[dict[str, Value]]:
    """Return the values of the first trials, as far as they do not depend on results.

    Example:
        >>> from crosswalk.lab.sweeps.sweep_file import find_sweep_file, read_sweep_file
        >>> sweep = read_sweep_file(find_sweep_file("mmcl"))
        >>> preview(sweep, seed=1, count=2)[0].keys() == sweep.parameters.keys()
        True
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    first = 10 if sweep.method == "bayes" else sweep.grid_size or count
    return [values_of(sweep, ask(study, sweep, seed=seed).params) for _ in range(min(count, first))]
