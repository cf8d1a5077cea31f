"""Times the readers of annotations where one image has thousands of captions, or lines are many.

``python benchmarks/readers.py`` reads 5,000 captions of one image as own pairs and as entries of an
annotation, beside the comparison of every row with all before it, and the copy of all captions for
each, that the readers made at first; it prints the ratios. It fails if the results differ. It then
reads 200,000 lines of as many images, and 500,000 captions in
the layout of CUHK-PEDES with a sentence an entry, and prints time per line and peak memory.
``--quick`` takes a tenth of everything, to see that it runs.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rows import report

from crosswalk.data.readers.annotations import Entry, merge_captions
from crosswalk.data.readers.cuhk_pedes import read_cuhk_pedes
from crosswalk.data.readers.own_pairs import read_own_pairs
from crosswalk.data.readers.tables import csv_rows, read_table_text

AIM = 4.0
HEADER = "image,caption,person_id,split"


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Return the processor time of a call, and its result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def compared_with_all(path: Path) -> tuple[str, ...]:
    """Return the captions of one image, each row compared with all rows before it."""
    rows: list[dict[str, str]] = []
    for _, row in csv_rows(path, read_table_text(path), [], required=["image"], example=""):
        for first in rows:
            if first["caption"] == row["caption"]:
                raise ValueError("repeated")
            differing = [name for name in ("person_id", "split") if first[name] != row[name]]
            if differing:
                raise ValueError("contradiction")
        rows.append(row)
    return tuple(row["caption"] for row in rows)


def copied_each_time(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Return the captions of one image, copied whenever one is added."""
    merged: dict[tuple[str, int], Entry] = {}
    for entry in entries:
        first = merged.setdefault((entry.name, entry.person_id), entry)
        if first is not entry:
            merged[entry.name, entry.person_id] = replace(
                first, captions=first.captions + entry.captions
            )
    [one] = merged.values()
    return one.captions


def write_pairs(path: Path, number: int, images: int) -> Path:
    rows = (f"{n % images}.jpg,A man in coat {n}.,{n % images},train" for n in range(number))
    path.write_text("\n".join([HEADER, *rows]))
    return path


def write_cuhk(folder: Path, number: int) -> Path:
    (folder / "annotations").mkdir(parents=True)
    (folder / "imgs").mkdir()
    for name, share in (("train", 0.9), ("val", 0.05), ("test", 0.05)):
        entries = [
            {
                "id": 1 + n // 4,
                "file_path": f"cam_a/{name}{n // 2}.jpg",
                "sentence": f"The man number {n} wears a long red coat and carries a black bag.",
            }
            for n in range(int(share * number))
        ]
        (folder / "annotations" / f"{name}.json").write_text(json.dumps(entries))
    return folder


def compare(what: str, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
    slow, expected = timed(theirs)
    fast, found = timed(ours)
    if found != expected:
        sys.exit(f"{what}: the results differ")
    print(f"{what}: {slow:.2f} s before, {fast:.3f} s now, {slow / fast:.0f}x")
    report(what, fast, slow, against="every row with all before it", unit="CPU s", at_least=AIM)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    quick = parser.parse_args().quick
    many, lines, captions = (n // (10 if quick else 1) for n in (5_000, 200_000, 500_000))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = write_pairs(folder / "one.csv", many, images=1)
        entries = [Entry("a.jpg", 3, (f"A man {n}.",), "train", "f.json") for n in range(many)]
        compare(
            f"{many:,} captions of one image, own pairs",
            lambda: read_own_pairs(one).train[0].captions,
            lambda: compared_with_all(one),
        )
        compare(
            f"{many:,} captions of one image, entries of an annotation",
            lambda: merge_captions(entries)[0].captions,
            lambda: copied_each_time(entries),
        )
        table = write_pairs(folder / "many.csv", lines, images=lines)
        seconds, _ = timed(lambda: read_own_pairs(table))
        print(
            f"{lines:,} lines of own pairs: {seconds:.1f} s, {1e6 * seconds / lines:.0f} us a line"
        )
        report(f"{lines:,} lines of own pairs", seconds, unit="CPU s")
        cuhk = write_cuhk(folder / "cuhk", captions)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds, _ = timed(lambda: read_cuhk_pedes(cuhk))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(
            f"{captions:,} captions in the layout of CUHK-PEDES: {seconds:.1f} s, peak of the "
            f"process {before / 1024:.0f} MiB before, {peak / 1024:.0f} MiB after"
        )
        report(
            f"{captions:,} captions in the layout of CUHK-PEDES",
            seconds,
            unit="CPU s",
            note=f"peak of the process {peak * 1024 / 1e6:.0f} MB",
        )


if __name__ == "__main__":
    main()
