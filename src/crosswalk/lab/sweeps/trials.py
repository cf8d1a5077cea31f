"""The trials of a local sweep: each is a run of its own, proposed by a study that follows it."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosswalk.config.compose import compose
from crosswalk.config.plain import to_plain
from crosswalk.config.words import did_you_mean
from crosswalk.files import lock
from crosswalk.lab.claims import OURS, Claims
from crosswalk.lab.local import TRAIN, End, Work
from crosswalk.lab.pool import PlannedRun, is_whole, seconds_of, stem
from crosswalk.lab.progress import DONE, FAILED, WAITING, Board, Estimates
from crosswalk.lab.sweeps.parameters import Value, short
from crosswalk.lab.sweeps.search import ask, open_study, values_of
from crosswalk.lab.sweeps.sweep_file import SweepFile
from crosswalk.run.run_folder import PLACE, RunFolder

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial
    from rich.console import Console

FAILURES = 3
"""Trials that may fail in a row before the sweep gives up."""

INTERRUPTIONS = 5
"""Times that a trial is continued after something else has ended it."""

ENDED_FROM_OUTSIDE = (-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT)
"""Statuses of a process that something else has ended."""


def configuration(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the plain configuration of a run."""
    return to_plain(compose(overrides))


@dataclass(frozen=True)
class LocalSweep:
    """A sweep on this machine, or on several that share its folder.

    Attributes:
        file: What is searched.
        folder: Where everything of it lies.
        overrides: Further overrides of all trials.
        seed: Of the search.
        num_trials: Trials at most, those of earlier sessions and other workers included.
        uses_wandb: Whether the runs log to W&B.
        train: What a trial starts.
        configure: Returns the plain configuration of a trial.
    """

    file: SweepFile
    folder: Path
    overrides: tuple[str, ...]
    seed: int
    num_trials: int
    uses_wandb: bool = True
    train: Sequence[str] = TRAIN
    configure: Callable[[Sequence[str]], Mapping[str, Any]] = configuration

    @property
    def name(self) -> str:
        """The name of the sweep, which is W&B's group."""
        return self.folder.name

    def trial_overrides(self, values: Mapping[str, Value]) -> list[str]:
        """Return what repeats a trial anywhere."""
        return [*self.file.command.overrides(values), *self.overrides]

    def place(self, number: int) -> list[str]:
        """Return the overrides that put a trial where it belongs."""
        words = [f"output_dir={self.folder}", f"name={trial_name(number)}"]
        if self.uses_wandb:
            words += [f"logger.wandb.group={self.name}", "logger.wandb.job_type=trial"]
        return words


def trial_name(number: int) -> str:
    """Return the name of a trial's run.

    Example:
        >>> trial_name(7)
        'trial-007'
    """
    return f"trial-{number:03}"


@dataclass(frozen=True, eq=False, kw_only=True)
class TrialRun(PlannedRun):
    """The run of a trial.

    Attributes:
        trial: The trial in its study.
    """

    trial: Trial

    @property
    def kind(self) -> str:
        """All trials take about as long."""
        return "trial"


class Trials(Work[TrialRun]):
    """Takes trials from a study, until there are no more, and tells it what they measure.

    Any number of workers may share the folder of a sweep. A trial of a worker that is gone is
    continued by the next one. Results are those of one uninterrupted worker where one trial runs
    at a time; with several, a proposal depends on which trials were finished when it was made.

    Args:
        sweep: What to do.
        at_a_time: How many run side by side.
        claims: Which trials are this worker's; those in the folder of the sweep by default.
        console: Where they are shown; standard error by default.
    """

    def __init__(
        self,
        sweep: LocalSweep,
        *,
        at_a_time: int,
        claims: Claims | None = None,
        console: Console | None = None,
    ) -> None:
        self.sweep = sweep
        self.failures = 0
        self._study = open_study(sweep.folder, sweep.file)
        self._runs: dict[int, TrialRun] = {}
        self._stopped: set[int] = set()
        self._sizes: dict[int, int] = {}
        self._has_waited = False
        self._log: Path | None = None
        estimates = Estimates([("trials of this sweep", self._seconds)])
        board = Board(f"Sweep {sweep.name}", [], estimates, at_a_time=at_a_time, console=console)
        super().__init__(board, claims or Claims(sweep.folder / "claims"))

    def next_run(self, was_begun: Callable[[PlannedRun], bool]) -> TrialRun | None:
        """Return a trial that nobody makes: one that was left alone, or else a new one."""
        with lock(self.sweep.folder / "take.lock"):
            self._count()
            for trial in self._proposed():
                try:
                    run = self._run(trial)
                    if self.claims.holds(run.folder.name):
                        continue
                    begun = was_begun(run)
                    answer = self.claims.take_run(
                        run, is_done=lambda run: is_whole(run.folder), goes_on=begun
                    )
                except ValueError as error:
                    self._tell_failure(trial.number, str(error))
                    self.board.say(f"trial {trial.number} failed: {error}")
                    continue
                if self._trials()[trial.number].state.is_finished():
                    # its worker told the study and let it go since we asked which are running
                    if answer == OURS:
                        self.claims.release(run.folder.name)
                elif answer == OURS:
                    return run
                elif answer == DONE:  # its worker was killed before it was noted
                    self._finish(run, None)
        return None

    def should_stop(self, run: TrialRun) -> bool:
        """Return whether the study has just found a trial bad enough to be stopped."""
        if run.trial.number in self._stopped or not self._report(run):
            return False
        self._stopped.add(run.trial.number)
        return True

    def ended(self, run: TrialRun, end: End) -> None:
        """Tell the study what has become of a trial."""
        number = run.trial.number
        self._sizes.pop(number, None)
        # by epochs that were not looked at yet; a trial that crashed has failed, though
        if number not in self._stopped and self._report(run) and is_whole(run.folder):
            self._stopped.add(number)
        self._finish(run, end)
        self.claims.release(run.folder.name)

    def is_left(self) -> bool:
        """Return whether a trial runs elsewhere that may have to be continued here.

        Raises:
            ChildProcessError: If `FAILURES` trials failed one after the other.
        """
        if self.failures >= FAILURES:
            where = "" if self._log is None else f" The last one said it in {self._log}."
            raise ChildProcessError(
                f"{FAILURES} trials failed one after the other, likely for the same reason.{where} "
                "Later trials were not started; the same command goes on with them."
            )
        is_left = bool(self._trials("RUNNING")) and not self._is_over()
        if is_left and not self._has_waited:
            self._has_waited = True
            self.board.say(
                "Waiting for trials of other workers, to continue them if those are gone."
            )
        return is_left

    def _trials(self, *states: str) -> list[FrozenTrial]:
        trials = self._study.get_trials(deepcopy=False)
        return [each for each in trials if not states or each.state.name in states]

    def _is_over(self) -> bool:
        target = self.sweep.file.target
        return target is not None and any(
            each.value is not None and each.value >= target for each in self._trials("COMPLETE")
        )

    def _proposed(self) -> Iterator[FrozenTrial]:
        """Yield the trials that are to be made: those that were begun, then new ones."""
        yield from self._trials("RUNNING")
        while (
            self.failures < FAILURES
            and len(self._trials()) < self.sweep.num_trials
            and not self._is_over()
        ):
            yield ask(self._study, self.sweep.file, seed=self.sweep.seed)

    def _run(self, trial: FrozenTrial) -> TrialRun:
        """Return the run of a trial.

        Raises:
            ValueError: If its values do not fit each other.
        """
        from optuna.trial import Trial

        number = trial.number
        if number not in self._runs:
            values = values_of(self.sweep.file, trial.params)
            overrides, place = self.sweep.trial_overrides(values), self.sweep.place(number)
            config = self.sweep.configure([*overrides, *place])
            self._runs[number] = TrialRun(
                title=f"trial {number}",
                overrides=tuple(overrides),
                config=config,
                folder=RunFolder(self.sweep.folder / f"{stem(config)}-{trial_name(number)}"),
                place=tuple(place),
                note=" ".join(f"{name}={short(value)}" for name, value in values.items()),
                trial=Trial(self._study, trial._trial_id),
            )
        return self._runs[number]

    def _seconds(self, run: PlannedRun) -> list[float]:
        return [float(each.user_attrs["seconds"]) for each in self._trials("COMPLETE")]

    def _count(self) -> None:
        """Let the board know of trials that ended in earlier sessions or elsewhere."""
        ended = sum(each.state.is_finished() for each in self._trials())
        self.board.already = ended - self.board.count(DONE) - self.board.count(FAILED)
        self.board.planned = self.sweep.num_trials - self.board.already

    def _report(self, run: TrialRun) -> bool:
        """Tell the study what was measured since; return whether the trial should stop."""
        file, trial = run.folder.metrics_file, run.trial
        size = file.stat().st_size if file.exists() else 0
        if size == self._sizes.get(trial.number, 0):
            return False
        self._sizes[trial.number] = size
        known = self._trials()[trial.number].intermediate_values
        early = self.sweep.file.early
        for epochs, value in epoch_values(run.folder, self.sweep.file.metric).items():
            if epochs in known:
                continue
            trial.report(value, epochs)
            judged = early is not None and (early.max_iter is None or epochs < early.max_iter)
            if judged and trial.should_prune():
                return True
        return False

    def _finish(self, run: TrialRun, end: End | None) -> None:
        """Note what a trial gave, or why it gave nothing.

        Args:
            run: Its run.
            end: How that ended; None: well, and some time ago.
        """
        from optuna.trial import TrialState

        trial, folder, metric = run.trial, run.folder, self.sweep.file.metric
        number, interruptions = trial.number, trial.user_attrs.get("interruptions", 0)
        values = epoch_values(folder, metric)
        finite = {epochs: value for epochs, value in values.items() if math.isfinite(value)}
        trial.set_user_attr("seconds", seconds_of(folder))
        trial.set_user_attr("folder", folder.name)
        trial.set_user_attr("code", folder.record().get("code"))
        if number in self._stopped:
            epochs = max(self._trials()[number].intermediate_values)
            trial.set_user_attr("epoch", epochs)
            self._study.tell(number, state=TrialState.PRUNED)
            found = f"{self._shown(values[epochs])} after epoch {epochs}"
            self.board.move(run, DONE, f"stopped early: {found}, others were better")
        elif is_whole(folder) and finite:
            best = max(finite, key=lambda epochs: (finite[epochs], -epochs))
            trial.set_user_attr("epoch", best)
            self._study.tell(number, finite[best])
            self.board.move(run, DONE, self._found(number, finite[best], best))
        elif end is not None and end.status in ENDED_FROM_OUTSIDE and interruptions < INTERRUPTIONS:
            trial.set_user_attr("interruptions", interruptions + 1)
            self.board.move(run, WAITING)
            self.board.say(f"{run.title} was interrupted")
        else:
            said: tuple[str, ...] = ()
            reason = missing_metric(folder, metric)
            if end is not None and not is_whole(folder):
                reason, said = end.reason, end.lines
            self._log = run.log if end is None else end.log
            self._tell_failure(number, "\n".join([reason, *said]))
            self.board.fail(run, reason, self._log, said)
            return
        self.failures = 0

    def _tell_failure(self, number: int, reason: str) -> None:
        from optuna.trial import Trial, TrialState

        self.failures += 1
        trial = Trial(self._study, self._trials()[number]._trial_id)
        trial.set_user_attr("error", reason)
        self._study.tell(number, state=TrialState.FAIL)

    def _found(self, number: int, value: float, epoch: int) -> str:
        best = self._study.best_trial
        rank = "the best so far"
        if best.number != number:
            rank = f"best {self._shown(best.value)}, trial {best.number}"
        return f"{self._shown(value)} after epoch {epoch}, {rank}"

    def _shown(self, value: float | None) -> str:
        return "-" if value is None else f"{self.sweep.file.metric} {100 * value:.2f}"


def epoch_values(folder: RunFolder, metric: str) -> dict[int, float]:
    r"""Return the value of a metric after each number of epochs, in order.

    Example:
        >>> import tempfile
        >>> run = RunFolder(Path(tempfile.mkdtemp()))
        >>> _ = run.metrics_file.write_text('{"global_step": 9, "epoch": 1, "val/map": 0.25}\n')
        >>> epoch_values(run, "val/map")
        {1: 0.25}
    """
    values: dict[int, float] = {}
    for line in folder.metrics():
        if metric in line and line["epoch"] is not None:
            values.setdefault(line["epoch"], float(line[metric]))
    return dict(sorted(values.items()))


def missing_metric(folder: RunFolder, metric: str) -> str:
    """Return why a run that ended well has no value of a metric."""
    names = sorted({name for line in folder.metrics() for name in line} - set(PLACE))
    near = did_you_mean(metric, names)
    return f"{folder.metrics_file} has no finite {metric}.{near} It has {', '.join(names)}."
