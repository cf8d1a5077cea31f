"""What a run has measured so far, read from the files in its folder."""

from __future__ import annotations

from pathlib import Path

from crosswalk.config.constructors import did_you_mean
from crosswalk.run.run_folder import RunFolder

ALWAYS = {"step", "epoch", "time"}
"""Not measured."""

TAIL = 12
"""Lines of a log that say why a trial failed."""


def epoch_values(folder: RunFolder, metric: str) -> dict[int, float]:
    r"""Return the value of a metric after each number of epochs, in order.

    Example:
        >>> import tempfile
        >>> run = RunFolder(Path(tempfile.mkdtemp()))
        >>> _ = run.metrics_file.write_text('{"step": 9, "epoch": 0, "val/map": 0.25}\n')
        >>> epoch_values(run, "val/map")
        {1: 0.25}
    """
    values: dict[int, float] = {}
    for line in folder.metrics():
        if metric in line and line["epoch"] is not None:
            values.setdefault(1 + line["epoch"], float(line[metric]))
    return dict(sorted(values.items()))


def missing_metric(folder: RunFolder | None, metric: str) -> str:
    """Return why a run that ended well has no value of a metric."""
    if folder is None:
        return "it left no run folder"
    names = sorted({name for line in folder.metrics() for name in line} - ALWAYS)
    near = did_you_mean(metric, names)
    return f"{folder.metrics_file} has no finite {metric}.{near} It has {', '.join(names)}."


def end_of(log: Path, lines: int = TAIL) -> str:
    r"""Return the last lines of a log.

    Example:
        >>> import tempfile
        >>> log = Path(tempfile.mkdtemp()) / "log"
        >>> _ = log.write_text("one\ntwo\nthree\n")
        >>> end_of(log, 2)
        'two\nthree'
    """
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 65536))
        text = file.read().decode("utf-8", errors="replace")
    # a progress bar writes over its line
    shown = [line.rsplit("\r", 1)[-1].rstrip() for line in text.splitlines()]
    return "\n".join([line for line in shown if line][-lines:])
