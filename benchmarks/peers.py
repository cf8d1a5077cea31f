"""Ranking beside the evaluators of fast-reid and torchreid themselves: ``make bench-peers``.

Both are fetched from the configured package index, without what they depend on, into an
environment of their own below ``.peers``, and their evaluators in Cython are built there where the
archive holds the source; torchreid's of the index does not, so that its evaluator in Python is
measured, on some queries. All get the same similarities and labels, in files; each must find the
same rank 1 and the same mean average precision. Seconds are the least of several runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FOLDER = Path(__file__).parents[1] / ".peers"
BUILD = ("numpy", "cython>=3", "setuptools")
SOME = 200
"""Queries of an evaluator in Python; its time is extrapolated."""


class Peer(NamedTuple):
    """A distribution, the folder of its evaluator in it, and the least ratio aimed at."""

    distribution: str
    evaluation: str
    at_least: float | None


PEERS = (
    Peer("fastreid", "fastreid/evaluation", 25.0),
    Peer("torchreid", "torchreid/reid/metrics", None),
)
SIZES = {  # queries, gallery without junk, persons, cameras
    "Market-1501": (3368, 15913, 751, 6),
    "CUHK-PEDES": (6156, 3074, 1000, 0),
    "quick": (60, 700, 20, 6),
}


# In the environment of the peers


def fetched(peer: Peer, python: Path) -> Path:
    """Return the unpacked archive of a distribution, with its evaluator built if it can be.

    Raises:
        FileNotFoundError: If the index does not serve it, or the evaluator is not in it.
    """
    place = FOLDER / peer.distribution
    if not place.exists():
        archives = FOLDER / "archives" / peer.distribution
        command = [python, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", archives]
        done = subprocess.run(
            [*map(str, command), peer.distribution], capture_output=True, text=True, check=False
        )
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:]
            raise FileNotFoundError(f"{peer.distribution} is not served: {' '.join(reason)}")
        [archive] = archives.iterdir()
        unfinished = place.with_suffix(".part")
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as whole:
                whole.extractall(unfinished)
        else:
            with tarfile.open(archive) as whole:
                whole.extractall(unfinished, filter="data")
        unfinished.rename(place)
    found = next(iter(sorted(place.rglob(f"{peer.evaluation}/rank.py"))), None)
    if found is None:
        raise FileNotFoundError(f"{peer.distribution} has no {peer.evaluation}/rank.py")
    source = found.parent / "rank_cylib" / "rank_cy.pyx"
    if source.exists() and not any(source.parent.glob("rank_cy*.so")):
        build = (
            "import numpy; from setuptools import Extension, setup; from Cython.Build import "
            "cythonize; rank = Extension('rank_cy', ['rank_cy.pyx'], include_dirs="
            "[numpy.get_include()]); setup(name='rank_cy', ext_modules=cythonize([rank]), "
            "script_args=['build_ext', '--inplace'])"
        )
        subprocess.run(
            [str(python), "-c", build], cwd=source.parent, check=True, stdout=subprocess.DEVNULL
        )
    return found.parent


def environment() -> Path:
    """Return the Python of the peers' environment, made if it is missing."""
    python = FOLDER / "venv" / "bin" / "python"
    if not python.exists():
        print(f"making {FOLDER.name}/venv with {', '.join(BUILD)}", flush=True)
        venv.create(FOLDER / "venv", with_pip=True)
        command = [str(python), "-m", "pip", "install", "--quiet", *BUILD]
        subprocess.run(command, check=True)
    return python


def loaded(path: Path, name: str) -> Any:  # noqa: ANN401
    """Return a module by its file: the packages around it import what is not installed."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def least(run: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Return the least seconds of several runs, and the last result."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def evaluate(evaluation: Path, data: Path, repeats: int) -> dict[str, Any]:
    """Return what a peer's evaluator finds, and in how many seconds for all queries."""
    compiled = next(iter(evaluation.glob("rank_cylib/rank_cy*.so")), None)
    if compiled is not None:
        function = loaded(compiled, "rank_cy").evaluate_cy
    else:
        function = loaded(evaluation / "rank.py", "rank").evaluate_rank
    with np.load(data) as arrays:
        distance, *labels = (arrays[name] for name in arrays.files)
    whole = len(distance)
    part = whole if compiled is not None else min(SOME, whole)
    given = (distance[:part], labels[0][:part], labels[1], labels[2][:part], labels[3], 50, False)
    seconds, found = least(lambda: function(*given), repeats if part == whole else 1)
    return {
        "seconds": seconds * whole / part,
        "queries": part,
        "cython": compiled is not None,
        "rank1": float(found[0][0]),
        "map": float(np.mean(found[1])),
    }


# In ours


def draw(size: str) -> dict[str, np.ndarray[Any, Any]]:
    """Return distances and labels, in the order in which evaluators take them."""
    queries, gallery, persons, cameras = SIZES[size]
    random = np.random.default_rng(1)
    return {
        "distance": -random.standard_normal((queries, gallery), np.float32),
        "query_person_id": random.integers(persons, size=queries),
        "gallery_person_id": random.integers(persons, size=gallery),
        # without cameras, none of the gallery is that of the query
        "query_camera_id": random.integers(cameras, size=queries)
        if cameras
        else np.zeros(queries, int),
        "gallery_camera_id": random.integers(cameras, size=gallery)
        if cameras
        else np.ones(gallery, int),
    }


def ours(arrays: dict[str, np.ndarray[Any, Any]], repeats: int) -> tuple[float, Any]:
    """Return the least seconds of our ranking, and what it finds."""
    import torch

    from crosswalk.metrics.ranking import rank_similarity

    similarity = torch.from_numpy(-arrays["distance"])
    labels = {name: torch.from_numpy(rows) for name, rows in arrays.items() if name != "distance"}
    return least(lambda: rank_similarity(similarity, **labels, topk=0), repeats + 1)


def differing(found: dict[str, Any], ranking: Any) -> Iterator[str]:  # noqa: ANN401
    """Yield by what a peer's results differ from ours."""
    first_hit = np.asarray(ranking.first_hit)[: found["queries"]]
    precision = np.asarray(ranking.average_precision)[: found["queries"]]
    valid = first_hit > 0
    for name, mine in (("rank1", (first_hit[valid] == 1).mean()), ("map", precision[valid].mean())):
        if abs(found[name] - float(mine)) > 1e-5:
            yield f"{name} {found[name]:.7f}, ours {float(mine):.7f}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one small size")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--evaluation", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.evaluation:
        print(json.dumps(evaluate(options.evaluation, options.data, options.repeats)))
        return 0

    from rows import report

    FOLDER.mkdir(exist_ok=True)
    python, wrong, there = environment(), [], {}
    for peer in PEERS:
        try:
            there[peer] = fetched(peer, python)
        except FileNotFoundError as error:
            print(error)
    data = FOLDER / "data.npz"
    for size in ["quick"] if options.quick else ["Market-1501", "CUHK-PEDES"]:
        arrays = draw(size)
        np.savez(data, **arrays)
        fast, ranking = ours(arrays, options.repeats)
        print(f"\n{size} size, {' x '.join(map(str, arrays['distance'].shape))}: ours {fast:.4f} s")
        for peer, evaluation in there.items():
            command = [str(python), __file__, "--evaluation", str(evaluation), "--data", str(data)]
            command += ["--repeats", str(options.repeats)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            kind = "in Cython" if found["cython"] else f"in Python, of {found['queries']} queries"
            print(f"  {peer.distribution:12}{found['seconds']:9.3f} s {kind}, "
                  f"{found['seconds'] / fast:.1f}x; rank1 {found['rank1']:.5f}, "
                  f"map {found['map']:.7f}", flush=True)  # fmt: skip
            wrong += [f"{peer.distribution}, {size}: {each}" for each in differing(found, ranking)]
            report(
                f"ranking alone, {size} size, and {peer.distribution}",
                fast,
                found["seconds"],
                against=f"{peer.distribution} {kind}",
                at_least=peer.at_least if found["cython"] and size == "Market-1501" else None,
            )
    data.unlink()
    print("\n".join(wrong) or "the same results" if there else "nothing to compare with")
    return 1 if wrong or not there else 0


if __name__ == "__main__":
    sys.exit(main())
