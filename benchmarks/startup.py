"""CPU seconds of the commands that answer without torch; target: below 0.5.

And of a search in a gallery from a cold start, whose target is 5: most of it are imports.

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

COMMANDS = {
    "import torch (baseline)": ["-c", "import torch"],
    "crosswalk --help": ["-m", "crosswalk", "--help"],
    "crosswalk config show": ["-m", "crosswalk", "config", "show", "data=cuhk_pedes"],
    "an unknown key": ["-m", "crosswalk", "train", "data.bach_size=3"],
    "search --help": ["-m", "crosswalk", "search", "--help"],
    "no such gallery": ["-m", "crosswalk", "search", "nowhere", "x"],
}
SEARCH = "a search, cold"


def cpu_seconds(arguments: list[str]) -> float:
    """Return user and system time of one process."""
    before = os.times()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
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


def main() -> None:
    """Print the median of every command and its share of the baseline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one repeat")
    options = parser.parse_args()
    repeats = 1 if options.quick else options.repeats
    times = {
        name: median(cpu_seconds(arguments) for _ in range(repeats))
        for name, arguments in COMMANDS.items()
    }
    with TemporaryDirectory() as folder:
        query = gallery_in(Path(folder))
        times[SEARCH] = median(cpu_seconds(query) for _ in range(repeats))
    baseline = times["import torch (baseline)"]
    for name, seconds in times.items():
        print(f"{name:28s} {seconds:6.2f} s of CPU   {seconds / baseline:5.2f} of the baseline")


if __name__ == "__main__":
    main()
