"""A writer is killed again and again; what it had confirmed is there, and nothing half.

It tells by a pipe what it begins and what is done, and dies at moments drawn by a seed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import faiss  # here, so that no child has to
import numpy as np
import pytest

from crosswalk.gallery import embedded, upkeep
from crosswalk.gallery.embedded import EmbeddedStore
from crosswalk.gallery.store import Condition
from tests.unit.gallery.contract import COLUMNS, DIM, Plain, drawn_meta, unit_vectors

KILLS = 30
NUMBERS = 150


def do(store: EmbeddedStore | Plain, step: tuple[str, int]) -> None:
    """Add, delete or maintain, as the seed of a step says."""
    kind, seed = step
    numbers = random.Random(seed).sample(range(NUMBERS), random.Random(seed).choice([1, 8, 40]))
    if kind == "delete":
        store.delete(numbers)
    elif kind == "add":
        vectors, meta = unit_vectors(len(numbers), seed), drawn_meta(len(numbers), seed)
        if isinstance(store, Plain):
            store.add(numbers, vectors, meta)
        else:
            store.add(numbers, {"main": vectors}, meta)
    elif isinstance(store, EmbeddedStore):
        store.maintain()


def work(folder: Path, seed: int, pipe: int) -> None:
    """Do steps without end, and tell of each that it begins and that it is done."""
    faiss.omp_set_num_threads(1)  # threads do not come along into a fork
    with EmbeddedStore(folder, dim=DIM, columns=COLUMNS, write=True) as store:
        for number in range(10_000):
            kind = random.Random(seed + number).choice(["add", "add", "delete", "maintain"])
            step = (kind, seed + number)
            os.write(pipe, f"{json.dumps(step)}\n".encode())
            do(store, step)
            os.write(pipe, b"done\n")


def killed_at(folder: Path, seed: int) -> list[str]:
    """Start a writer, kill it at a moment that the seed says, and return what it told."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work(folder, seed, writer)
        finally:
            os._exit(1)
    os.close(writer)
    wanted, told = random.Random(seed).randint(1, 4), b""
    while told.count(b"\n") < wanted:
        part = os.read(reader, 10_000)
        assert part, "the writer ended by itself"
        told += part
    time.sleep(random.Random(seed).random() * 0.004)  # into the step that goes on
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while part := os.read(reader, 10_000):
        told += part
    os.close(reader)
    return told.decode().splitlines()


def content(store: EmbeddedStore) -> dict[int, Any]:
    rows = store.scan(vectors=True)
    assert rows.vectors is not None
    parts = zip(rows.ids.tolist(), rows.vectors["main"], *rows.meta.values(), strict=True)
    return {number: (vector.tobytes(), *values) for number, vector, *values in parts}


def expected_of(plain: Plain) -> dict[int, Any]:
    return {
        number: (vector.tobytes(), *(values[name] for name in COLUMNS))
        for number, vector, values in plain.rows
    }


def test_what_was_confirmed_is_there_after_any_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "EXACT_UP_TO", 60)
    monkeypatch.setattr(embedded, "SUBSET_UP_TO", 10)
    monkeypatch.setenv("CROSSWALK_CACHE", str(tmp_path / "cache"))
    folder, plain = tmp_path / "photos.gallery", Plain()
    queries = unit_vectors(3, 12345)

    for kill in range(KILLS):
        told = killed_at(folder, seed=1000 * kill)
        begun = [json.loads(line) for line in told if line != "done"]
        confirmed = told.count("done")
        for step in begun[:confirmed]:
            do(plain, step)
        if not (folder / "rows.sqlite").exists():
            assert confirmed == 0
            continue
        with EmbeddedStore(folder, dim=DIM, columns=COLUMNS, write=True) as store:
            found = content(store)
            if found != expected_of(plain):
                assert len(begun) == confirmed + 1
                do(plain, begun[-1])
            assert found == expected_of(plain), f"kill {kill}"
            for where in ([], [Condition("place", "eq", "gate 1")]):
                result = store.search(queries, 5, where=where, exact=True)
                for place, query in enumerate(queries):
                    numbers = [number for number, _ in plain.search(query, 5, where)]
                    assert result.ids[place, : len(numbers)].tolist() == numbers
            assert np.all(store.search(queries, 5).counts == min(5, len(plain.rows)))

    assert len(list(folder.glob("*.f32"))) <= 2
