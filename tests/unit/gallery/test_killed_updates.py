"""Building and updating a gallery is killed again and again; the same call goes on."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from torch import Tensor

from crosswalk import Gallery
from crosswalk.gallery import update
from crosswalk.gallery.embedded import EmbeddedStore
from crosswalk.use.model import Model
from tests.unit.gallery.test_gallery import draw

KILLS, PICTURES = 30, 60


class ByContent(Model):
    """Embeds the bytes of a file, so that everybody knows what is right."""

    name, source, fingerprint, embedding_size = "by content", "", "0" * 16, 8  # type: ignore[assignment]
    tokenizer = None

    def __init__(self) -> None:
        pass

    def embed_images(self, images: Any, **_: Any) -> Tensor:  # noqa: ANN401
        return torch.from_numpy(np.stack([vector_of(Path(image)) for image in images] or [[]]))


def vector_of(path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    digest = hashlib.sha256(path.read_bytes()).digest()
    vector = np.random.default_rng(int.from_bytes(digest[:8], "little")).normal(size=8)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def killed(gallery: Path, photos: Path, seed: int) -> set[bytes]:
    """Start an update, kill it at a moment of the seed; return the paths that were confirmed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            faiss.omp_set_num_threads(1)
            add = EmbeddedStore.add

            def telling(self: EmbeddedStore, ids: Any, vectors: Any, meta: Any) -> None:  # noqa: ANN401
                add(self, ids, vectors, meta)
                os.write(writer, b"".join(os.fsencode(path) + b"\n" for path in meta["path"]))

            EmbeddedStore.add = telling  # type: ignore[method-assign]
            Gallery.build(gallery, ByContent(), photos, prune=True).close()
        finally:
            os._exit(1)
    os.close(writer)
    draws = random.Random(seed)
    wanted, told = draws.randint(0, PICTURES // 2), b""
    while told.count(b"\n") < wanted and (part := os.read(reader, 10_000)):
        told += part
    time.sleep(draws.random() * 0.01)  # into the step that goes on
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while part := os.read(reader, 10_000):
        told += part
    os.close(reader)
    return set(told[: told.rfind(b"\n") + 1].splitlines())


def change(photos: Path, seed: int) -> None:
    """Change, add and remove a few pictures."""
    draws = random.Random(seed)
    names = sorted(photos.glob("*.png"))
    for name in draws.sample(names, 6):
        draw(name, draws.randrange(10**6))
    for name in draws.sample(names, 4):
        name.unlink()
    for _ in range(4):
        draw(photos / f"{draws.randrange(10**9)}.png", draws.randrange(10**6))


def test_nothing_that_was_confirmed_is_lost_by_kills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "AT_ONCE", 4)
    gallery, photos = tmp_path / "g", tmp_path / "photos"
    for seed in range(PICTURES):
        draw(photos / f"{seed}.png", seed)
    interrupted, so_far = 0, dict[str, Any]()

    for kill in range(KILLS):
        if kill >= KILLS // 2:  # until then it is built, from then on updated
            change(photos, kill)
        confirmed = killed(gallery, photos, kill)
        interrupted += len(confirmed) < PICTURES
        if not (gallery / "gallery.json").exists() or not (gallery / "rows.sqlite").exists():
            assert not confirmed
            continue
        with Gallery(gallery, model=ByContent()) as opened:
            there = opened._store.scan(vectors=True)
        assert there.vectors is not None
        paths = dict(zip(there.meta["path"], there.vectors["main"], strict=True))
        so_far |= {name: vector_of(Path(name)) for name in map(os.fsdecode, confirmed)}
        for name, vector in so_far.items():  # also of the kills before
            now = vector_of(Path(name)) if Path(name).exists() else vector
            assert name in paths or not Path(name).exists()
            assert name not in paths or any(map(np.array_equal, [paths[name]] * 2, [vector, now]))
        if kill % 5 == 4:  # what goes on ends as what was never stopped
            Gallery.build(gallery, ByContent(), photos, prune=True).close()
            with Gallery(gallery, model=ByContent()) as whole:
                rows = whole._store.scan(vectors=True)
            assert rows.vectors is not None
            assert sorted(rows.meta["path"]) == sorted(map(str, photos.glob("*.png")))
            for path, vector in zip(rows.meta["path"], rows.vectors["main"], strict=True):
                np.testing.assert_array_equal(vector, vector_of(Path(path)))
            so_far = dict(zip(rows.meta["path"], rows.vectors["main"], strict=True))
            if kill < KILLS // 2:
                Gallery.remove(gallery, photos)
                so_far = {}

    assert interrupted > KILLS // 2
