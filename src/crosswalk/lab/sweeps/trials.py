"""The trials of a local sweep: each is a run of its own, followed by its metrics file."""

from __future__ import annotations

import math
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crosswalk.files import lock
from crosswalk.lab.sweeps.claims import Claims
from crosswalk.lab.sweeps.local_sweep import LocalSweep, trial_name
from crosswalk.lab.sweeps.parameters import Value
from crosswalk.lab.sweeps.run_metrics import TAIL, end_of, epoch_values, missing_metric
from crosswalk.lab.sweeps.search import ask, open_study, values_of
from crosswalk.run.processes import Running, Slot, Task, run_tasks

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

FAILURES = 3
"""Trials that may fail in a row before the sweep gives up."""

INTERRUPTIONS = 5
"""Times that a trial is continued after something else has ended it."""

ENDED_FROM_OUTSIDE = (-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT)


@dataclass
class _Followed:
    """A trial that this worker runs."""

    trial: Trial
    log: Path
    values: Mapping[str, Value]
    is_pruned: bool = False
    size: int = -1


class Worker:
    """Takes trials from a study and runs them, several at a time, until there are no more.

    Any number of workers may share the folder of a sweep. A trial of a worker that is gone is
    continued by the next one. Results are those of one uninterrupted worker where one trial runs
    at a time; with several, a proposal depends on which trials were finished when it was made.

    Args:
        sweep: What to do.
        slots: Where trials run.
        say: Called with a line for the user.
        claims: Which trials are this worker's.
        interval: Seconds between two looks at the runs.
    """

    def __init__(
        self,
        sweep: LocalSweep,
        slots: Sequence[Slot],
        *,
        say: Callable[[str], None] = print,
        claims: Claims | None = None,
        interval: float = 0.2,
    ) -> None:
        self.sweep = sweep
        self.slots = slots
        self.say = say
        self.claims = claims or Claims(sweep.folder / "claims")
        self.interval = interval
        self.failures = 0
        self._study = open_study(sweep.folder, sweep.file)

    def run(self) -> None:
        """Run until nothing is left that this worker could do.

        Raises:
            ChildProcessError: If `FAILURES` trials failed one after the other.
            KeyboardInterrupt: At Ctrl-C or SIGTERM; unfinished trials are continued next time.
        """
        told = False
        while True:
            run_tasks(
                self._next_task,
                self.slots,
                on_end=self._on_end,
                look=self._look,
                interval=self.interval,
            )
            if self.failures >= FAILURES:
                raise ChildProcessError(
                    f"{FAILURES} trials failed one after the other. The reason is likely the same: "
                    f"see the end of {self.sweep.folder / 'logs'}/*.log. Later trials were not "
                    "started; the same command goes on with them."
                )
            if not self._others_run():
                return
            if not told:
                told = True
                self.say("Waiting for trials of other workers, to continue them if those are gone.")
            time.sleep(self.interval)

    def _trials(self, *states: str) -> list[FrozenTrial]:
        trials = self._study.get_trials(deepcopy=False)
        return [each for each in trials if not states or each.state.name in states]

    def _others_run(self) -> bool:
        """Return whether a trial runs elsewhere that may have to be continued here."""
        return bool(self._trials("RUNNING")) and not self._is_over()

    def _is_over(self) -> bool:
        target = self.sweep.file.target
        return target is not None and any(
            each.value is not None and each.value >= target for each in self._trials("COMPLETE")
        )

    def _next_task(self, slot: Slot) -> Task | None:
        while self.failures < FAILURES:
            trial = self._take()
            if trial is None:
                return None
            followed = self._follow(trial)
            folder = self.sweep.run_folder(trial.number)
            if folder is not None and folder.is_finished:  # killed before it was noted
                self._finish(followed, 0)
                continue
            if folder is not None and not folder.config_file.exists():
                shutil.rmtree(folder.path)  # killed before anything was in it
                folder = None
            command = self.sweep.command(trial.number, followed.values, resume=folder is not None)
            verb = "starts" if folder is None else "goes on"
            self.say(f"trial {trial.number} {verb}: {_listed(followed.values)}")
            return Task(command, followed.log, about=followed)
        return None

    def _take(self) -> FrozenTrial | None:
        """Return a trial that is this worker's now: one that was left alone, or a new one."""
        with lock(self.sweep.folder / "take.lock"):
            for trial in self._trials("RUNNING"):
                if self.claims.holds(trial.number):
                    continue
                if self.claims.take(trial.number):
                    folder = self.sweep.run_folder(trial.number)
                    if folder is None or not folder.is_in_use():
                        return trial
                    self.claims.release(trial.number)  # its process is about to end
            if len(self._trials()) >= self.sweep.num_trials or self._is_over():
                return None
            trial = ask(self._study, self.sweep.file, seed=self.sweep.seed)
            if not self.claims.take(trial.number):
                raise RuntimeError(f"trial {trial.number} was taken before it was there")
            return trial

    def _follow(self, trial: FrozenTrial) -> _Followed:
        from optuna.trial import Trial

        return _Followed(
            Trial(self._study, trial._trial_id),
            self.sweep.folder / "logs" / f"{trial_name(trial.number)}.log",
            values_of(self.sweep.file, trial.params),
        )

    def _look(self, running: Sequence[Running]) -> None:
        self.claims.beat()
        for each in running:
            followed: _Followed = each.task.about
            if not followed.is_pruned and self._report(followed):
                followed.is_pruned = True
                each.stop()

    def _report(self, followed: _Followed) -> bool:
        """Tell the study what was measured since; return whether the trial should stop."""
        folder = self.sweep.run_folder(followed.trial.number)
        if folder is None or not folder.metrics_file.exists():
            return False
        size = folder.metrics_file.stat().st_size
        if size == followed.size:
            return False
        followed.size = size
        frozen = self._study.get_trials(deepcopy=False)[followed.trial.number]
        early = self.sweep.file.early
        for epochs, value in epoch_values(folder, self.sweep.file.metric).items():
            if epochs in frozen.intermediate_values:
                continue
            followed.trial.report(value, epochs)
            judged = early is not None and (early.max_iter is None or epochs < early.max_iter)
            if judged and followed.trial.should_prune():
                return True
        return False

    def _on_end(self, running: Running, status: int) -> None:
        followed: _Followed = running.task.about
        followed.size = -1
        if not followed.is_pruned:
            # by epochs that were not looked at yet; a trial that crashed has failed, though
            followed.is_pruned = self._report(followed) and status == 0
        self._finish(followed, status, seconds=time.monotonic() - running.started)

    def _finish(self, followed: _Followed, status: int, *, seconds: float = 0.0) -> None:
        from optuna.trial import TrialState

        trial = followed.trial
        number, attributes = trial.number, trial.user_attrs
        folder = self.sweep.run_folder(number)
        values = {} if folder is None else epoch_values(folder, self.sweep.file.metric)
        finite = {epochs: value for epochs, value in values.items() if math.isfinite(value)}
        trial.set_user_attr("seconds", attributes.get("seconds", 0.0) + seconds)
        if folder is not None:
            trial.set_user_attr("folder", folder.name)
            trial.set_user_attr("code", folder.record().get("code"))
        stopped = attributes.get("interruptions", 0)
        if followed.is_pruned:
            epochs = max(self._study.get_trials(deepcopy=False)[number].intermediate_values)
            trial.set_user_attr("epoch", epochs)
            self._study.tell(number, state=TrialState.PRUNED)
            self.say(
                f"trial {number} stopped early: {self._shown(values[epochs])} after epoch "
                f"{epochs}, others were better"
            )
        elif status in ENDED_FROM_OUTSIDE and stopped < INTERRUPTIONS:
            trial.set_user_attr("interruptions", stopped + 1)
            self.say(f"trial {number} was interrupted")
        elif status == 0 and finite:
            best = max(finite, key=lambda epochs: (finite[epochs], -epochs))
            trial.set_user_attr("epoch", best)
            self._study.tell(number, finite[best])
            self._say_finished(number, finite[best], best)
        else:
            reason = end_of(followed.log)
            if status == 0:
                reason = missing_metric(folder, self.sweep.file.metric)
            elif status < 0:
                reason = f"killed by signal {-status} (out of memory?)\n{reason}"
            trial.set_user_attr("error", reason)
            self._study.tell(number, state=TrialState.FAIL)
            self.say(f"trial {number} failed; {followed.log} ends with:\n{_indented(reason)}")
            self.failures += 1
            self.claims.release(number)
            return
        self.failures = 0
        self.claims.release(number)

    def _say_finished(self, number: int, value: float, epoch: int) -> None:
        done = [each for each in self._trials() if each.state.is_finished()]
        best = self._study.best_trial
        first = "the best so far" if best.number == number else f"best {self._shown(best.value)}"
        self.say(
            f"trial {number} ended: {self._shown(value)} after epoch {epoch}, {first} "
            f"(trial {best.number}); {len(done)} of {self.sweep.num_trials} done"
        )

    def _shown(self, value: float | None) -> str:
        return "-" if value is None else f"{self.sweep.file.metric} {100 * value:.2f}"


def _listed(values: Mapping[str, Value]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines()[-TAIL:])
