"""The store in a folder: what it adds to the contract."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from crosswalk.gallery import embedded, index, upkeep
from crosswalk.gallery.embedded import EmbeddedStore
from crosswalk.gallery.store import Condition
from crosswalk.metrics.ranking import rank_embeddings
from tests.unit.gallery.contract import COLUMNS, DIM, Plain, drawn_meta, unit_vectors

MANY = 3000
EAST = [Condition("place", "eq", "east")]


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Index few rows, and compare all of few matches."""
    monkeypatch.setattr(upkeep, "EXACT_UP_TO", 500)
    monkeypatch.setattr(embedded, "SUBSET_UP_TO", 100)
    monkeypatch.setattr(embedded, "BATCH", 1000)
    monkeypatch.setenv("CROSSWALK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "photos.gallery"


@pytest.fixture
def store(folder: Path) -> Iterator[EmbeddedStore]:
    with EmbeddedStore(folder, dim=DIM, columns=COLUMNS, write=True) as store:
        yield store


def add(store: EmbeddedStore, first: int, count: int, seed: int = 1) -> None:
    vectors = {"main": unit_vectors(count, seed)}
    store.add(range(first, first + count), vectors, drawn_meta(count, seed))


def ids_of(
    store: EmbeddedStore,
    queries: NDArray[np.float32],
    k: int = 10,
    *,
    view: str = "main",
    where: Sequence[Condition] = (),
    exact: bool = False,
) -> list[list[int]]:
    found = store.search(queries, k, view=view, where=where, exact=exact)
    return [
        row[:count].tolist() for row, count in zip(found.ids, found.counts.tolist(), strict=True)
    ]


def recall(one: list[list[int]], other: list[list[int]]) -> float:
    shares = [len(set(a) & set(b)) / len(b) for a, b in zip(one, other, strict=True)]
    return float(np.mean(shares))


def test_the_order_is_that_of_the_ranking_of_an_evaluation(store: EmbeddedStore) -> None:
    gallery, queries = unit_vectors(700, 1), unit_vectors(40, 2)
    gallery[300:340] = gallery[100:140]
    queries[:20] = gallery[100:120]
    store.add(range(700), {"main": gallery}, {})
    ranking = rank_embeddings(
        torch.from_numpy(queries),
        torch.from_numpy(gallery),
        query_person_id=torch.arange(40),
        gallery_person_id=torch.arange(700) % 50,
        topk=50,
    )

    found = store.search(queries, 50)

    np.testing.assert_array_equal(found.ids.astype(np.int64), ranking.top_index)
    np.testing.assert_allclose(found.scores, ranking.top_score, atol=1e-6)


@pytest.mark.parametrize("tile_bytes", [1, 1000, 1 << 20])
def test_a_score_depends_on_nothing_but_the_pair(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch, tile_bytes: int
) -> None:
    add(store, 0, 400)
    queries = unit_vectors(30, 2)
    expected = store.search(queries, 7)

    monkeypatch.setattr("crosswalk.gallery.vectors.TILE_BYTES", tile_bytes)
    monkeypatch.setattr("crosswalk.gallery.vectors.QUERIES_AT_ONCE", 4)
    monkeypatch.setattr("crosswalk.gallery.vectors.FEW", 1)
    found = store.search(queries, 7)
    alone = store.search(queries[3:4], 7)

    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(alone.scores, expected.scores[3:4])


def test_many_rows_get_an_index_that_finds_most_and_says_how_many(store: EmbeddedStore) -> None:
    add(store, 0, MANY)
    queries = unit_vectors(50, 2)

    stats = store.maintain(queries)

    assert (stats.rows, stats.indexed) == (MANY, MANY)
    assert stats.recall_at_10 is not None
    assert stats.recall_at_10_of_rows is not None
    measured = recall(ids_of(store, queries), ids_of(store, queries, exact=True))
    assert measured == pytest.approx(stats.recall_at_10)
    assert 0.95 <= measured < 1  # so it was not compared with all
    assert stats.probes & (stats.probes - 1) == 0
    assert not stats.notice


def test_queries_far_from_the_rows_get_more_probes(store: EmbeddedStore) -> None:
    rows = unit_vectors(MANY, 1)
    rows[:, 0] += 1
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    texts = unit_vectors(100, 2)
    texts[:, 0] -= 1
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    store.add(range(MANY), {"main": rows}, {})

    tuned_for_rows = store.maintain()
    tuned_for_texts = store.maintain(texts)

    assert tuned_for_rows.recall_at_10 is None
    assert tuned_for_texts.probes > tuned_for_rows.probes
    assert tuned_for_texts.recall_at_10 is not None
    assert tuned_for_texts.recall_at_10 >= 0.95
    assert tuned_for_texts.indexed == MANY
    assert store.maintain(unit_vectors(100, 1)) == tuned_for_texts  # once is enough


def test_many_queries_that_want_many_lists_are_compared_with_all(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store, 0, MANY)
    queries = unit_vectors(50, 2)
    store.maintain(queries)
    expected = ids_of(store, queries, exact=True)

    monkeypatch.setattr(embedded, "BATCH", 50)
    monkeypatch.setattr(embedded, "BATCH_PROBES", 1000)

    assert ids_of(store, queries) == expected
    assert ids_of(store, queries[:49]) != expected[:49]


def test_rows_after_the_index_and_deletions_before_it_count(store: EmbeddedStore) -> None:
    add(store, 0, MANY)
    store.maintain()
    later = unit_vectors(100, 5)
    store.add(range(MANY, MANY + 100), {"main": later}, {})
    store.delete(range(0, 500))

    found = ids_of(store, later, k=1)
    all_found = ids_of(store, unit_vectors(MANY, 1)[:500])

    assert found == [[number] for number in range(MANY, MANY + 100)]
    assert min(min(row) for row in all_found) >= 500
    assert store.maintain().indexed == MANY - 500  # not yet worth a new one


@pytest.mark.parametrize(
    ("where", "exactly"),
    [
        ([Condition("camera", "eq", 3), Condition("place", "eq", "gate 1")], False),
        ([Condition("time", "eq", 40 * 10**15)], True),  # 2 % of all
        ([Condition("camera", "range", (0, 3))], False),
    ],
    ids=["a tenth", "few", "more than half"],
)
def test_conditions_on_many_rows_are_met_in_full(
    store: EmbeddedStore, where: list[Condition], exactly: bool
) -> None:
    add(store, 0, MANY)
    store.maintain()
    queries = unit_vectors(40, 8)

    found = ids_of(store, queries, where=where)
    expected = ids_of(store, queries, where=where, exact=True)

    assert all(len(row) == 10 for row in found)
    assert recall(found, expected) >= (1 if exactly else 0.9)


def test_a_condition_that_lists_of_an_index_do_not_meet_is_met_by_comparing_all(
    store: EmbeddedStore,
) -> None:
    rows = unit_vectors(MANY, 1)
    place = np.where(rows[:, 0] > 0.3, "east", "west")  # on one side of the sphere alone
    store.add(range(MANY), {"main": rows}, {"place": place})
    store.maintain()
    query = np.eye(DIM, dtype=np.float32)[:1] * -1

    found = ids_of(store, query, k=400, where=EAST)

    assert found == ids_of(store, query, 400, where=EAST, exact=True)


def test_an_index_of_somebody_else_is_not_read(
    store: EmbeddedStore, folder: Path, tmp_path: Path
) -> None:
    add(store, 0, MANY)
    made = store.maintain()
    shutil.copytree(folder, tmp_path / "copy.gallery")

    with EmbeddedStore(tmp_path / "copy.gallery", dim=DIM) as copy:
        stats = copy.stats()
        queries = unit_vectors(20, 3)
        assert ids_of(copy, queries) == ids_of(store, queries, exact=True)
    with EmbeddedStore(tmp_path / "copy.gallery", dim=DIM, write=True) as copy:
        mended = copy.maintain()

    assert (made.indexed, stats.indexed, mended.indexed) == (MANY, 0, MANY)
    assert "was not made by you" in stats.notice
    assert str(tmp_path / "copy.gallery") in stats.notice
    assert not mended.notice


@pytest.mark.parametrize("content", [b"", b"nothing that faiss knows", None])
def test_an_index_that_was_changed_is_only_rebuilt(
    store: EmbeddedStore, folder: Path, content: bytes | None
) -> None:
    add(store, 0, MANY)
    store.maintain()
    queries = unit_vectors(20, 3)
    expected = ids_of(store, queries, exact=True)
    store.close()
    (path,) = folder.glob("index-*.faiss")
    path.unlink()
    if content is not None:
        path.write_bytes(content)
        (folder.parent / "cache" / "galleries").mkdir(exist_ok=True)
        index._note(path).write_text("")  # even if the note says that it is ours

    with EmbeddedStore(folder, dim=DIM) as reader:
        assert reader.stats().indexed == 0
        assert reader.stats().notice
        assert ids_of(reader, queries) == expected
    with EmbeddedStore(folder, dim=DIM, write=True) as writer:
        assert writer.maintain().indexed == MANY
    assert [each.name for each in folder.glob("index-*")] == ["index-main-0-2.faiss"]


def test_a_compaction_drops_what_was_deleted_and_keeps_the_order(
    store: EmbeddedStore, folder: Path
) -> None:
    plain = Plain()
    vectors, meta = unit_vectors(200, 1), drawn_meta(200, 1)
    vectors[50:150] = vectors[10]
    store.add(range(200), {"main": vectors}, meta)
    plain.add(range(200), vectors, meta)
    ids = list(range(0, 200, 3))
    store.delete(ids)
    plain.delete(ids)
    reader = EmbeddedStore(folder, dim=DIM)
    before = reader.search(vectors[10:11], 200)

    stats = store.maintain()

    assert (stats.rows, stats.deleted, stats.generation) == (133, 0, 1)
    assert [each.name for each in folder.glob("*.f32")] == ["main-1.f32"]
    assert (folder / "main-1.f32").stat().st_size == 133 * DIM * 4
    for each in (store, reader):
        found = each.search(vectors[10:11], 200)
        np.testing.assert_array_equal(found.ids, before.ids)
        np.testing.assert_array_equal(found.scores, before.scores)
        assert each.get([1, 199]).meta["camera"] == [meta["camera"][1], meta["camera"][199]]
    reader.close()


def test_a_reader_sees_what_is_confirmed_and_asks_for_nothing_twice(
    store: EmbeddedStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store, 0, 50)
    where = [Condition("camera", "range", (None, None))]
    with EmbeddedStore(folder, dim=DIM) as reader:
        reader.search(unit_vectors(1, 1), 3, where=where)
        asked = []
        column = type(reader._rows).column
        monkeypatch.setattr(
            type(reader._rows),
            "column",
            lambda self, name, start, end: (
                asked.append((start, end)) or column(self, name, start, end)
            ),
        )

        add(store, 50, 10, seed=2)
        found = ids_of(reader, unit_vectors(10, 2)[:1], k=1)
        reader.search(unit_vectors(1, 1), 3, where=where)
        store.delete(found[0])
        again = ids_of(reader, unit_vectors(10, 2)[:1], k=1)
        reader.search(unit_vectors(1, 1), 3, where=where)

        assert found == [[50]]
        assert again != [[50]]
        assert len(reader) == 59
        assert asked == [(50, 60)]


def test_threads_share_a_store(store: EmbeddedStore, folder: Path) -> None:
    add(store, 0, 300)
    queries = unit_vectors(300, 1)
    where = [Condition("camera", "range", (None, None))]
    stays = [
        number
        for number, camera in enumerate(drawn_meta(300, 1)["camera"])
        if camera is not None and number >= 100
    ]

    def look(number: int) -> tuple[int, int]:
        (found,) = ids_of(reader, queries[number : number + 1], k=1, where=where)
        return found[0], int(reader.get(found).ids[0])

    with EmbeddedStore(folder, dim=DIM) as reader, ThreadPoolExecutor(8) as pool:
        looking = [pool.submit(look, number) for number in stays * 3]
        for first in range(0, 100, 10):  # until a compaction is due, and beyond
            store.delete(range(first, first + 10))
            store.maintain()
        found = [each.result() for each in looking]

    assert found == [(number, number) for number in stays * 3]


def test_a_second_writer_and_writing_readers_are_refused(
    store: EmbeddedStore, folder: Path
) -> None:
    with pytest.raises(RuntimeError, match="is being written by another process"):
        EmbeddedStore(folder, dim=DIM, write=True)
    with EmbeddedStore(folder, dim=DIM) as reader:
        for write in (lambda: reader.delete([1]), reader.maintain, lambda: add(reader, 0, 1)):
            with pytest.raises(RuntimeError, match="open for reading only"):
                write()
    store.close()
    EmbeddedStore(folder, dim=DIM, write=True).close()


def test_a_gallery_that_may_not_be_written_to_is_read(
    store: EmbeddedStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store, 0, 20)
    store.close()
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    connect = sqlite3.connect

    def without_room(place: str, **options: Any) -> sqlite3.Connection:  # noqa: ANN401
        """Do as SQLite in a folder where it cannot make its files, which root always can."""
        if "immutable" not in place:
            raise sqlite3.OperationalError("unable to open database file")
        return connect(place, **options)

    monkeypatch.setattr(sqlite3, "connect", without_room)

    with EmbeddedStore(folder, dim=DIM) as reader:
        assert ids_of(reader, unit_vectors(20, 1)[4:5], k=1) == [[4]]
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_several_views_are_searched_by_name(tmp_path: Path) -> None:
    one, other = unit_vectors(600, 1), unit_vectors(600, 2)
    with EmbeddedStore(tmp_path / "two", dim=DIM, views=("global", "tokens"), write=True) as store:
        store.add(range(600), {"global": one, "tokens": other}, {})

        assert store.maintain().indexed == 600
        assert ids_of(store, one[7:8], k=1, view="global") == [[7]]
        assert ids_of(store, other[9:10], k=1, view="tokens") == [[9]]
        vectors = store.get([5], vectors=True).vectors
        assert vectors is not None
        np.testing.assert_array_equal(vectors["tokens"], other[5:6])
    with pytest.raises(ValueError, match="holds the views global, tokens, not main"):
        EmbeddedStore(tmp_path / "two", dim=DIM)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dim": 9}, "vectors of length 8, and the model's have 9"),
        (
            {"dim": DIM, "columns": {"camera": "text"}},
            "camera is of numbers, not of texts",
        ),
        ({"dim": 0}, "length 0"),
        ({"dim": DIM, "columns": {"camera": "colour"}}, "choose one of number, text, time"),
        ({"dim": DIM, "views": ("../main",)}, "small letters"),
    ],
)
def test_what_does_not_fit_is_refused(
    store: EmbeddedStore, folder: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        EmbeddedStore(folder, **given)


ids = st.lists(st.integers(0, 12), max_size=6, unique=True)
steps = st.lists(
    st.tuples(st.sampled_from(["add", "delete", "compact", "reopen"]), ids), max_size=8
)


@settings(max_examples=20)
@given(steps=steps)
def test_any_order_of_changes_leaves_what_a_list_holds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, list[int]]]
) -> None:
    folder = tmp_path_factory.mktemp("any") / "photos.gallery"
    plain, queries = Plain(), unit_vectors(2, 99)
    reader = None
    store = EmbeddedStore(folder, dim=DIM, columns=COLUMNS, write=True)
    for seed, (step, numbers) in enumerate(steps):
        if step == "add":
            vectors, meta = unit_vectors(len(numbers), seed), drawn_meta(len(numbers), seed)
            store.add(numbers, {"main": vectors}, meta)
            plain.add(numbers, vectors, meta)
        elif step == "delete":
            assert store.delete(numbers) == plain.delete(numbers)
        elif step == "compact":
            store.maintain()
        else:
            store.close()
            store = EmbeddedStore(folder, dim=DIM, write=True)
        reader = reader or EmbeddedStore(folder, dim=DIM)
        for each in (store, reader):
            for where in ([], [Condition("place", "in", ["gate 0", "gate 1"])]):
                expected = [[n for n, _ in plain.search(q, 5, where)] for q in queries]
                assert ids_of(each, queries, k=5, where=where) == expected
    store.close()
    if reader is not None:
        reader.close()


def test_what_the_folder_remembers_of_an_index_is_not_believed_blindly(
    store: EmbeddedStore, folder: Path
) -> None:
    add(store, 0, MANY)
    store.maintain()
    for known in ('{"main": [0, 1, 99999, 4, null, 1.0]}', "[]", json.dumps({"other": [0] * 6})):
        with store._rows.transaction(write=True):
            store._rows.set_indexes(known)
        with EmbeddedStore(folder, dim=DIM) as reader:
            assert ids_of(reader, unit_vectors(MANY, 1)[7:8], k=1) == [[7]]
            assert reader.stats().indexed == 0
