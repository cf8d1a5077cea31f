"""Runs all benchmarks one after the other, and keeps their rows: what ``make bench`` calls.

Usage: python benchmarks/run.py [--quick] [--only NAME ...] [--again NAME ...] [--out FILE]

Each script runs in a process of its own, with all cores, and compares its results with those of the
other way; one that differs, or fails, makes this program end with 1 after the others have run. An
aim that is missed is a row of the table, and no failure. The file of results holds the machine and
its software, how busy it was, and every row; it is written anew after each script, so that a run
that is stopped leaves what it has. ``--again`` puts scripts into the file of an earlier run, each
with the commit that it is of.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rows

FOLDER = Path(__file__).parent
SCRIPTS: dict[str, list[str]] = {
    "ranking": ["--msmt17", "--repeats", "2"],
    "reranking": ["--full"],
    "clustering": ["--size", "market"],
    "growth": ["--sizes", "12500", "25000", "50000", "100000"],
    "input_pipeline": [],
    "training_step": ["--rounds", "2"],
    "label_prediction": [],
    "mar_losses": [],
    "processes": ["--steps", "10", "--methods", "mmcl", "cm_moco", "rde"],
    "text_iou": [],
    "readers": [],
    "gallery": ["--rows", "50000"],
    "serve": [],
    "startup": ["--repeats", "3"],
}
"""In order, with the arguments by which all fit into 20 minutes; each takes ``--quick`` too."""


def children_cpu() -> float:
    """Return the processor time of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(name: str, arguments: list[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return how a script ended, and its rows."""
    print(f"== {' '.join(['benchmarks/' + name + '.py', *arguments])}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows")
        file.touch()
        start, cpu, load = time.monotonic(), children_cpu(), os.getloadavg()[0]
        ended = subprocess.run(
            [sys.executable, str(FOLDER / f"{name}.py"), *arguments],
            env={**os.environ, rows.VARIABLE: str(file)},
            check=False,
        )
        outcome = {
            "arguments": arguments,
            "exit": ended.returncode,
            "seconds": time.monotonic() - start,
            "cpu_seconds": children_cpu() - cpu,
            "load_before": load,
        }
        found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return outcome, [{"script": name, **row} for row in found]


def main(arguments: list[str] | None = None) -> int:
    """Run them; return 1 if any failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that all run")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, metavar="NAME", help="some of them")
    parser.add_argument("--again", nargs="+", choices=SCRIPTS, metavar="NAME", help="into the file")
    parser.add_argument("--out", type=Path, help="file of results; without it a whole run's own")
    options = parser.parse_args(arguments)
    out = options.out
    if out is None and not options.quick and options.only is None:
        out = FOLDER / "results" / "bench.json"

    begun = time.monotonic()
    contents: dict[str, Any] = {
        "begun": datetime.now(UTC).isoformat(timespec="minutes"),
        **rows.commit(),
        "machine": rows.facts(),
        "quick": options.quick,
        "finished": False,
        "scripts": {},
        "rows": [],
        "seconds": 0.0,
    }
    if options.again:
        contents = json.loads(out.read_text(encoding="utf-8"))
    before = contents["seconds"]
    for name in options.again or options.only or SCRIPTS:
        outcome, found = run(name, ["--quick"] if options.quick else SCRIPTS[name])
        contents["scripts"][name] = {**outcome, **(rows.commit() if options.again else {})}
        contents["rows"] = [row for row in contents["rows"] if row["script"] != name] + found
        contents["seconds"] = before + time.monotonic() - begun
        contents["finished"] = len(contents["scripts"]) == len(SCRIPTS)
        if out is not None:
            rows.write(out, contents)

    print(f"\n{contents['seconds'] / 60:.1f} minutes; {out or 'no file'} holds the results")
    names = [f"{row['name']} {row['items'] or ''}" for row in contents["rows"]]
    failed = [name for name, each in contents["scripts"].items() if each["exit"]]
    for row in contents["rows"]:
        if row["met"] is False:
            print(f"missed: {row['name']}")
    for what, some in (
        ("two rows have one name", sorted({each for each in names if names.count(each) > 1})),
        ("failed", failed),
    ):
        if some:
            print(f"{what}: {', '.join(some)}", file=sys.stderr)
            failed = failed or some
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
