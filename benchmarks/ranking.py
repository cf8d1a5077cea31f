"""Ranking at the sizes of published test sets, beside a full argsort per query.

Usage: python benchmarks/ranking.py [--quick] [--msmt17] [--repeats N] [--queries N]

Prints for each size the time of the bare matrix product, of our ranking with and without it, and
of two straightforward loops, which rank a part of the queries (times are extrapolated to all, the
results compared with ours). Of captions and images also that of both directions, two views and
their mean, beside one product; and that of two processes with one thread each beside one, with
equal results. Seconds are the least of several runs in alternation, so that other work on the
machine weighs little; "CPU s" adds up all threads, and counts threads that wait by spinning. Extra
memory is the growth of the process's peak while it ranks, in a process of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rows import report
from torch import Tensor

from crosswalk.distributed import gather_objects
from crosswalk.metrics.counting import Labels
from crosswalk.metrics.ranking import (
    Processes,
    Ranking,
    rank_embeddings,
    rank_similarity,
    rank_views,
)


class Size(NamedTuple):
    """Shape of a test set; junk comes first in the gallery, as in Market-1501."""

    name: str
    num_queries: int
    num_gallery: int
    width: int
    num_persons: int
    num_cameras: int
    num_junk: int
    most_of_product: float
    """Aim: an evaluation takes at most so many times the bare product."""


SIZES = {
    "market1501": Size("Market-1501", 3368, 19732, 2048, 751, 6, 3819, 1.2),
    "cuhk_pedes": Size("CUHK-PEDES, text to image", 6156, 3074, 512, 1000, 1, 0, 1.4),
    "msmt17": Size("MSMT17", 11659, 82161, 2048, 3060, 15, 0, 1.2),
    "quick": Size("quick", 200, 2000, 64, 50, 6, 100, 9),
}


def draw(size: Size) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    random = torch.Generator().manual_seed(1)

    def unit(number: int) -> Tensor:
        vectors = torch.randn(number, size.width, generator=random)
        return vectors.div_(vectors.norm(dim=1, keepdim=True))

    def ids(most: int, number: int) -> Tensor:
        return torch.randint(0, most, (number,), generator=random)

    labels = {
        "query_person_id": ids(size.num_persons, size.num_queries),
        "gallery_person_id": ids(size.num_persons, size.num_gallery),
    }
    labels["gallery_person_id"][: size.num_junk] = -1
    if size.num_cameras > 1:
        labels["query_camera_id"] = ids(size.num_cameras, size.num_queries)
        labels["gallery_camera_id"] = ids(size.num_cameras, size.num_gallery)
    return unit(size.num_queries), unit(size.num_gallery), labels


def argsort_loop(
    similarity: np.ndarray[Any, Any],
    labels: dict[str, np.ndarray[Any, Any]],
    precision: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]],
) -> list[tuple[int, float, float]]:
    """The textbook evaluation: sort the gallery of each query, drop what is ignored, add up."""
    results = []
    gallery_person = labels["gallery_person_id"]
    for query, row in enumerate(similarity):
        order = np.argsort(-row, kind="stable")
        match = gallery_person[order] == labels["query_person_id"][query]
        keep = gallery_person[order] != -1
        if "query_camera_id" in labels:
            same = labels["gallery_camera_id"][order] == labels["query_camera_id"][query]
            keep &= ~(match & same)
        match = match[keep]
        hits = match.cumsum()
        if hits[-1] == 0:
            results.append((0, np.nan, np.nan))
            continue
        found = np.flatnonzero(match)
        ap = float((precision(hits) * match).sum() / hits[-1])
        results.append((int(found[0]) + 1, ap, float(hits[-1] / (found[-1] + 1))))
    return results


def precision_listed(hits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """As published evaluators write it."""
    return np.asarray([number / (place + 1.0) for place, number in enumerate(hits)])


def precision_vectorised(hits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return hits / np.arange(1, len(hits) + 1)


def measure(function: Callable[[], Any]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def least(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, tuple[float, float]]:
    """Return the least wall and CPU seconds of each, run in turns after a first run."""
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for name in list(functions) * (1 + repeats):
        runs[name].append(measure(functions[name]))
    return {
        name: (min(w for w, _ in each[1:]), min(c for _, c in each[1:]))
        for name, each in runs.items()
    }


def multiply(query: Tensor, gallery: Tensor, rows: int) -> Callable[[], None]:
    """Return the bare product, in one piece or, where that would not fit, in pieces."""
    out = torch.zeros(min(rows, len(query)), len(gallery))

    def run() -> None:
        for start in range(0, len(query), rows):
            part = query[start : start + rows]
            torch.mm(part, gallery.T, out=out[: len(part)])

    return run


def check(ranking: Ranking, expected: list[tuple[int, float, float]], part: int) -> None:
    ours = (ranking.first_hit, ranking.average_precision, ranking.inverse_negative_penalty)
    for values, wanted in zip(ours, np.asarray(expected).T, strict=True):
        np.testing.assert_allclose(values[:part], wanted, rtol=1e-12)


def peak_memory() -> float:
    """Return the peak memory of this process in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the starting process once had
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def peak_growth(size: Size, topk: int) -> float:
    """Return by how many MiB ranking raises the peak memory of this process."""
    query, gallery, labels = draw(size)
    few = {key: ids[:64] for key, ids in labels.items()}
    few["query_person_id"] = few["gallery_person_id"] = torch.arange(64)
    few.pop("query_camera_id", None), few.pop("gallery_camera_id", None)
    rank_embeddings(query[:64], gallery[:64], **few)  # the library's own buffers and threads
    before = peak_memory()
    rank_embeddings(query, gallery, **labels, topk=topk)
    return peak_memory() - before


def rank_share(
    rank: int, world_size: int, folder: str, size: Size, repeats: int
) -> tuple[float, float, Ranking]:
    """Return the least wall and CPU seconds of this process's share, and all results."""
    torch.set_num_threads(1)
    query, gallery, labels = draw(size)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size
    )
    processes = Processes(rank, world_size, gather_objects)
    found: list[Ranking] = []
    times = []

    def run() -> None:
        labelled = Labels(**labels)
        ranked = rank_views(query, gallery, labelled, widths=[size.width], processes=processes)
        found.append(ranked.joint)

    for _ in range(1 + repeats):
        torch.distributed.barrier()
        times.append(measure(run))
    torch.distributed.destroy_process_group()
    return min(wall for wall, _ in times[1:]), min(cpu for _, cpu in times[1:]), found[0]


def compare_processes(size: Size, repeats: int) -> None:
    """Print and report what two processes take, of one thread each, beside one."""
    found = {}
    for world_size in (1, 2):
        with (
            tempfile.TemporaryDirectory() as folder,
            multiprocessing.get_context("spawn").Pool(world_size) as pool,
        ):
            tasks = [(rank, world_size, folder, size, repeats) for rank in range(world_size)]
            found[world_size] = pool.starmap(rank_share, tasks, chunksize=1)
    ((wall, cpu, expected),), several = found[1], found[2]
    for _, _, ranking in several:
        np.testing.assert_equal(ranking._asdict(), expected._asdict())
    slower = [max(each[clock] for each in several) for clock in (0, 1)]
    print(
        f"  two processes / one, of one thread each: {slower[0] / wall:.2f} "
        f"(CPU of the slower {slower[1] / cpu:.2f}), equal results"
    )
    report(
        f"evaluation on two processes of one thread, {size.name} size",
        slower[0],
        wall,
        against="one such process",
        at_most=0.6,
    )


def compare_views(
    size: Size, query: Tensor, gallery: Tensor, labels: dict[str, Tensor], repeats: int
) -> None:
    """Print and report what an evaluation of two views in both directions takes."""
    widths = [size.width // 2] * 2
    times = least(
        {
            "bare": multiply(query, gallery, size.num_queries),
            "ours": lambda: rank_views(
                query, gallery, Labels(**labels), widths=widths, by_view=True, both_ways=True
            ),
        },
        repeats,
    )
    (wall, cpu), bare = times["ours"], times["bare"]
    name = "two views, their mean and both directions"
    print(
        f"  {name}: {wall:.3f} s {cpu:.3f} CPU s, "
        f"{wall / bare[0]:.2f} of one product (CPU {cpu / bare[1]:.2f})"
    )
    report(f"{name}, {size.name} size", wall, bare[0], against="one bare product of all widths")


def compare(name: str, repeats: int, topk: int) -> None:
    size = SIZES[name]
    query, gallery, labels = draw(size)
    arrays = {key: ids.numpy() for key, ids in labels.items()}
    print(f"\n{size.name}: {size.num_queries} x {size.num_gallery}, {size.width}-d, top {topk}")

    fits = size.num_queries * size.num_gallery < 2**28
    times = least(
        {
            "bare product": multiply(query, gallery, size.num_queries if fits else 256),
            "ours, with the product": lambda: rank_embeddings(query, gallery, **labels, topk=topk),
        },
        repeats,
    )
    part = min(size.num_queries, 200)
    similarity = query[: 5 * part] @ gallery.T
    some = {key: ids[: 5 * part] if "query" in key else ids for key, ids in labels.items()}
    subset = {key: ids[:part] if "query" in key else ids for key, ids in arrays.items()}
    rows = similarity[:part].numpy()
    for scale, functions in (
        (
            size.num_queries / len(similarity),
            {
                f"ours, ranking and top {topk}": lambda: rank_similarity(
                    similarity, **some, topk=topk
                ),
                "ours, ranking": lambda: rank_similarity(similarity, **some, topk=0),
            },
        ),
        (
            size.num_queries / part,
            {
                "argsort loop, as published": lambda: argsort_loop(rows, subset, precision_listed),
                "argsort loop, vectorised": lambda: argsort_loop(
                    rows, subset, precision_vectorised
                ),
            },
        ),
    ):
        found = least(functions, repeats)
        times |= {key: (wall * scale, cpu * scale) for key, (wall, cpu) in found.items()}

    for key, (wall, cpu) in times.items():
        part_of = f"  from {part} queries" if "loop" in key else ""
        print(f"  {key:30s} {wall:9.3f} s {cpu:9.3f} CPU s{part_of}")
    product, total = times["bare product"], times["ours, with the product"]
    print(f"  total / bare product: {total[0] / product[0]:.2f} (CPU {total[1] / product[1]:.2f})")
    report(
        f"evaluation with the product, {size.name} size",
        total[0],
        product[0],
        against="the bare product",
        at_most=size.most_of_product,
    )
    for loop, aim in (("argsort loop, as published", 150), ("argsort loop, vectorised", None)):
        report(
            f"ranking alone, {size.name} size, and the {loop}",
            times["ours, ranking"][0],
            times[loop][0],
            against=f"{loop}, of {part} queries, extrapolated",
            at_least=aim,
        )
        ratios = [times[loop][clock] / times["ours, ranking"][clock] for clock in (0, 1)]
        print(f"  {loop} / ours, ranking: {ratios[0]:.0f}x (CPU {ratios[1]:.0f}x)")

    check(
        rank_similarity(similarity, **some, topk=0),
        argsort_loop(rows, subset, precision_vectorised),
        part,
    )
    tied = (similarity * 50).round()  # nearly everything ties with something
    check(
        rank_similarity(tied, **some, topk=0),
        argsort_loop(tied[:part].numpy(), subset, precision_vectorised),
        part,
    )
    print(f"  same results as the loop on {part} queries, also with similarities full of ties")
    if size.num_cameras == 1:
        compare_views(size, query, gallery, labels, repeats)
    if fits:
        compare_processes(size, repeats)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        extra = pool.apply(peak_growth, (size, topk))
    print(f"  extra memory: {extra:.0f} MiB")
    report(
        f"extra memory of an evaluation, {size.name} size", extra * 1.048576, unit="MB", at_most=150
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one small size, one run")
    parser.add_argument("--msmt17", action="store_true", help="MSMT17's size too: minutes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--topk", type=int, default=10)
    parser.add_argument("--queries", type=int, help="at most so many: ratios on a busy machine")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    names = ["quick"] if options.quick else ["market1501", "cuhk_pedes"]
    if options.msmt17:
        names.append("msmt17")
    for name in names:
        size = SIZES[name]
        most = options.queries or size.num_queries
        SIZES[name] = size._replace(num_queries=min(size.num_queries, most))
        compare(name, 1 if options.quick else options.repeats, options.topk)
    if importlib.util.find_spec("torchreid") is None:
        print("\ntorchreid is not installed; its evaluator is not measured.")


if __name__ == "__main__":
    main()
