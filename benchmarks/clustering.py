"""Times the k-reciprocal Jaccard distances and the clusters of a whole training set.

``python benchmarks/clustering.py`` makes unit vectors of persons, some of them of no person, and
computes their neighbourhood distances and DBSCAN's clusters twice: as published (a search by
faiss, a full matrix of memberships filled row by row, a full matrix of distances) and as the
package does it (half of the products, sparse sets, each pair once). Each runs in a process of its
own, which reports time, processor time and peak memory. The script fails if the results differ.
``--size market`` takes 12,936 and ``--size cuhk`` 34,054 vectors of
length 2048, the training sets of Market-1501 and CUHK-PEDES; the published way needs 10 GB for
the latter. ``--quick`` takes few, to see that everything runs, and ``--alone`` leaves the published
way out; `growth.py` shows how ours grows. Beside other programs, set ``OMP_NUM_THREADS=1`` and
read the ratios of processor time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from rows import report
from scipy.sparse import csr_array, load_npz, save_npz
from sklearn.cluster import DBSCAN

from crosswalk.labels.clustering import clusters_of
from crosswalk.nearest import nearest
from crosswalk.neighbours import (
    averaged_memberships,
    entry_distances,
    expanded_sets,
    jaccard_distances,
    k_reciprocal_jaccard,
    memberships,
)

K1, K2, EPS, MIN_SAMPLES = 30, 6, 0.6, 4  # CMMT
SIZES = {"quick": (1_000, 64), "small": (4_000, 256), "market": (12_936, 2048)}
SIZES |= {"cuhk": (34_054, 2048)}
AIMS = {"market": 4.0, "cuhk": 5.0}
"""Least ratio of the distances."""
AIM_MEMORY = 1000
"""Most memory beside the points, in MB, at every size."""


def persons(count: int, size: int) -> NDArray[np.float32]:
    """Return unit vectors: 17 of a person, less alike the blurrier; each tenth is nobody's."""
    rng = np.random.default_rng(0)

    def directions(number: int) -> NDArray[np.float32]:
        rows = rng.standard_normal((number, size), dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    person = rng.permutation(np.arange(count) // 17)
    rows = directions(count) * (0.3 + 0.7 * rng.random((count, 1), dtype=np.float32))
    rows += (rng.random((count, 1)) < 0.9) * directions(int(person.max()) + 1)[person]
    rows = rows.astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def full_jaccard(
    rows: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Return all distances, and neighbours with distances, by full matrices and loops over rows."""
    count = len(rows)
    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(rows)
    squared, ranked = index.search(rows, K1)

    def reciprocal(k: int) -> list[NDArray[np.int64]]:
        first = ranked[:, : k + 1]
        return [own[(first[own] == point).any(axis=1)] for point, own in enumerate(first)]

    wholes, halves = reciprocal(K1), reciprocal(round(K1 / 2))
    membership = np.zeros((count, count), np.float32)
    for point, whole in enumerate(wholes):
        parts = [whole]
        for other in whole:
            half = halves[other]
            if len(np.intersect1d(half, whole)) > 2 / 3 * len(half):
                parts.append(half)
        chosen = np.unique(np.concatenate(parts))
        weight = np.exp(2 * rows[chosen] @ rows[point] - 2)
        membership[point, chosen] = weight / weight.sum()
    averaged = np.empty_like(membership)
    for point in range(count):
        averaged[point] = membership[ranked[point, :K2]].mean(axis=0)
    membership = averaged
    del averaged
    columns = [np.flatnonzero(membership[:, column]) for column in range(count)]
    distance = np.empty((count, count), np.float32)
    for point in range(count):
        shared = np.zeros(count, np.float32)
        for column in np.flatnonzero(membership[point]):
            some = columns[column]
            shared[some] += np.minimum(membership[point, column], membership[some, column])
        distance[point] = 1 - shared / (2 - shared)
    return np.maximum(distance, 0, out=distance), ranked, squared


def memory(name: str) -> int:
    """Return a line of this process's memory, in bytes; VmHWM is the peak since it started."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"the system does not report {name}; this benchmark needs Linux")


def clocks() -> tuple[float, float]:
    """Return the clock and the processor time; other programs lengthen the latter little."""
    return time.perf_counter(), time.process_time()


def ours(rows: NDArray[np.float32], folder: Path) -> dict[str, Any]:
    points = torch.from_numpy(rows)
    k_reciprocal_jaccard(points[:500], k1=K1, k2=K2)  # the first call of everything
    before = memory("VmRSS")
    start = np.array(clocks())
    distance = k_reciprocal_jaccard(points, k1=K1, k2=K2, largest=EPS)
    clustering = np.array(clocks())
    labels = clusters_of(distance, eps=EPS, min_samples=MIN_SAMPLES)
    stop = np.array(clocks())
    peak = memory("VmHWM") - before

    found, squared = nearest(points, K1)
    np.savez(folder / "ours.npz", labels=labels, found=found.numpy(), squared=squared.numpy())
    save_npz(folder / "ours_distance.npz", distance, compressed=False)
    return {
        "distances": (clustering - start).tolist(),
        "clusters": (stop - clustering).tolist(),
        "peak": peak,
        "num_clusters": int(labels.max()) + 1,
        "outliers": float((labels < 0).mean()),
    }


def plain(rows: NDArray[np.float32], folder: Path) -> dict[str, Any]:
    before = memory("VmRSS")
    start = np.array(clocks())
    distance, ranked, squared = full_jaccard(rows)
    clustering = np.array(clocks())
    dbscan = DBSCAN(eps=EPS, min_samples=MIN_SAMPLES, metric="precomputed")
    labels = dbscan.fit_predict(distance)
    stop = np.array(clocks())
    peak = memory("VmHWM") - before

    own = np.load(folder / "ours.npz")
    # Rounding orders some neighbours otherwise, and sets at the end of whose lists that happens are
    # other sets. So our own distances are compared, and those of the same neighbours.
    sets = expanded_sets(ranked, K1)
    known = entry_distances(torch.from_numpy(rows), sets, known=(ranked, squared))
    membership = averaged_memberships(memberships(sets, known), ranked, K2)
    given = jaccard_distances(membership, largest=EPS)
    return {
        "distances": (clustering - start).tolist(),
        "clusters": (stop - clustering).tolist(),
        "peak": peak,
        "neighbours": int((ranked != own["found"]).sum()),
        "farther": float(np.abs(squared - own["squared"]).max()),
        "given": differences(given, distance),
        "own": differences(load_npz(folder / "ours_distance.npz"), distance),
        "labels": int((labels != own["labels"]).sum()),
    }


def differences(sparse: csr_array, full: NDArray[np.float32]) -> tuple[int, float]:
    """Return how many distances up to `EPS` differ by more than 1e-5, and the largest difference.

    Distances at the very limit may be stored or not.
    """
    count, largest = 0, 0.0
    for point, expected in enumerate(full):
        entries = slice(sparse.indptr[point], sparse.indptr[point + 1])
        mine = np.full(len(full), np.float32(EPS))
        mine[sparse.indices[entries]] = sparse.data[entries]
        apart = np.abs(mine - np.minimum(expected, np.float32(EPS)))
        count += int((apart > 1e-5).sum())
        largest = max(largest, float(apart.max()))
    return count, largest


def measure(side: str, folder: Path) -> dict[str, Any]:
    """Run one side in a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{side} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time Jaccard distances and clusters.")
    parser.add_argument("--size", choices=SIZES, default="small", help="points and their length")
    parser.add_argument("--quick", action="store_true", help="the same as --size quick")
    parser.add_argument("--alone", action="store_true", help="leave the published way out")
    parser.add_argument("--side", choices=["ours", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.side:
        rows = np.load(options.folder / "rows.npy")
        side = {"ours": ours, "plain": plain}[options.side]
        print(json.dumps(side(rows, options.folder)))
        return 0

    name = "quick" if options.quick else options.size
    count, size = SIZES[name]
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "rows.npy", persons(count, size))
        fast = measure("ours", Path(folder))
        slow = None if options.alone else measure("plain", Path(folder))

    print(
        f"{count} points of length {size}, {torch.get_num_threads()} threads; "
        f"{fast['num_clusters']} clusters, {100 * fast['outliers']:.0f} % outliers"
    )
    print(f"{'':<36}{'published':>12}{'ours':>12}{'ratio':>8}")
    wrong = []
    for title, key in ((f"distances up to {EPS}", "distances"), ("clusters", "clusters")):
        for number, kind in enumerate(("", ", processor")):
            mine = fast[key][number]
            before = f"{slow[key][number]:>10.2f} s" if slow else f"{'':>12}"
            ratio = f"{slow[key][number] / mine:>8.1f}" if slow else ""
            print(f"{title + kind:<36}{before}{mine:>10.2f} s{ratio}")
    before = f"{slow['peak'] / 1e6:>9.0f} MB" if slow else f"{'':>12}"
    print(f"{'peak beside the points':<36}{before}{fast['peak'] / 1e6:>9.0f} MB")
    report(
        f"peak memory of Jaccard graph and clusters beside the points, {count} x {size}",
        fast["peak"] / 1e6,
        unit="MB",
        at_most=AIM_MEMORY,
        note=f"as published {slow['peak'] / 1e6:.0f} MB" if slow else "",
    )
    if slow:
        for title, key, aim in (
            ("Jaccard graph", "distances", AIMS.get(name)),
            ("DBSCAN of it", "clusters", None),
        ):
            title = f"{title}, {count} x {size}"
            report(
                title,
                fast[key][0],
                slow[key][0],
                against="as published, full matrices",
                at_least=aim,
            )
        print(
            f"{slow['labels']} labels differ; {slow['neighbours']} of {count * K1} neighbours are "
            f"ordered otherwise, their squared distances at most {slow['farther']:.1g} apart; "
            f"{slow['own'][0]} distances differ by more than 1e-5 for that, and "
            f"{slow['given'][0]} with the same neighbours (at most by {slow['given'][1]:.1g})"
        )
        if slow["labels"] or slow["farther"] > 1e-5 or slow["given"][0]:
            wrong.append("results differ")
    print("\n".join(wrong) or "all results agree" if slow else "not compared")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
