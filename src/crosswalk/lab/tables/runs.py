"""Makes the missing runs of a table: what was begun goes on, what is finished stays."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from crosswalk.lab.claims import OURS, Claims
from crosswalk.lab.local import End, Work
from crosswalk.lab.pool import PlannedRun, is_whole
from crosswalk.lab.progress import DONE, ELSEWHERE, Board
from crosswalk.lab.tables.plan import Plan, TableRun, at_home

PATIENCE = 2.0
"""Seconds before a run that is made elsewhere is looked at again."""


class CodeChanged(RuntimeError):
    """The code is not that any more with which a table was begun."""


class Failure(NamedTuple):
    """A run that ended without results, why, and what it said."""

    run: TableRun
    reason: str
    log: Path
    lines: tuple[str, ...] = ()


class TableRuns(Work[TableRun]):
    """The missing runs of a table, in the order of its plan. One that fails stops no other.

    Args:
        plan: The table.
        board: Shows it.
        on_done: Called with a run that is finished, here or elsewhere; returns what to say of it.
        code_now: Tells the digest of the code on the disk for a configuration; None: not asked
            for. No run is started with other code than the plan's.
        claims: The runs that are ours; those of the plan's pool by default.
    """

    def __init__(
        self,
        plan: Plan,
        board: Board,
        *,
        on_done: Callable[[TableRun], str],
        code_now: Callable[[Mapping[str, Any]], str] | None = None,
        claims: Claims | None = None,
    ) -> None:
        super().__init__(board, claims or Claims(plan.pool.path / "claims"))
        self.plan, self.on_done, self.code_now = plan, on_done, code_now
        self.waiting = plan.missing()
        self.failures: list[Failure] = []
        self._not_before: dict[str, float] = {}
        self._code_changed = False

    def next_run(self, was_begun: Callable[[PlannedRun], bool]) -> TableRun | None:
        """Return the next run that nobody else makes, with the code of the plan."""
        for waiting in list(self.waiting):
            name = waiting.identity
            if time.monotonic() < self._not_before.get(name, 0.0):
                continue
            run = waiting
            try:
                run = at_home(self.plan.pool, waiting)
                self.waiting[self.waiting.index(waiting)] = run
                begun = was_begun(run)
                answer = self.claims.take_run(run, is_done=self._is_done, goes_on=begun)
                if answer == OURS and at_home(self.plan.pool, run) is not run:
                    self.claims.release(name)  # begun elsewhere meanwhile: looked at there next
                    continue
            except ValueError as error:
                if self.claims.holds(name):
                    self.claims.release(name)
                self.waiting.remove(run)
                self._fail(Failure(run, str(error), run.log))
                continue
            if answer == ELSEWHERE:
                self._not_before[name] = time.monotonic() + PATIENCE
                self.board.move(run, ELSEWHERE)
            elif answer == DONE:
                self.waiting.remove(run)
                self._done(run)
            elif answer == OURS and is_whole(run.folder):
                self.waiting.remove(run)
                self.claims.release(name)
                other = run.folder.record().get("code")
                reason = (
                    f"{run.folder.path} was finished by other code ({other}) than its name says. "
                    "Move or delete it and start again."
                )
                self._fail(Failure(run, reason, run.log))
            elif not begun and self._has_other_code(run):
                self.claims.release(name)
                return None
            else:
                self.waiting.remove(run)
                return run
        return None

    def ended(self, run: TableRun, end: End) -> None:
        """Write the table anew, or note why a run has no results."""
        if self.plan.pool.is_done(run.config):
            self._done(run)
        else:
            changed = "the code was changed while it ran, so it stands for no code"
            reason = changed if is_whole(run.folder) else end.reason
            self._fail(Failure(run, reason, end.log, end.lines))
        self.claims.release(run.identity)

    def is_left(self) -> bool:
        """Return whether runs are left, which are made elsewhere.

        Raises:
            CodeChanged: If the code was changed, so that no other run is started.
        """
        if self._code_changed:
            raise CodeChanged(
                "the code was changed while this table was running, and no run is started with "
                "other code than the rows before. The same command starts the table with the new "
                "code; run long tables from a clone in which nobody works."
            )
        return bool(self.waiting)

    def _is_done(self, run: PlannedRun) -> bool:
        run.folder.record()  # one that is damaged fails this run before it is begun
        return self.plan.pool.is_done(run.config)

    def _done(self, run: TableRun) -> None:
        try:
            said = self.on_done(run)
        except (OSError, ValueError) as error:
            # such as a full disk: the runs beside it go on, and the table is written at the end
            said = f"the table was not written: {error}"
        self.board.move(run, DONE, said)

    def _fail(self, failure: Failure) -> None:
        self.failures.append(failure)
        self.board.fail(*failure)

    def _has_other_code(self, run: TableRun) -> bool:
        if self.code_now is not None and not self._code_changed:
            try:
                code = self.code_now(run.config)
            except (OSError, SyntaxError, ValueError):  # somebody is in the middle of a change
                code = ""
            self._code_changed = code != self.plan.pool.code_of(run.config)
        return self._code_changed
