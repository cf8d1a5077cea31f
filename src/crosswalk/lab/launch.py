"""Runs of a table on this machine: several side by side, each a process of its own."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from crosswalk.lab.claims import Claims, Failure, arguments, last_lines, reason_of
from crosswalk.lab.plan import Plan, PlannedRun
from crosswalk.lab.pool import is_whole
from crosswalk.lab.progress import DONE, ELSEWHERE, RUNNING, Board
from crosswalk.run.processes import INTERVAL, Running, Slot, Task, run_tasks

TRAIN = (sys.executable, "-m", "crosswalk", "train")
"""The command that runs are made with."""

PATIENCE = 2.0
"""Seconds before a run that is made elsewhere is looked at again."""


class CodeChanged(RuntimeError):
    """The code is not that any more with which a table was begun."""


def run_locally(
    plan: Plan,
    slots: Sequence[Slot],
    board: Board,
    *,
    on_done: Callable[[PlannedRun], str],
    code_now: Callable[[Mapping[str, Any]], str] | None = None,
    train: Sequence[str] = TRAIN,
    interval: float = INTERVAL,
) -> list[Failure]:
    """Make the wanted runs of a table and return those that failed.

    A run that fails does not stop the others. Returns when every run is finished or has failed,
    those that other processes make included.

    Args:
        plan: The table.
        slots: Where to run.
        board: Shows it.
        on_done: Called with a run that is finished, here or elsewhere; returns what to say of it.
        code_now: Tells the digest of the code on the disk for a configuration; None: not asked
            for. No run is started with other code than the plan's.
        train: The command in front of the overrides.
        interval: Seconds between two looks.

    Raises:
        KeyboardInterrupt: At Ctrl-C or SIGTERM, after all runs were ended.
        CodeChanged: If the code was changed, after the runs that were started have ended.
    """
    local = _Local(plan, board, on_done, code_now, tuple(train))
    while True:
        run_tasks(local.next_task, slots, on_end=local.on_end, look=local.look, interval=interval)
        if local.code_changed:
            raise CodeChanged(
                "the code was changed while this table was running, and no run is started with "
                "other code than the rows before. The same command starts the table with the new "
                "code; run long tables from a clone in which nobody works."
            )
        if not local.waiting:
            return local.failures
        time.sleep(interval)  # the rest is made elsewhere
        board.look()


class _Local:
    """Decides what runs next on this machine."""

    def __init__(
        self,
        plan: Plan,
        board: Board,
        on_done: Callable[[PlannedRun], str],
        code_now: Callable[[Mapping[str, Any]], str] | None,
        train: tuple[str, ...],
    ) -> None:
        self.plan, self.board, self.on_done = plan, board, on_done
        self.code_now, self.train = code_now, train
        self.claims = Claims(plan)
        self.waiting = plan.missing()
        self.not_before: dict[str, float] = {}
        self.log_start: dict[str, int] = {}
        self.failures: list[Failure] = []
        self.code_changed = False

    def next_task(self, slot: Slot) -> Task | None:
        for run in list(self.waiting):
            if time.monotonic() < self.not_before.get(run.folder.name, 0.0):
                continue
            try:
                answer = self.claims.take(run)
            except ValueError as error:
                self.waiting.remove(run)
                self._fail(Failure(run, str(error), self.plan.pool.log(run.folder)))
                continue
            if answer == ELSEWHERE:
                self.not_before[run.folder.name] = time.monotonic() + PATIENCE
                self.board.move(run, ELSEWHERE)
                continue
            self.waiting.remove(run)
            if answer == DONE:
                self._done(run)
                continue
            if self.code_changed or self._code_has_changed(run):
                self.claims.release(run)
                self.waiting.append(run)
                return None
            return self._task(run, slot)
        return None

    def on_end(self, running: Running, status: int) -> None:
        run: PlannedRun = running.task.about
        if self.plan.pool.is_done(run.config):
            self._done(run)
        else:
            log = running.task.log
            lines = last_lines(log, start=self.log_start[run.folder.name])
            changed = "the code was changed while it ran, so it stands for no code"
            reason = changed if is_whole(run.folder) else reason_of(status)
            self._fail(Failure(run, reason, log, lines))
        self.claims.release(run)

    def look(self, running: Sequence[Running]) -> None:
        self.board.look()

    def _task(self, run: PlannedRun, slot: Slot) -> Task:
        log = self.plan.pool.log(run.folder)
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log_start[run.folder.name] = log.stat().st_size if log.exists() else 0
        where = f"on {','.join(slot.devices)}" if slot.devices else ""
        self.board.move(run, RUNNING, where)
        return Task([*self.train, *arguments(self.plan, run)], log, about=run)

    def _done(self, run: PlannedRun) -> None:
        try:
            said = self.on_done(run)
        except (OSError, ValueError) as error:
            # such as a full disk: the runs beside it go on, and the table is written at the end
            said = f"the table was not written: {error}"
        self.board.move(run, DONE, said)

    def _fail(self, failure: Failure) -> None:
        self.failures.append(failure)
        self.board.fail(failure.run, failure.reason, failure.details())

    def _code_has_changed(self, run: PlannedRun) -> bool:
        if self.code_now is not None:
            try:
                self.code_changed = self.code_now(run.config) != self.plan.pool.code_of(run.config)
            except (OSError, SyntaxError, ValueError):  # somebody is in the middle of a change
                self.code_changed = True
        return self.code_changed
