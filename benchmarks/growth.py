"""Times evaluation, clusters and loading at growing sizes, and how time and memory grow.

``python benchmarks/growth.py`` takes 12,500 items and twice as many until 200,000, or ``--sizes``:
1,000 queries ranked in a gallery of so many embeddings of length 512; the search of nearest points,
the k-reciprocal Jaccard graph and DBSCAN's clusters of so many; a table of so many captions read,
and one epoch of batches by identity planned from it. Every part of every size runs in a process of
its own, on one core, and tells its processor time and the growth of its peak memory. What grows is
fitted by a power of the number of items (least squares of the logarithms), from which the cost of
1,000,000 items follows by arithmetic. ``--quick`` takes small sizes.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from clustering import EPS, K1, K2, MIN_SAMPLES, memory, persons
from readers import write_pairs
from rows import report

from crosswalk import neighbours
from crosswalk.data.pipeline.plans import IdentityBatches
from crosswalk.data.readers.own_pairs import read_own_pairs
from crosswalk.labels.clustering import clusters_of
from crosswalk.metrics.ranking import rank_embeddings

SIZES = (12_500, 25_000, 50_000, 100_000, 200_000)
QUICK = (500, 1_000)
MILLION = 1_000_000
WIDTH, QUERIES, BATCH = 512, 1_000, 64

Costs = dict[str, tuple[float, str]]
"""What each part of the work costs, and the unit."""


class Watch:
    """Tells the processor time since it was last asked, and by how much the peak memory grew."""

    def __init__(self) -> None:
        ctypes.CDLL(None).malloc_trim(0)  # gives back what is free
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
        self.before = memory("VmRSS")
        self.start = time.process_time()

    def seconds(self) -> tuple[float, str]:
        """Return the processor time since the last call."""
        start, self.start = self.start, time.process_time()
        return self.start - start, "CPU s"

    def megabytes(self) -> tuple[float, str]:
        """Return by how much the peak is above the memory at the beginning."""
        return max(memory("VmHWM") - self.before, 4096) / 1e6, "MB"  # a page at least


def evaluation(count: int, folder: Path) -> Costs:
    rows = torch.from_numpy(np.load(folder / "rows.npy"))
    query, gallery = rows[:QUERIES], rows[QUERIES:]
    person = torch.arange(count) % (count // 20)
    ids = {"query_person_id": torch.arange(QUERIES) % (count // 20), "gallery_person_id": person}
    few = {name: each[:64] for name, each in ids.items()}
    rank_embeddings(query[:64], gallery[:64], **few, topk=10)  # the first call of everything
    watch = Watch()
    rank_embeddings(query, gallery, **ids, topk=10)
    return {
        f"ranking of {QUERIES:,} queries": watch.seconds(),
        "ranking, memory beside the embeddings": watch.megabytes(),
    }


def clusters(count: int, folder: Path) -> Costs:
    rows = torch.from_numpy(np.load(folder / "rows.npy"))[-count:]
    # the first call of everything, screened or not
    neighbours.k_reciprocal_jaccard(rows[:5_000], k1=K1, k2=K2)
    found: Costs = {}
    search = neighbours.nearest

    def timed(*args: object, **options: object) -> object:
        found["search of the nearest 30"] = (0.0, "CPU s")
        nearest = search(*args, **options)  # type: ignore[arg-type]
        found["search of the nearest 30"] = watch.seconds()
        return nearest

    neighbours.nearest = timed  # type: ignore[assignment]
    watch = Watch()
    distance = neighbours.k_reciprocal_jaccard(rows, k1=K1, k2=K2, largest=EPS)
    found["Jaccard graph of them"] = watch.seconds()
    clusters_of(distance, eps=EPS, min_samples=MIN_SAMPLES)
    found["clusters by DBSCAN"] = watch.seconds()
    found["search, graph and clusters, memory beside the points"] = watch.megabytes()
    return found


def loading(count: int, folder: Path) -> Costs:
    few, table = (
        write_pairs(folder / f"{number}.csv", number, images=number // 2) for number in (64, count)
    )
    read_own_pairs(few)
    watch = Watch()
    records = read_own_pairs(table)
    read = watch.seconds()
    person = np.repeat([record.person_id for record in records.train], 2)
    for _ in IdentityBatches(person, BATCH, seed=1):
        pass
    return {
        "table of captions, read": read,
        "batches of an epoch, planned": watch.seconds(),
        "table and plan, memory": watch.megabytes(),
    }


PARTS: dict[str, Callable[[int, Path], Costs]] = {
    "evaluation": evaluation,
    "clusters": clusters,
    "loading": loading,
}


def power(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """Return the exponent with which costs grow, by least squares of the logarithms."""
    x, y = ([math.log(each) for each in values] for values in (sizes, costs))
    center, middle = sum(x) / len(x), sum(y) / len(y)
    apart = [each - center for each in x]
    slope = sum(a * (each - middle) for a, each in zip(apart, y, strict=True))
    return slope / sum(a * a for a in apart)


def measure(part: str, count: int, folder: Path) -> Costs:
    """Run one part in a process of its own, with one thread."""
    done = subprocess.run(
        [sys.executable, __file__, "--part", part, "--sizes", str(count), "--folder", str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {name: (value, unit) for name, (value, unit) in json.loads(done.stdout).items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=tuple(PARTS))
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.part:
        print(json.dumps(PARTS[options.part](options.sizes[0], options.folder)))
        return 0
    sizes = QUICK if options.quick else sorted(options.sizes)
    print(f"{'':<52}" + "".join(f"{count:>10,}" for count in sizes), flush=True)
    found: list[Costs] = []
    for count in sizes:
        with tempfile.TemporaryDirectory() as name:
            np.save(Path(name, "rows.npy"), persons(QUERIES + count, WIDTH))
            costs: Costs = {}
            for part in options.only:
                costs |= measure(part, count, Path(name))
        for series, (cost, unit) in costs.items():
            report(series, cost, unit=unit, items=count)
        found.append(costs)
        print(f"measured {count:,}", file=sys.stderr, flush=True)
    for series, (_, unit) in found[0].items():
        grown = [each[series][0] for each in found]
        line = f"{series:<52}" + "".join(f"{cost:>10.3g}" for cost in grown) + f" {unit}"
        if len(sizes) > 1:
            exponent = power(sizes, grown)
            million = grown[-1] * (MILLION / sizes[-1]) ** exponent
            note = f"{MILLION:,} by the power {exponent:.2f}"
            report(series, million, unit=unit, items=MILLION, note=note)
            line += f", power {exponent:.2f}; {MILLION:,} by it: {million:,.0f} {unit}"
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
