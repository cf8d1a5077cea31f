"""All benchmarks, one after the other: python -m benchmarks [--quick]."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NAMES = ("startup", "ranking", "input_pipeline", "training_step")


def main() -> int:
    """Run every benchmark in a process of its own and return the first status that is not 0."""
    status = 0
    for name in NAMES:
        print(f"\n=== benchmarks/{name}.py", flush=True)
        script = Path(__file__).with_name(f"{name}.py")
        status = status or subprocess.run([sys.executable, str(script), *sys.argv[1:]]).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
