"""Times both re-rankings beside the published algorithms written plainly, in the same run.

``python benchmarks/reranking.py`` takes CUHK-PEDES's test set (6,156 captions, 3,074 images,
512-d) for the cross-modal re-ranking, whose double loop over all pairs runs whole, and half of
Market-1501's (1,684 queries, 9,866 images, 2048-d) for the k-reciprocal one. ``--full`` takes all
of Market-1501's (3,368 and 19,732), for which the dense algorithm wants 13 GB and minutes;
``--quick`` takes small sets, to see that everything runs. Nothing is extrapolated.

Either side gets the embeddings; times hold everything from there to the new scores of all pairs
(ours to the sparse part of them and one number per query, which the ranking adds up tile by tile).
Of the cross-modal one, the shared neighbours of all pairs are also timed alone, given the nearest
items. It fails if the scores differ. Peak memory is that of a process of its own which makes the
embeddings and re-ranks them, once in the plain way and once in ours.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rows import report
from torch import Tensor
from torch.nn.functional import normalize

from crosswalk.metrics.ranking import Rescoring, most_similar
from crosswalk.metrics.reranking import cross_modal, k_reciprocal, overlaps

NUM_NEIGHBOURS, WEIGHT = 5, 0.05
K1, K2, DISTANCE_WEIGHT = 20, 6, 0.3


class Size(NamedTuple):
    """Shape of a test set, and the least ratio that is aimed at with it."""

    name: str
    num_queries: int
    num_gallery: int
    width: int
    num_persons: int
    aim: float


CROSS_MODAL = Size("CUHK-PEDES", 6156, 3074, 512, 1000, 500.0)
HALF = Size("half of Market-1501", 1684, 9866, 2048, 375, 0.0)
FULL = Size("Market-1501", 3368, 19732, 2048, 750, 15.0)
QUICK = Size("quick", 150, 420, 32, 40, 0.0)


def draw(size: Size) -> tuple[Tensor, Tensor]:
    """Return queries and gallery: persons with several images each."""
    random = torch.Generator().manual_seed(1)
    centre = normalize(torch.randn(size.num_persons, size.width, generator=random))

    def vectors(number: int) -> Tensor:
        person = torch.randint(0, size.num_persons, (number,), generator=random)
        noise = normalize(torch.randn(number, size.width, generator=random))
        return normalize(centre[person] + 1.2 * noise)

    return vectors(size.num_queries), vectors(size.num_gallery)


def neighbours(query: Tensor, gallery: Tensor) -> list[NDArray[np.int64]]:
    return [most_similar(rows, gallery, NUM_NEIGHBOURS) for rows in (query, gallery)]


def double_loop(finds: NDArray[np.int64], near: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return all Jaccard indices: a set operation per pair, the sets made once."""
    first, second = ([set(row) for row in rows.tolist()] for rows in (finds, near))
    jaccard = np.zeros((len(first), len(second)))
    for place, one in enumerate(first):
        for item, other in enumerate(second):
            jaccard[place, item] = len(one & other) / len(one | other)
    return jaccard


def plain_cross_modal(query: Tensor, gallery: Tensor) -> NDArray[Any]:
    """Return the scores: full sorts and a loop over all pairs."""
    similarity, among_gallery = (rows @ gallery.T for rows in (query, gallery))
    nearest = [
        each.argsort(dim=1, descending=True)[:, :NUM_NEIGHBOURS].numpy()
        for each in (similarity, among_gallery)
    ]
    return similarity.numpy() + WEIGHT * double_loop(*nearest)


def plain_k_reciprocal(query: Tensor, gallery: Tensor) -> NDArray[Any]:
    """Return the scores: dense matrices and a full sort, a loop over points, as published."""
    rows = torch.cat([query, gallery]).numpy()
    number, num_queries = len(rows), len(query)
    distance = 2 - 2 * rows @ rows.T
    distance /= distance.max(axis=0)
    distance = np.ascontiguousarray(distance.T)
    order = np.argsort(distance).astype(np.int32)
    membership = np.zeros_like(distance)
    half = round(K1 / 2)
    for i in range(number):
        forward = order[i, : K1 + 1]
        core = forward[(order[forward, : K1 + 1] == i).any(axis=1)]
        members = core
        for candidate in core:
            near = order[candidate, : half + 1]
            brought = near[(order[near, : half + 1] == candidate).any(axis=1)]
            if len(np.intersect1d(brought, core)) > 2 / 3 * len(brought):
                members = np.append(members, brought)
        members = np.unique(members)
        weight = np.exp(-distance[i, members])
        membership[i, members] = weight / weight.sum()
    distance = distance[:num_queries].copy()
    averaged = np.zeros_like(membership)
    for i in range(number):
        averaged[i] = membership[order[i, :K2]].mean(axis=0)
    membership = averaged
    del averaged, order
    owners = [np.where(membership[:, i] != 0)[0] for i in range(number)]
    jaccard = np.zeros_like(distance)
    for i in range(num_queries):
        shared = np.zeros(number, np.float32)
        for member in np.where(membership[i] != 0)[0]:
            who = owners[member]
            shared[who] += np.minimum(membership[i, member], membership[who, member])
        jaccard[i] = 1 - shared / (2 - shared)
    mixed = (1 - DISTANCE_WEIGHT) * jaccard + DISTANCE_WEIGHT * distance
    return -mixed[:, num_queries:]


def our_cross_modal(query: Tensor, gallery: Tensor) -> Rescoring:
    return cross_modal(query, gallery, num_neighbours=NUM_NEIGHBOURS, weight=WEIGHT)


def our_k_reciprocal(query: Tensor, gallery: Tensor) -> Rescoring:
    return k_reciprocal(query, gallery, k1=K1, k2=K2, distance_weight=DISTANCE_WEIGHT)


class Seconds(NamedTuple):
    """Of a clock, and of all threads together."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:9.3f} s {self.cpu:9.3f} CPU s"


def timed(function: Callable[[], Any], repeats: int) -> tuple[Seconds, Any]:
    """Return the least wall and CPU seconds, and the result."""
    wall, cpu = [], []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        result = function()
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    return Seconds(min(wall), min(cpu)), result


def check(plain: NDArray[Any], ours: Rescoring, query: Tensor, gallery: Tensor) -> float:
    """Return the share of pairs whose scores differ by more than rounding."""
    different = 0
    for start in range(0, len(query), 512):
        some = slice(start, start + 512)
        scores = (query[some] @ gallery.T).numpy() * ours.slope[some, None]
        scores += ours.offset[some, None] + ours.bonus[some].toarray()
        different += int((np.abs(scores - plain[some]) > 1e-5).sum())
    return different / plain.size


def peak_of(function: Callable[[Tensor, Tensor], Any] | None, size: Size) -> float:
    """Return the peak memory of this process in MiB; without a function, that of the data."""
    query, gallery = draw(size)
    if function is not None:
        function(query, gallery)
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**10


def peaks(
    functions: dict[str, Callable[[Tensor, Tensor], Any] | None], size: Size
) -> dict[str, float]:
    found = {}
    for name, function in functions.items():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[name] = pool.apply(peak_of, (function, size))
    return found


def compare_overlaps(size: Size, repeats: int) -> None:
    """Print the comparison of the sets alone."""
    print(f"\nshared neighbours alone, {size.name}: {size.num_queries} x {size.num_gallery}")
    found = neighbours(*draw(size))
    sparse, ours = timed(lambda: overlaps(*found), 10 * repeats)
    loop, plain = timed(lambda: double_loop(*found), 1)
    print(f"  double loop  {loop}, one run")
    print(f"  ours         {sparse}, least of {10 * repeats} runs")
    ratio = loop.cpu / sparse.cpu
    aimed = f" (aim {size.aim:.0f}x)" if size.aim else ""
    print(f"  ratio        {loop.wall / sparse.wall:9.1f}x, by CPU seconds {ratio:.1f}x{aimed}")
    np.testing.assert_allclose(ours.toarray(), plain, rtol=1e-12)
    report(
        f"cross-modal re-ranking, shared neighbours alone, {size.name} size",
        sparse.wall,
        loop.wall,
        against="double loop over sets",
        at_least=size.aim or None,
    )


def compare(
    title: str,
    size: Size,
    plain: Callable[[Tensor, Tensor], NDArray[Any]],
    ours: Callable[[Tensor, Tensor], Rescoring],
    repeats: int,
    aim: float = 0,
) -> bool:
    """Print one comparison; return whether scores are equal."""
    print(
        f"\n{title}, {size.name}: {size.num_queries} x {size.num_gallery}, {size.width}-d",
        flush=True,
    )
    query, gallery = draw(size)
    before, rescoring = timed(lambda: ours(query, gallery), repeats)
    loops, scores = timed(lambda: plain(query, gallery), 1)
    after, _ = timed(lambda: ours(query, gallery), repeats)
    sparse = Seconds(*map(min, zip(before, after, strict=True)))
    print(f"  as published {loops}, one run")
    print(f"  ours         {sparse}, least of {2 * repeats} runs around it")
    ratio = loops.cpu / sparse.cpu
    aimed = f" (aim {aim:.0f}x)" if aim else ""
    print(f"  ratio        {loops.wall / sparse.wall:9.1f}x, by CPU seconds {ratio:.1f}x{aimed}")
    different = check(scores, rescoring, query, gallery)
    print(f"  scores that differ by more than 1e-5: {different:.2e} of all")
    del scores, rescoring
    memory = peaks({"the data alone": None, "ours": ours, "as published": plain}, size)
    print("  peak memory: " + ", ".join(f"{name} {mib:.0f} MiB" for name, mib in memory.items()))
    name = f"{title} re-ranking, {size.name} size"
    against = "as published, written plainly"
    report(name, sparse.wall, loops.wall, against=against, at_least=aim or None)
    report(
        f"{name}, peak memory of the process",
        memory["ours"] * 1.048576,
        memory["as published"] * 1.048576,
        against=against,
        unit="MB",
    )
    # two float32 products round differently, and a k-th neighbour may change with it
    return different < 1e-4


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sets")
    parser.add_argument("--full", action="store_true", help="all of Market-1501: 13 GB, minutes")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    if options.quick:
        cross, joint, repeats = QUICK, QUICK, 1
    else:
        cross, joint, repeats = CROSS_MODAL, FULL if options.full else HALF, 3
    compare_overlaps(cross, repeats)
    fine = [
        compare("cross-modal", cross, plain_cross_modal, our_cross_modal, repeats),
        compare("k-reciprocal", joint, plain_k_reciprocal, our_k_reciprocal, repeats, joint.aim),
    ]
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
