"""Checks golden files: ``python tests/golden/run.py [--dir FOLDER] [--methods rde,mmcl]``.

Every ``.npz`` under ``FOLDER/<method>/`` is one case, except those that only accompany one. Prints
a line per case that did not pass and ends with ``golden: N passed, M failed, K unknown``; a case
without an adapter is unknown. The status is 0 only if all passed.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.golden.harness import DATA, load_adapters, run_folder


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check golden files of the published methods.")
    parser.add_argument("--dir", default="", help="folder of <method>/*.npz; empty: the committed")
    parser.add_argument("--methods", default="", help="comma-separated; empty: every sub-folder")
    options = parser.parse_args(arguments)
    folder = Path(options.dir) if options.dir.strip() else DATA
    methods = [name.strip() for name in options.methods.split(",") if name.strip()]
    if not methods and folder.is_dir():
        methods = sorted(path.name for path in folder.iterdir() if path.is_dir())
    missing = [str(folder / method) for method in methods if not (folder / method).is_dir()]
    if missing or not methods:
        print(
            f"no golden files: {', '.join(missing) or folder} is not there. GOLDEN_DIR names a "
            "folder with one sub-folder per method, GOLDEN_METHODS some of those.",
            file=sys.stderr,
        )
        return 2

    for problem in load_adapters(methods):
        print(f"IMPORT  {problem}")
    count: Counter[str] = Counter()
    for result in run_folder(folder, methods):
        count[result.outcome] += 1
        if result.outcome != "passed":
            name = result.path.relative_to(folder)
            print(f"{result.outcome.upper():<7} {name}: {result.reason}", flush=True)
    print(
        f"golden: {count['passed']} passed, {count['failed']} failed, {count['unknown']} unknown",
        flush=True,
    )
    return 1 if count["failed"] + count["unknown"] else 0


if __name__ == "__main__":
    torch.set_num_threads(1)  # the cases are small
    sys.exit(main())
