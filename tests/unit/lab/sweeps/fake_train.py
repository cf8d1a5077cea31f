"""Stands in for ``crosswalk train``: takes its overrides, leaves what a run leaves, and is quick.

Each epoch measures ``quality * (1 - 0.5 ** epochs)``. A run goes on where it was, as a real one.

Overrides that say how it behaves: ``quality``, ``epochs`` (4), ``pause`` in seconds per epoch (0),
``fail`` (at once: status 1), ``metric`` (val/rank1), ``hold`` (a file: no epoch begins after the
first until it is there), ``stuck_from`` (trials from this number on never begin a second epoch).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from crosswalk.files import write_text
from crosswalk.run.processes import end_with_parent
from crosswalk.run.run_folder import (
    RunFolder,
    create_run_folder,
    find_run_to_resume,
)

NOW = "2026-01-01T10:00:00+00:00"


def config_of(words: Iterable[str]) -> dict[str, Any]:
    """Return the configuration of a run with these overrides."""
    given = dict(word.lstrip("+-").split("=", 1) for word in words)
    choices = {"method": "fake", "data": "toy", "logger": "csv"}
    return {**given, "choices": choices, "trainer": {"max_epochs": 2, "devices": 1}}


def main(words: list[str]) -> int:
    end_with_parent()
    given = dict(word.lstrip("+-").split("=", 1) for word in words)
    config = config_of(word for word in words if not word.startswith("resume="))
    opens = find_run_to_resume if given.get("resume") == "true" else create_run_folder
    folder = opens(Path(given["output_dir"]), "fake", "toy", name=given["name"], config=config)
    if given.get("fail") == "at once" or float(given.get("quality", 0)) < 0:
        print("no such loss", file=sys.stderr)
        return 1
    sessions = [*folder.record().get("sessions", []), {"started": NOW, "ended": NOW}]
    record = {"status": "running", "code": "c0de", "sessions": sessions}
    write_text(folder.record_file, json.dumps(record))
    train(folder, given)
    write_text(folder.results_file, "{}")
    write_text(folder.record_file, json.dumps({**record, "status": "finished"}))
    return 0


def train(folder: RunFolder, given: dict[str, str]) -> None:
    state = folder.path / "done.txt"
    done = int(state.read_text()) if state.exists() else 0
    for epoch in range(done, int(given.get("epochs", 4))):
        value = float(given.get("quality", 0.5)) * (1 - 0.5 ** (epoch + 1))
        line = {"step": epoch, "epoch": epoch, "time": 0, given.get("metric", "val/rank1"): value}
        with folder.metrics_file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        write_text(state, str(epoch + 1))
        time.sleep(float(given.get("pause", 0)))
        stuck = int(given["name"][-3:]) >= int(given.get("stuck_from", 1000))
        while stuck or ("hold" in given and not Path(given["hold"]).exists()):
            time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
