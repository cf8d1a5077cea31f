"""Times a gallery's store beside plain faiss and NumPy, in the same run.

``python benchmarks/gallery.py`` takes 250,000 vectors of length 512: 20 crops of each of 12,500
persons, with a camera and a time. ``--rows 1000000`` takes 5 GB of disk and as much memory. Queries
are like other crops of the persons, or like sentences: those lie apart from all pictures, and
nearest to them are pictures of many.

Ours is a folder: adding in batches of 10,000 with everything on the disk after each, indexing and
tuning by 200 sentences (others than those that are asked), then a fresh process that opens it and
asks single queries. Beside it are faiss's ``IndexFlatIP`` and ``IndexIVFFlat`` in memory, the
latter with as many lists and probes, and NumPy's product with all rows and its ``argpartition``;
under a condition these compare the rows that meet it. Memory is what the process holds beyond its
files (anonymous), above what it held before. It fails if the exact search of ours finds other rows
than NumPy, if the index misses more than it should, or if a condition is not met in full.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rows import report

DIM, CROPS, BATCH = 512, 20, 10_000
CAMERAS = 20
SINGLE, MANY = 40, 100
Float = NDArray[np.float32]


def unit(rows: NDArray[Any]) -> Float:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def noise(random: np.random.Generator, count: int, length: float) -> Float:
    return length * unit(random.standard_normal((count, DIM), dtype=np.float32))


def centres_of(batch: int) -> Float:
    return noise(np.random.default_rng([1, batch]), BATCH // CROPS, 1.0)


def apart() -> tuple[Float, Float]:
    """Return where pictures, and where sentences, lie."""
    both = noise(np.random.default_rng(0), 2, 0.9)
    return both[0], both[1]


def crops(batch: int) -> Float:
    """Return one batch of the gallery."""
    random = np.random.default_rng([2, batch])
    persons = np.repeat(centres_of(batch), CROPS, axis=0)
    return unit(persons + noise(random, BATCH, 0.8) + apart()[0])


def queries(rows: int, count: int, kind: str, seed: int) -> Float:
    """Return what is asked about persons of the gallery: further crops, or sentences."""
    random = np.random.default_rng([seed, kind == "sentences"])
    batches = random.integers(rows // BATCH, size=count).tolist()
    places = random.integers(BATCH // CROPS, size=count).tolist()
    persons = np.array(
        [centres_of(batch)[place] for batch, place in zip(batches, places, strict=True)]
    )
    if kind == "crops":
        return unit(persons + noise(random, count, 0.8) + apart()[0])
    return unit(0.8 * persons + noise(random, count, 0.8) + apart()[1])


def columns(batch: int) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng([3, batch])
    times = 1_700_000_000_000_000 + random.integers(10**13, size=BATCH)
    return {"camera": random.integers(CAMERAS, size=BATCH), "time": times}


def anonymous() -> float:
    """Return what this process holds beyond its files, in MB."""
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in status if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024 / 1e6


def latency(
    search: Callable[[Float], Any], asked: Float, count: int
) -> tuple[str, list[Any], float]:
    """Return median and 95th percentile of single queries, what they found, the median in ms."""
    search(asked[:1])
    seconds, found = [], []
    for place in range(count):
        start = time.perf_counter()
        found.append(search(asked[place : place + 1]))
        seconds.append(time.perf_counter() - start)
    half, most = np.percentile(seconds, [50, 95]) * 1000
    return f"p50 {half:8.1f} ms   p95 {most:8.1f} ms", found, float(half)


def batched(search: Callable[[Float], object], asked: Float) -> str:
    start = time.perf_counter()
    search(asked)
    return f"{(time.perf_counter() - start) / len(asked) * 1000:.1f} ms a query"


def share(found: NDArray[Any], exact: NDArray[Any]) -> float:
    """Return how much of the exact lists was found."""
    pairs = zip(found.tolist(), exact.tolist(), strict=True)
    return float(np.mean([len(set(one) & set(other)) / len(other) for one, other in pairs]))


def in_own_process(function: Callable[..., Any], *given: object) -> Any:  # noqa: ANN401
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, given)


def build(folder: Path, rows: int) -> None:
    from crosswalk.gallery.embedded import EmbeddedStore

    start = time.perf_counter()
    with EmbeddedStore(
        folder, dim=DIM, columns={"camera": "number", "time": "time"}, write=True
    ) as store:
        drawing = 0.0
        for batch in range(rows // BATCH):
            before = time.perf_counter()
            vectors, meta = crops(batch), columns(batch)
            drawing += time.perf_counter() - before
            store.add(range(batch * BATCH, (batch + 1) * BATCH), {"main": vectors}, meta)
        added = time.perf_counter() - start - drawing
        print(f"  add, in batches of {BATCH:,}, durable     {added:8.1f} s", flush=True)
        samples = queries(rows, 200, "sentences", seed=7)
        start, cpu = time.perf_counter(), time.process_time()
        stats = store.maintain(samples)
        spent, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(f"  index and tune                        {spent:8.1f} s {cpu:8.1f} CPU s")
    print(f"  on the disk {stats.bytes / 1e9:.2f} GB, {stats.indexed:,} rows indexed")
    shares = [f"{each or 1:.3f}" for each in (stats.recall_at_10, stats.recall_at_10_of_rows)]
    print(f"  probes {stats.probes}; recall@10 for sentences {shares[0]}, for rows {shares[1]}")


def ask_ours(folder: Path, rows: int) -> dict[str, Any]:
    """Print what our store takes, in a fresh process; return what it found, and its probes."""
    from crosswalk.gallery.embedded import EmbeddedStore
    from crosswalk.gallery.store import Condition

    texts, pictures = (queries(rows, MANY, kind, seed=8) for kind in ("sentences", "crops"))
    start, before = time.perf_counter(), anonymous()
    found: dict[str, Any] = {}
    with EmbeddedStore(folder, dim=DIM) as store:
        store.search(texts[:1], 10)
        spent = time.perf_counter() - start
        print(f"  open and first search {spent:.2f} s, {anonymous() - before:.0f} MB anonymous")
        filters = {
            "5 %": [Condition("camera", "eq", 3)],
            "50 %": [Condition("camera", "range", (None, CAMERAS / 2))],
        }
        for title, asked, options in (
            ("sentences, exact", texts, {"exact": True}),
            ("sentences", texts, {}),
            ("crops", pictures, {}),
            ("sentences, 5 % of rows", texts, {"where": filters["5 %"]}),
            ("sentences, 50 % of rows", texts, {"where": filters["50 %"]}),
        ):
            search = lambda some, options=options: store.search(some, 10, **options)  # noqa: E731
            count = SINGLE if "exact" in title or "%" in title else MANY
            line, single, half = latency(search, asked, count)
            line = f"  {title:24} {line}   batch of {MANY}: {batched(search, asked)}"
            exact = store.search(asked, 10, where=options.get("where", ()), exact=True)
            recall = share(np.concatenate([each.ids for each in single]), exact.ids[:count])
            print(f"{line}   recall@10 of single ones {recall:.3f}", flush=True)
            full = all(int(each.counts[0]) == 10 for each in single)
            found[title] = {"recall": recall, "full": full, "ms": half}
            found[f"{title}, ids"] = exact.ids
        print(f"  afterwards {anonymous() - before:.0f} MB anonymous")
        found["probes"] = store.stats().probes
    return found


def ask_numpy(folder: Path, rows: int) -> dict[str, Any]:
    texts = queries(rows, MANY, "sentences", seed=8)
    before = anonymous()
    gallery = np.fromfile(folder / "main-0.f32", np.float32).reshape(-1, DIM)
    camera = np.concatenate([columns(batch)["camera"] for batch in range(rows // BATCH)])
    print(f"  {anonymous() - before:.0f} MB anonymous")

    def nearest(some: Float, allowed: NDArray[Any] | None = None) -> NDArray[Any]:
        scores = some @ (gallery if allowed is None else gallery[allowed]).T
        best = np.argpartition(-scores, 10, axis=1)[:, :10]
        order = np.take_along_axis(-scores, best, axis=1).argsort(axis=1)
        best = np.take_along_axis(best, order, axis=1)
        return best if allowed is None else allowed[best]

    few = np.flatnonzero(camera == 3)
    filtered = lambda some: nearest(some, np.flatnonzero(camera == 3))  # noqa: E731
    taken = {}
    for title, search in (("exact", nearest), ("5 % of rows", filtered)):
        line, _, taken[title] = latency(search, texts, SINGLE // 2)
        print(f"  {title:24} {line}", flush=True)
    parts = range(0, MANY, 20)  # all at once would hold 0.8 GB of scores
    return {
        "ms": taken,
        "exact": np.concatenate([nearest(texts[start : start + 20]) for start in parts]),
        "5 %": np.concatenate([nearest(texts[start : start + 20], few) for start in parts]),
    }


def ask_faiss(folder: Path, rows: int, probes: int, kind: str) -> float:
    """Print what an index of faiss takes; return the median of single sentences in ms."""
    import faiss

    from crosswalk.gallery.index import ROUNDS, ROWS_PER_LIST, lists_for

    texts, pictures = (queries(rows, MANY, kind, seed=8) for kind in ("sentences", "crops"))
    gallery = np.memmap(folder / "main-0.f32", np.float32, mode="r").reshape(-1, DIM)
    before, start = anonymous(), time.perf_counter()
    if kind == "flat":
        index: Any = faiss.IndexFlatIP(DIM)
    else:
        lists = lists_for(rows)
        flat = faiss.IndexFlatIP(DIM)
        index = faiss.IndexIVFFlat(flat, DIM, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.niter = ROUNDS
        index.train(np.array(gallery[:: max(1, rows // (ROWS_PER_LIST * lists))]))
        index.nprobe = probes
    index.add(gallery)
    spent = time.perf_counter() - start
    print(f"  build {spent:.1f} s, {anonymous() - before:.0f} MB anonymous")
    search = lambda some: index.search(some, 10)[1]  # noqa: E731
    count = SINGLE // 2 if kind == "flat" else MANY
    line, _, half = latency(search, texts, count)
    print(f"  sentences                {line}   "
          f"batch of {MANY}: {batched(search, texts)}", flush=True)  # fmt: skip
    if kind != "flat":
        for title, asked in (("sentences", texts), ("crops", pictures)):
            exact = faiss.knn(asked, gallery, 10, faiss.METRIC_INNER_PRODUCT)[1]
            print(f"  recall@10 {title} {share(search(asked), exact):.3f}")
    return half


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=250_000, help="a multiple of 10,000")
    parser.add_argument("--folder", type=Path, help="where there is room (default: for temporary)")
    parser.add_argument("--quick", action="store_true", help="10,000 rows")
    options = parser.parse_args()
    rows = BATCH if options.quick else max(1, options.rows // BATCH) * BATCH
    place = Path(tempfile.mkdtemp(prefix="gallery-", dir=options.folder))
    os.environ["CROSSWALK_CACHE"] = str(place / "cache")
    folder = place / "photos.gallery"
    print(f"{rows:,} x {DIM}, {len(os.sched_getaffinity(0))} cores")
    try:
        print("ours, building", flush=True)
        in_own_process(build, folder, rows)
        print("ours, in a fresh process", flush=True)
        ours = in_own_process(ask_ours, folder, rows)
        print("NumPy, all rows in memory", flush=True)
        plain = in_own_process(ask_numpy, folder, rows)
        print("faiss, IndexFlatIP in memory", flush=True)
        flat = in_own_process(ask_faiss, folder, rows, 0, "flat")
        print("faiss, IndexIVFFlat in memory", flush=True)
        lists = in_own_process(ask_faiss, folder, rows, max(1, ours["probes"]), "lists")
    finally:
        shutil.rmtree(place)
    same = share(ours["sentences, exact, ids"], plain["exact"])
    filtered = share(ours["sentences, 5 % of rows, ids"], plain["5 %"])
    print(f"same rows as NumPy finds: {same:.4f}, under a condition {filtered:.4f}")
    recall = f"recall@10 {ours['sentences']['recall']:.3f}"
    for title, ms, against, note in (
        ("sentences, exact", plain["ms"]["exact"], "NumPy's product and argpartition", ""),
        ("sentences, 5 % of rows", plain["ms"]["5 % of rows"], "NumPy on those that meet it", ""),
        ("sentences", lists, "faiss IndexIVFFlat in memory, as many probes", recall),
    ):
        name = f"a search among {rows:,} x {DIM}: {title}"
        report(name, ours[title]["ms"], ms, against=against, unit="ms", note=note)
    name = f"a search among {rows:,} x {DIM}: sentences, exact, and faiss"
    report(name, ours["sentences, exact"]["ms"], flat, against="IndexFlatIP", unit="ms")
    fine = {
        "the exact search finds other rows than NumPy": min(same, filtered) > 0.9995,
        "the index misses too much": ours["sentences"]["recall"] >= 0.94,
        "few rows are not searched exactly": ours["sentences, 5 % of rows"]["recall"] == 1,
        "half of the rows": ours["sentences, 50 % of rows"]["recall"] >= 0.9,
        "lists are not full": all(each["full"] for each in ours.values() if isinstance(each, dict)),
    }
    for what, held in fine.items():
        if not held:
            print(f"FAILED: {what}")
    return 0 if all(fine.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
