"""Galleries in Qdrant: what its local mode cannot show is shown by a client that answers worse."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crosswalk.gallery import qdrant
from crosswalk.gallery.qdrant import QdrantStore
from tests.unit.gallery.contract import DIM, unit_vectors


def store_of(tmp_path: Path, **options: Any) -> QdrantStore:  # noqa: ANN401
    given = {"dim": DIM, "columns": {"camera": "number"}, "write": True, **options}
    return QdrantStore(f"qdrant://:memory:/{tmp_path.name}", **given)


def test_the_effort_of_a_server_is_measured_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(tmp_path)
    store.add(range(100), {"main": unit_vectors(100, 1)}, {})
    store.is_local = False
    answer, efforts = store.client.query_batch_points, []

    def worse(name: str, requests: Any) -> Any:  # noqa: ANN401
        """Find everything with an effort of 256, and every second point with less."""
        effort = None if requests[0].params.exact else requests[0].params.hnsw_ef or 0
        efforts.append(effort)
        for request in requests:
            request.params = None
        found = answer(name, requests)
        if effort is not None and effort < 256:
            for each in found:
                each.points = each.points[::2]
        return found

    monkeypatch.setattr(store.client, "query_batch_points", worse)
    queries = unit_vectors(20, 2)
    exact = store.search(queries, 10, exact=True)

    stats = store.maintain(queries)
    found = store.search(queries, 10)

    assert (stats.probes, stats.recall_at_10) == (256, 1.0)
    assert efforts[-1] == 256
    np.testing.assert_array_equal(found.ids, exact.ids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 4}, "made with vectors of length 8"),
        ({"columns": {"camera": "time"}}, "the column camera is of numbers, not of times"),
        ({"views": ("a",)}, r"the views \['main'\]"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    store_of(tmp_path)

    with pytest.raises(ValueError, match=message):
        store_of(tmp_path, **options)


def test_collections_of_others_and_missing_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such collection"):
        store_of(tmp_path, write=False)
    qdrant._in_memory().create_collection(tmp_path.name, vectors_config={})

    with pytest.raises(ValueError, match="of another program"):
        store_of(tmp_path)


def test_a_reader_does_not_write(tmp_path: Path) -> None:
    store_of(tmp_path)
    reader = store_of(tmp_path, write=False)

    for write in (lambda: reader.delete([1]), reader.maintain):
        with pytest.raises(RuntimeError, match="open for reading only"):
            write()


@pytest.mark.parametrize("url", ["qdrant://", "qdrant://host", "qdrant:///a", "qdrant://h:x/a"])
def test_an_address_without_a_collection_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="names no collection"):
        QdrantStore(url, dim=DIM)


def test_the_port_of_grpc_is_named() -> None:
    with pytest.raises(ValueError, match="6333"):
        QdrantStore("qdrant://localhost:6334/photos", dim=DIM)


def test_a_server_that_does_not_answer_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"qdrant://127.0.0.1:{free.getsockname()[1]}/photos"

        with pytest.raises(RuntimeError, match=r"does not answer.*QDRANT_API_KEY"):
            QdrantStore(url, dim=DIM)


def test_a_missing_client_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(ValueError, match=r"qdrant-client: pip install .*\[qdrant\]"):
        QdrantStore("qdrant://localhost/photos", dim=DIM)
