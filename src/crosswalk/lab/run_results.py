"""What a finished run gave, with all that it takes to repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from crosswalk.run.run_folder import RunFolder


@dataclass(frozen=True)
class RunResult:
    """What one run gave for one row of a table, with all that it takes to repeat it.

    Attributes:
        row: Name of the row.
        seed: Its seed.
        overrides: Of `crosswalk train`, the seed included.
        command: The whole command.
        config: Digest of the resolved configuration.
        code: Digest of the code that the numbers depend on.
        commit: Commit of the clone; None for an installed package.
        dirty: Whether files were changed since that commit.
        versions: Of the packages that can change a number.
        hardware: The machine in words, without its name.
        data: What the data module says of itself, without where the files are.
        sessions: Start and end of every part of a run that was interrupted.
        seconds: All sessions together.
        results: Metrics as fractions by checkpoint.
        last_epoch: The last value of every ``train/`` metric.
    """

    row: str
    seed: int
    overrides: Sequence[str]
    command: str
    config: str
    code: str
    commit: str | None
    dirty: bool | None
    versions: Mapping[str, str]
    hardware: Mapping[str, Any]
    data: Mapping[str, Any] | None
    sessions: Sequence[Mapping[str, Any]]
    seconds: float
    results: Mapping[str, Mapping[str, Any]]
    last_epoch: Mapping[str, Any]


def run_result(
    folder: RunFolder, *, row: str, seed: int, overrides: Sequence[str], command: str
) -> RunResult:
    """Return what a finished run gave.

    Args:
        folder: The run.
        row: Name of the row that it is read for.
        seed: Its seed.
        overrides: Of the run.
        command: What repeats it.
    """
    record, lines = folder.record(), folder.metrics()
    return RunResult(
        row=row,
        seed=seed,
        overrides=list(overrides),
        command=command,
        config=folder.name.split("-")[-2],
        code=record["code"],
        commit=record["commit"],
        dirty=record.get("dirty"),
        versions=record["versions"],
        hardware=without(record["hardware"], "host"),
        data=without(record.get("data"), "root", "notices"),
        sessions=record["sessions"],
        seconds=round(total_seconds(record["sessions"], [line["time"] for line in lines])),
        results=folder.results(),
        last_epoch={
            name: value
            for line in lines
            for name, value in line.items()
            if name.startswith("train/")
        },
    )


def without(content: Any, *keys: str) -> Any:  # noqa: ANN401
    """Return nested mappings without some keys, wherever they are.

    Example:
        >>> without({"source": {"root": "/datasets", "dataset": "toy"}}, "root")
        {'source': {'dataset': 'toy'}}
    """
    if not isinstance(content, Mapping):
        return content
    return {name: without(each, *keys) for name, each in content.items() if name not in keys}


def total_seconds(sessions: Sequence[Mapping[str, Any]], logged: Sequence[float] = ()) -> float:
    """Return the duration of all sessions of a run; a killed one lasted until it last logged.

    Args:
        sessions: ``started`` and ``ended`` as ISO times; ``ended`` is None after a kill.
        logged: When something was logged, in seconds since 1970.

    Example:
        >>> begin, end = "2026-01-01T10:00:00+00:00", "2026-01-01T10:02:00+00:00"
        >>> total_seconds([{"started": begin, "ended": end}])
        120.0
    """
    total = 0.0
    starts = [datetime.fromisoformat(session["started"]).timestamp() for session in sessions]
    for number, (session, start) in enumerate(zip(sessions, starts, strict=True)):
        if session.get("ended") is not None:
            total += datetime.fromisoformat(session["ended"]).timestamp() - start
            continue
        following = starts[number + 1] if number + 1 < len(starts) else float("inf")
        within = [time for time in logged if start <= time <= following]
        total += max(within, default=start) - start
    return total
