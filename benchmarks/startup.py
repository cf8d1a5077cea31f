"""CPU seconds of commands that mostly import; below 0.5 where they answer without torch.

Also of a search in a gallery from a cold start, whose target is 5, and of the commands that read
finished runs (``report``, ``compare``, ``audit``), whose target is 2: most of them are imports.
And of a training on the generated people that are its default, up to its first step: below 10.

Usage: python benchmarks/startup.py [--repeats N]

The baseline in the same run is an `import torch`, which every peer's ``--help`` pays.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from PIL import Image
from rows import report

from crosswalk.config.search import small_overrides

BASELINE = "import torch (baseline)"
COMMANDS = {
    BASELINE: ["-c", "import torch"],
    "crosswalk --help": ["-m", "crosswalk", "--help"],
    "crosswalk config show": ["-m", "crosswalk", "config", "show", "data=cuhk_pedes"],
    "an unknown key": ["-m", "crosswalk", "train", "data.bach_size=3"],
    "search --help": ["-m", "crosswalk", "search", "--help"],
    "no such gallery": ["-m", "crosswalk", "search", "nowhere", "x"],
}
WITHOUT_TORCH, OF_RUNS, COLD, FIRST_STEP = 0.5, 2.0, 5.0, 10.0
"""Most CPU seconds."""
TO_FIRST_STEP = """
import os, sys
from crosswalk.cli import main
from crosswalk.methods.rde import RDE
RDE.training_step = lambda *_: os._exit(0)
sys.exit(main(["train", "logger=csv", "trainer=cpu", "output_dir={folder}"]) or 1)
"""
"""Ends with 0 where the first training step would begin: behind imports, data and a first sweep."""


def cpu_seconds(arguments: list[str], *, check: bool = False) -> float:
    """Return user and system time of one process."""
    before = os.times()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=check)
    after = os.times()
    return (
        after.children_user - before.children_user + after.children_system - before.children_system
    )


def gallery_in(folder: Path) -> list[str]:
    """Build a gallery of a few pictures, and return the words that search it."""
    (folder / "photos").mkdir()
    for level in range(0, 256, 32):
        Image.new("RGB", (32, 96), (level, 0, 255 - level)).save(folder / f"photos/{level}.png")
    gallery = str(folder / "photos.gallery")
    words = ["-m", "crosswalk", "index", "tiny:rde", str(folder / "photos"), "--out", gallery]
    subprocess.run([sys.executable, *words], capture_output=True, check=True)
    return ["-m", "crosswalk", "search", gallery, "a woman in a red coat"]


def runs_in(folder: Path) -> dict[str, list[str]]:
    """Train two small runs of RDE, and return the words of the commands that read them."""
    runs = [str(folder / "runs" / f"rde-synthetic_pairs-{seed}") for seed in (1, 2)]
    for seed in (1, 2):
        words = ["method=rde", f"seed={seed}", f"name={seed}", f"output_dir={folder / 'runs'}"]
        words += ["logger=csv", "trainer=cpu", *small_overrides("rde")]
        subprocess.run(
            [sys.executable, "-m", "crosswalk", "train", *words], capture_output=True, check=True
        )
    out = {name: str(folder / name) for name in ("report.html", "compare.html", "suspects.csv")}
    return {
        "report of a run": ["report", runs[0], "--out", out["report.html"]],
        "compare of two runs": ["compare", *runs, "--out", out["compare.html"]],
        "audit of a run": ["audit", runs[0], "--out", out["suspects.csv"]],
    }


def main() -> None:
    """Print the median of every command and its share of the baseline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one repeat")
    options = parser.parse_args()
    repeats = 1 if options.quick else options.repeats
    times, most = {}, {}
    for name, arguments in COMMANDS.items():
        times[name] = median(cpu_seconds(arguments) for _ in range(repeats))
        most[name] = WITHOUT_TORCH
    with TemporaryDirectory() as folder:
        finished = {
            **{name: (["-m", "crosswalk", *words], OF_RUNS)
               for name, words in runs_in(Path(folder)).items()},
            "a search, cold": (gallery_in(Path(folder)), COLD),
            "train to its first step": (["-c", TO_FIRST_STEP.format(folder=folder)], FIRST_STEP),
        }  # fmt: skip
        cpu_seconds(finished["train to its first step"][0], check=True)  # draws the people once
        for name, (arguments, bound) in finished.items():
            times[name] = median(cpu_seconds(arguments, check=True) for _ in range(repeats))
            most[name] = bound
    for name, seconds in times.items():
        print(
            f"{name:28s} {seconds:6.2f} s of CPU   {seconds / times[BASELINE]:5.2f} of the baseline"
        )
        if name != BASELINE:
            note = f"{seconds / times[BASELINE]:.2f} of an import of torch"
            report(f"start: {name}", seconds, unit="CPU s", at_most=most[name], note=note)


if __name__ == "__main__":
    main()
