"""Two hundred searches at once over HTTP, beside the same searches one after the other in Python.

Usage: python benchmarks/serve.py [--quick] [--searches N] [--pictures N]

The gallery holds random vectors; the model is ``tiny:rde``, so that the frame weighs more than
with a real one. Server and clients are threads of this process, on the same cores. A latency at
once counts from the moment all were sent, the time in the queue included. Both ways must find the
same.
"""

from __future__ import annotations

import argparse
import http.client
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import numpy as np
from PIL import Image
from rows import report

import crosswalk
from crosswalk.gallery.description import read_gallery
from crosswalk.gallery.serving import served

K = 20
COLOURS = ("red", "blue", "green", "black", "white", "grey", "yellow", "brown", "pink", "violet")
CLOTHES = ("coat", "shirt", "jacket", "dress", "sweater")


class Timed(NamedTuple):
    """What was found, and in how many seconds: each, and all."""

    found: list[list[tuple[str, float]]]
    each: list[float]
    total: float


def filled(folder: Path, model: crosswalk.Model, pictures: int) -> crosswalk.Gallery:
    """Return a gallery of one picture and many vectors of none."""
    (folder / "photos").mkdir()
    Image.new("RGB", (40, 96)).save(folder / "photos" / "0.png")
    place = folder / "photos.gallery"
    crosswalk.Gallery.build(place, model, folder / "photos").close()
    random = np.random.default_rng(1)
    vectors = random.standard_normal((pictures - 1, model.embedding_size), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    paths = [f"/nowhere/{number}.jpg" for number in range(1, pictures)]
    with read_gallery(place).open(write=True) as store:
        store.add(range(1, pictures), {"main": vectors}, {"path": paths, "sha256": paths})
    return crosswalk.Gallery(place, model=model)


def in_turn(ask: Callable[[str], list[tuple[str, float]]], sentences: Sequence[str]) -> Timed:
    """Ask one after the other."""
    found, each, start = [], [], time.perf_counter()
    for sentence in sentences:
        before = time.perf_counter()
        found.append(ask(sentence))
        each.append(time.perf_counter() - before)
    return Timed(found, each, time.perf_counter() - start)


def at_once(ask: Callable[[str], list[tuple[str, float]]], sentences: Sequence[str]) -> Timed:
    """Ask all together, from a thread each."""
    barrier = Barrier(len(sentences))

    def timed(sentence: str) -> tuple[list[tuple[str, float]], float, float]:
        barrier.wait()
        before = time.perf_counter()
        return ask(sentence), before, time.perf_counter()

    with ThreadPoolExecutor(len(sentences)) as pool:
        answers = list(pool.map(timed, sentences))
    start = min(before for _, before, _ in answers)
    each = [after - start for _, _, after in answers]
    return Timed([found for found, _, _ in answers], each, max(each))


def over_http(address: str) -> Callable[[str], list[tuple[str, float]]]:
    """Return a client of the page's API."""

    def ask(sentence: str) -> list[tuple[str, float]]:
        connection = http.client.HTTPConnection(urlsplit(address).netloc)
        connection.request("GET", "/api/search?" + urlencode({"sentence": sentence, "k": K}))
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {answer.read()!r}")
        hits = json.loads(answer.read())["hits"]
        connection.close()
        return [(hit["id"], hit["score"]) for hit in hits]

    return ask


def peak() -> int:
    """Return the most bytes of memory that this process has taken since the peak began anew."""
    told = Path("/proc/self/status").read_text()
    return int(told.split("VmHWM:")[1].split()[0]) << 10


def check_same(one: Timed, other: Timed) -> None:
    for left, right in zip(one.found, other.found, strict=True):
        if [id for id, _ in left] != [id for id, _ in right]:
            raise RuntimeError("the page finds something else than the gallery")
        np.testing.assert_allclose([s for _, s in left], [s for _, s in right], atol=1e-5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=200)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--quick", action="store_true", help="2,000 pictures")
    options = parser.parse_args()
    pictures = 2_000 if options.quick else options.pictures
    sentences = [
        f"a person in a {COLOURS[n % 10]} {CLOTHES[n // 10 % 5]} and {COLOURS[n // 50 % 10]} shoes"
        for n in range(options.searches)
    ]
    model = crosswalk.load("tiny:rde")
    with TemporaryDirectory() as folder, filled(Path(folder), model, pictures) as gallery:

        def directly(sentence: str) -> list[tuple[str, float]]:
            return [(str(hit.id), hit.score) for hit in gallery.search(sentence, K)]

        in_turn(directly, sentences[:5])  # warm
        baseline = in_turn(directly, sentences)
        with served(gallery) as address:
            ask = over_http(address)
            in_turn(ask, sentences[:5])
            one_by_one = in_turn(ask, sentences)
            Path("/proc/self/clear_refs").write_text("5")  # of Linux: the peak begins anew
            before = peak()
            together = at_once(ask, sentences)
            grown = peak() - before
    print(f"{len(sentences)} searches by a sentence among {pictures:,} pictures")
    for name, timed in {
        "Gallery.search in turn (baseline)": baseline,
        "over HTTP in turn": one_by_one,
        "over HTTP at once": together,
    }.items():
        check_same(baseline, timed)
        p50, p95 = np.percentile(timed.each, (50, 95))
        print(
            f"{name:34s} p50 {p50 * 1e3:7.1f} ms   p95 {p95 * 1e3:7.1f} ms   "
            f"all {timed.total:6.2f} s   {baseline.total / timed.total:5.2f} of the baseline's rate"
        )
        if timed is not baseline:
            report(
                f"{len(sentences)} searches among {pictures:,} pictures {name}",
                timed.total,
                baseline.total,
                against="Gallery.search in turn",
            )
    print(f"memory added by all at once, clients included: {grown / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
