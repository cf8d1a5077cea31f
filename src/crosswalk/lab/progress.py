"""One view of all runs of a table: what runs, how far it is, what is left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from crosswalk.lab.estimate import Estimates, epochs_of, in_words
from crosswalk.lab.plan import PlannedRun
from crosswalk.lab.position import Position, position
from crosswalk.run.run_folder import RunFolder
from crosswalk.run.stages import stage_folder

WAITING, RUNNING, ELSEWHERE, DONE, FAILED = "waiting", "running", "elsewhere", "done", "failed"
STATES = (RUNNING, ELSEWHERE, WAITING, DONE, FAILED)
"""What a run can be doing. Elsewhere: another process, perhaps of another machine, makes it."""

LOOK_INTERVAL, LINE_INTERVAL = 1.0, 120.0
"""Seconds between two looks at the runs, and between two lines where there is no terminal."""


@dataclass
class Entry:
    """What a run is doing, since when in seconds, and what else is to be said."""

    run: PlannedRun
    state: str = WAITING
    since: float = 0.0
    note: str = ""


class Board:
    """Shows all runs of a table: a live view in a terminal, now and then a line elsewhere.

    Args:
        title: Of the table.
        runs: All that are wanted, the finished ones too.
        estimates: How long they take.
        at_a_time: How many run side by side.
        console: Where to show it; standard error by default, as the table itself goes to standard
            output.
        clock: Seconds.
    """

    def __init__(
        self,
        title: str,
        runs: Sequence[PlannedRun],
        estimates: Estimates,
        *,
        at_a_time: int,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title = title
        self.estimates = estimates
        self.at_a_time = at_a_time
        self.console = console or Console(stderr=True)
        self.clock = clock
        self.entries = {run.folder.name: Entry(run) for run in runs}
        self._looked = self._spoke = clock()
        self._live: Live | None = None
        self._stages: dict[str, RunFolder] = {}

    def __enter__(self) -> Board:
        """Begin to show."""
        if self.console.is_terminal:
            self._live = Live(self.picture(), console=self.console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last state standing."""
        if self._live is not None:
            self._live.update(self.picture(), refresh=True)
            self._live.stop()
            self._live = None

    def already(self, run: PlannedRun) -> None:
        """Note that a run was finished before."""
        self.entries[run.folder.name] = Entry(run, DONE)

    def count(self, state: str) -> int:
        """Return how many runs are in a state."""
        return sum(entry.state == state for entry in self.entries.values())

    def move(self, run: PlannedRun, state: str, note: str = "") -> None:
        """Note that a run changed its state, and say so.

        Args:
            run: The run.
            state: One of `STATES`.
            note: What else is to be said: its result, or why it failed.
        """
        entry = self.entries[run.folder.name]
        if (entry.state, entry.note) == (state, note):
            return
        if state == DONE:
            self.estimates.forget()
        # what was running elsewhere or waiting begins anew
        since = entry.since if state == entry.state else self.clock()
        took = f" after {in_words(since - entry.since)}" if entry.state == RUNNING else ""
        self.entries[run.folder.name] = Entry(run, state, since, note)
        if state != WAITING:
            ended = self.count(DONE) + self.count(FAILED)
            said = f"[{ended}/{len(self.entries)}] {state}{took}: {run.title}"
            self._say(f"{said}{f' ({note})' if note else ''}")
        if self._live is not None:
            self._live.update(self.picture(), refresh=True)

    def fail(self, run: PlannedRun, reason: str, details: Sequence[str]) -> None:
        """Note that a run failed, why, and the end of what it said."""
        self.move(run, FAILED, reason)
        for line in details:
            self.say(line)

    def say(self, text: str) -> None:
        """Show a line above the view."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def look(self) -> None:
        """Show how far the runs are, if the last look is a while ago."""
        now = self.clock()
        if self._live is not None and now - self._looked >= LOOK_INTERVAL:
            self._looked = now
            self._live.update(self.picture(), refresh=True)
        if self._live is None and now - self._spoke >= LINE_INTERVAL:
            self._spoke = now
            running = [
                f"{entry.run.title}: {self.progress(entry)}"
                for entry in self.entries.values()
                if entry.state == RUNNING
            ]
            self.say("; ".join([self.summary(), *running]))

    def summary(self) -> str:
        """Return the counts and the remaining time in one line."""
        counts = Counter(entry.state for entry in self.entries.values())
        parts = [f"{counts[state]} {state}" for state in STATES if counts[state]]
        remaining = self.remaining()
        if counts[WAITING] + counts[RUNNING]:
            unknown = "time left not known yet"
            parts.append(unknown if remaining is None else f"about {in_words(remaining)} left")
        return ", ".join(parts)

    def remaining(self) -> float | None:
        """Return the seconds until all runs have ended; None while nothing is known of them."""
        left, unknown = [], 0
        totals = [total for entry in self.entries.values() if (total := self._total(entry))]
        for entry in self.entries.values():
            if entry.state not in (WAITING, RUNNING):
                continue
            total = self._total(entry) or (mean(totals) if totals else None)
            if total is None:
                unknown += 1
            elif entry.state == WAITING:
                left.append(total)
            else:
                left.append(max(0.0, total - (self.clock() - entry.since)))
        if unknown:
            return None
        return max(sum(left) / self.at_a_time, max(left, default=0.0))

    def position(self, entry: Entry) -> Position:
        """Return how far a run is."""
        return position(entry.run.folder, epochs_of(entry.run.config))

    def progress(self, entry: Entry) -> str:
        """Return in words how far a run is, or the stage that it starts from."""
        at = self.position(entry)
        if at.step is not None:
            return f"epoch {min(at.epoch + 1, at.epochs)}/{at.epochs}, step {at.step}"
        config = entry.run.config
        if config.get("stage") is None or config.get("checkpoint") is not None:
            return "preparing"
        name = entry.run.folder.name
        if name not in self._stages:
            place = {**config, "output_dir": str(entry.run.folder.path.parent)}
            self._stages[name] = stage_folder(place)
        stage = self._stages[name]
        at = position(stage, 1)
        if stage.is_finished or at.step is None:
            return "preparing"
        return f"its stage, epoch {at.epoch + 1}, step {at.step}"

    def picture(self) -> Group:
        """Return the whole view."""
        table = Table.grid(padding=(0, 2))
        for entry in self.entries.values():
            if entry.state == RUNNING:
                at = self.position(entry)
                table.add_row(
                    Text(entry.run.title),
                    ProgressBar(total=at.epochs, completed=at.epoch, width=20),
                    Text(self.progress(entry)),
                    Text(in_words(self.clock() - entry.since)),
                    Text(entry.note, style="dim"),
                )
            elif entry.state in (ELSEWHERE, FAILED):
                style = "red" if entry.state == FAILED else "dim"
                table.add_row(Text(entry.run.title), Text(entry.state, style=style))
        return Group(Text(self.title, style="bold"), Text(self.summary()), table)

    def _total(self, entry: Entry) -> float | None:
        """Return the seconds of a whole run, by what is known of such runs or by itself."""
        seconds = self.estimates.seconds(entry.run)[0]
        if seconds is None and entry.state == RUNNING:
            fraction = self.position(entry).fraction
            if fraction > 0:
                return (self.clock() - entry.since) / fraction
        return seconds

    def _say(self, text: str) -> None:
        if self._live is None:
            self._spoke = self.clock()
        self.say(text)
