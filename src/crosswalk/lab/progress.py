"""One view of all runs of a table or a sweep: what runs, how far it is, how long is left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from types import TracebackType
from typing import Any, NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from crosswalk.lab.pool import PlannedRun
from crosswalk.run.run_folder import RunFolder
from crosswalk.run.stages import stage_folder
from crosswalk.terminal import fit

WAITING, RUNNING, ELSEWHERE, DONE, FAILED = "waiting", "running", "elsewhere", "done", "failed"
STATES = (RUNNING, ELSEWHERE, WAITING, DONE, FAILED)
"""What a run can be doing. Elsewhere: another process, perhaps of another machine, makes it."""

LOOK_INTERVAL, LINE_INTERVAL = 1.0, 60.0
"""Seconds between two looks at the runs, and between two lines where there is no terminal."""


@dataclass
class Entry:
    """What a run is doing, since when in seconds, what else is to be said, and how long it took."""

    run: PlannedRun
    state: str = WAITING
    since: float = 0.0
    note: str = ""
    took: float | None = None


UNKNOWN = "no run of a table with this method and data has ended here yet"


class Position(NamedTuple):
    """How far a run is: epochs that ended, of how many, and the last step that was logged."""

    epoch: int
    epochs: int
    step: int | None

    @property
    def fraction(self) -> float:
        """Share of the epochs that is done, in [0, 1]."""
        return min(1.0, self.epoch / self.epochs)


def position(folder: RunFolder, epochs: int) -> Position:
    """Return how far a run is, from the last line of its metrics.

    Args:
        folder: The run.
        epochs: Epochs it trains; >= 1.

    Example:
        >>> import tempfile
        >>> folder = RunFolder(Path(tempfile.mkdtemp()))
        >>> position(folder, 3)
        Position(epoch=0, epochs=3, step=None)
        >>> _ = folder.metrics_file.write_text('{"global_step": 9, "epoch": 2}' + chr(10) + '{"gl')
        >>> position(folder, 3)
        Position(epoch=1, epochs=3, step=9)
    """
    line = folder.latest_metrics()
    if line is None:
        return Position(0, epochs, None)
    ended = any(name.startswith("val/") for name in line)  # logged when its epoch has ended
    epoch = max(1, line.get("epoch") or 0)
    return Position(epoch if ended else epoch - 1, epochs, line.get("global_step"))


def epochs_of(config: Mapping[str, Any]) -> int:
    """Return how many epochs a run trains, at least 1: an evaluation takes time as well.

    Example:
        >>> epochs_of({"trainer": {"max_epochs": 0}}), epochs_of({"trainer": {"max_epochs": 60}})
        (1, 60)
    """
    return max(1, config["trainer"].get("max_epochs") or 1)


def in_words(seconds: float) -> str:
    """Return a duration as people say it.

    Example:
        >>> [in_words(seconds) for seconds in (40, 160, 7260, 180000)]
        ['40 s', '3 min', '2 h 1 min', '2 d 2 h']
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


@dataclass
class Estimates:
    """Seconds that runs take, from the best source that knows any.

    Args:
        sources: What each is called, and what it knows of a run: seconds of some like it.
    """

    sources: Sequence[tuple[str, Callable[[PlannedRun], Sequence[float]]]]
    _known: dict[str, tuple[float | None, str]] = field(default_factory=dict)

    def seconds(self, run: PlannedRun) -> tuple[float | None, str]:
        """Return how long a run takes and where that is known from; None where it is not."""
        if run.kind not in self._known:
            found = ((mean(some), source) for source, of in self.sources if (some := of(run)))
            self._known[run.kind] = next(found, (None, UNKNOWN))
        return self._known[run.kind]

    def forget(self) -> None:
        """Look again: a run has ended."""
        self._known = {}

    def total_in_words(self, runs: Iterable[PlannedRun], at_a_time: int) -> str:
        """Return how long some runs take together, and where that is known from, as a sentence.

        Args:
            runs: Runs to make.
            at_a_time: Runs side by side.
        """
        known = [self.seconds(run) for run in runs]
        if not known:
            return "Nothing is left to run."
        seconds = [value for value, _ in known if value is not None]
        if not seconds:
            return f"How long that takes is not known yet: {UNKNOWN}."
        sources = [source for value, source in known if value is not None]
        if len(seconds) < len(known):
            seconds += [mean(seconds)] * (len(known) - len(seconds))
        longest = max(sum(seconds) / at_a_time, max(seconds))
        return (
            f"That takes about {in_words(longest)}, {at_a_time} at a time (from "
            f"{' and '.join(dict.fromkeys(sources))})."
        )


class Board:
    """Shows all runs: a live view in a terminal, now and then a line elsewhere.

    Args:
        title: Of the table or sweep.
        runs: Those that are to be made, as far as they are known.
        estimates: How long they take.
        at_a_time: How many run side by side.
        already: How many were finished before.
        planned: How many are to be made, where not all of them are known yet.
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
        already: int = 0,
        planned: int = 0,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title = title
        self.estimates = estimates
        self.at_a_time = at_a_time
        self.already, self.planned = already, planned
        self.console = console or Console(stderr=True)
        self.clock = clock
        self.entries = {run.identity: Entry(run) for run in runs}
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

    def count(self, state: str) -> int:
        """Return how many runs are in a state."""
        return sum(entry.state == state for entry in self.entries.values())

    def move(self, run: PlannedRun, state: str, note: str = "") -> None:
        """Note that a run changed its state, or came to be known, and say so.

        Args:
            run: The run.
            state: One of `STATES`.
            note: What else is to be said: its result, or why it failed.
        """
        entry = self.entries.setdefault(run.identity, Entry(run))
        if (entry.state, entry.note) == (state, note):
            return
        if state == DONE:
            self.estimates.forget()
        # what was running elsewhere or waiting begins anew
        since = entry.since if state == entry.state else self.clock()
        took = since - entry.since if entry.state == RUNNING and state != RUNNING else None
        self.entries[run.identity] = Entry(run, state, since, note, took)
        if state != WAITING:
            ended = self.already + self.count(DONE) + self.count(FAILED)
            total = self.already + len(self.entries) + self._unknown()
            after = "" if took is None else f" after {in_words(took)}"
            said = f"[{ended}/{total}] {state}{after}: {run.title}"
            self._say(f"{said}{f' ({note})' if note else ''}")
        if self._live is not None:
            self._live.update(self.picture(), refresh=True)

    def fail(self, run: PlannedRun, reason: str, log: Path, lines: Sequence[str]) -> None:
        """Note that a run failed, why, and the end of what it said."""
        self.move(run, FAILED, reason)
        for line in (f"its log: {log}", *(f"| {line}" for line in lines)):
            self.say(f"  {line}")

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
        counts[DONE] += self.already
        counts[WAITING] += self._unknown()
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
            elapsed = self.clock() - entry.since if entry.state == RUNNING else 0.0
            if total is None or total < elapsed:
                unknown += 1
            else:
                left.append(total - elapsed)
        further = self._unknown()
        if unknown or (further and not totals):
            return None
        left += [mean(totals)] * further if further else []
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
        if table.rows:
            fit(table, self.console, numbers=[2, 3])
        return Group(Text(self.title, style="bold"), Text(self.summary()), table)

    def _unknown(self) -> int:
        """Return how many runs are to be made of which nothing else is known yet."""
        return max(0, self.planned - len(self.entries))

    def _total(self, entry: Entry) -> float | None:
        """Return the seconds of a whole run, by what is known of such runs or by itself."""
        seconds = self.estimates.seconds(entry.run)[0]
        total = None if seconds is None else seconds + self._beside()
        elapsed = self.clock() - entry.since
        if entry.state == RUNNING and (total is None or elapsed > total):  # or slower than others
            fraction = self.position(entry).fraction
            return elapsed / fraction if fraction > 0 else None
        return total

    def _beside(self) -> float:
        """Return the seconds that a run here takes beside its own: to start, to be collected."""
        known = (
            (entry.took, self.estimates.seconds(entry.run)[0])
            for entry in self.entries.values()
            if entry.state == DONE
        )
        more = [took - own for took, own in known if took is not None and own is not None]
        return max(0.0, mean(more)) if more else 0.0

    def _say(self, text: str) -> None:
        if self._live is None:
            self._spoke = self.clock()
        self.say(text)
