"""What benchmarks measure, row by row, for the file that ``make bench`` writes.

A script prints for its reader what it likes, and calls `report` beside. Where the variable
``BENCHMARK_ROWS`` names a file, each row becomes a line of JSON in it; elsewhere nothing happens.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VARIABLE = "BENCHMARK_ROWS"
PACKAGES = (
    *("torch", "torchvision", "lightning", "timm", "open_clip_torch", "numpy", "scipy", "numba"),
    *("scikit-learn", "faiss-gpu", "faiss-cpu", "pillow", "torchreid", "fastreid"),
)
"""Those whose versions a number may depend on; what is not there is left out."""


def report(
    name: str,
    ours: float,
    baseline: float | None = None,
    *,
    against: str = "",
    unit: str = "s",
    at_least: float | None = None,
    at_most: float | None = None,
    note: str = "",
    items: int | None = None,
) -> bool:
    """Return whether the aim is met, true where there is none; keep the row.

    Costs are compared, of which less is better, and an aim is of one of three kinds: ``at_least``
    with a baseline, so many times less than it; ``at_most`` with a baseline, so many times it, no
    more; either without a baseline, a bound of ``ours`` itself.

    Args:
        name: What was done, with its size; unique among all scripts, with ``items`` if given.
        ours: What it costs here.
        baseline: What it costs in the other way, measured in the same run.
        against: The other way, in a few words.
        unit: Of both: "s", "CPU s", "MB", ...
        at_least: Least ratio ``baseline / ours``, or least ``ours``.
        at_most: Most ratio ``ours / baseline``, or most ``ours``.
        note: What a reader has to know beside.
        items: How many there were, of work that is measured at growing sizes under one name.
    """
    if at_most is None:
        ratio = None if baseline is None else baseline / ours
    else:
        ratio = None if baseline is None else ours / baseline
    judged = ours if ratio is None else ratio
    met = (at_least is None or judged >= at_least) and (at_most is None or judged <= at_most)
    row = {
        "name": name,
        "against": against,
        "unit": unit,
        "baseline": baseline,
        "ours": ours,
        "ratio": ratio,
        "at_least": at_least,
        "at_most": at_most,
        "met": None if at_least is None and at_most is None else met,
        "note": note,
        "items": items,
    }
    if VARIABLE in os.environ:
        with Path(os.environ[VARIABLE]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    return met


def facts() -> dict[str, Any]:
    """Return what of this machine and its software numbers depend on; neither names nor paths."""
    processor, memory = platform.processor() or platform.machine(), None
    with contextlib.suppress(OSError):  # Linux
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        processor = re.findall(r"^model name\s*: (.*)$", told, re.MULTILINE)[0]
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": memory,
        "system": f"{platform.system()} {platform.machine()}",
        "threads_per_process": os.environ.get("OMP_NUM_THREADS", "all cores"),
        "versions": versions,
    }


def commit() -> dict[str, Any]:
    """Return the commit, and whether files that git knows, but results, were changed since."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    but_results = ":(top)", ":(top,exclude,glob)**/results/**"
    return {
        "commit": git("rev-parse", "HEAD"),
        "changed": bool(git("status", "--porcelain", "-uno", "--", *but_results)),
    }


def write(path: Path, contents: Mapping[str, Any]) -> None:
    """Write a file of results whole, floats with five digits: whoever reads it sees all or none."""

    def short(value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, Mapping):
            return {key: short(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [short(each) for each in value]
        return float(f"{value:.5g}") if isinstance(value, float) else value

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(short(contents), indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)
