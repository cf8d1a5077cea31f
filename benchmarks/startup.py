"""CPU seconds of the commands that answer without torch; target: below 0.5.

Usage: python benchmarks/startup.py [--repeats N]

The baseline in the same run is an `import torch`, which every peer's ``--help`` pays.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from statistics import median

COMMANDS = {
    "import torch (baseline)": ["-c", "import torch"],
    "crosswalk --help": ["-m", "crosswalk", "--help"],
    "crosswalk config show": ["-m", "crosswalk", "config", "show", "data=cuhk_pedes"],
    "an unknown key": ["-m", "crosswalk", "train", "data.bach_size=3"],
}


def cpu_seconds(arguments: list[str]) -> float:
    """Return user and system time of one process."""
    before = os.times()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    after = os.times()
    return (
        after.children_user - before.children_user + after.children_system - before.children_system
    )


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
    baseline = times["import torch (baseline)"]
    for name, seconds in times.items():
        print(f"{name:28s} {seconds:6.2f} s of CPU   {seconds / baseline:5.2f} of the baseline")


if __name__ == "__main__":
    main()
