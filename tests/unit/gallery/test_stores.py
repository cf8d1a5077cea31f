"""What every store does, in a folder and in Qdrant's local mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crosswalk.gallery.open import open_store
from crosswalk.gallery.store import Condition, Kind, Store
from tests.unit.gallery.contract import COLUMNS, DIM, Plain, drawn_meta, unit_vectors

LARGEST = 2**64 - 1
CONDITIONS: dict[str, list[Condition]] = {
    "nothing": [],
    "a number": [Condition("camera", "eq", 2)],
    "a number that is not there": [Condition("camera", "eq", 2.5)],
    "numbers": [Condition("camera", "in", [0, 3, 17])],
    "no numbers": [Condition("camera", "in", [])],
    "a range of numbers": [Condition("camera", "range", (1, 3))],
    "an empty range": [Condition("camera", "range", (3, 3))],
    "a number or more": [Condition("camera", "range", (2.5, None))],
    "any number": [Condition("camera", "range", (None, None))],
    "a text": [Condition("place", "eq", "gate 1")],
    "texts": [Condition("place", "in", ("gate 0", "gate 2", "nowhere"))],
    "a text that is not there": [Condition("place", "eq", "gate 1'; DROP TABLE rows; --")],
    "a time": [Condition("time", "eq", 30 * 10**15)],
    "before a time": [Condition("time", "range", (None, 20 * 10**15))],
    "from a time to another": [Condition("time", "range", (20 * 10**15, 40 * 10**15))],
    "all of it": [
        *(Condition("camera", "in", [0, 1, 2]), Condition("place", "in", ["gate 0", "gate 1"])),
        Condition("time", "range", (10**16, None)),
    ],
}


@pytest.fixture(params=["folder", "qdrant"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "qdrant":
        return f"qdrant://:memory:/{tmp_path.name}"
    return str(tmp_path / "photos.gallery")


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with open_store(url, dim=DIM, columns=COLUMNS, write=True) as store:
        yield store


def filled(store: Store, count: int = 60, seed: int = 1) -> Plain:
    """Fill a store in batches of different sizes; some vectors are there more than once."""
    plain = Plain()
    vectors = unit_vectors(count, seed)
    vectors[count // 2 : count // 2 + 8] = vectors[3]
    meta = drawn_meta(count, seed)
    ids = np.random.default_rng(seed).permutation(count).tolist()
    ids[5] = LARGEST
    start = 0
    for size in (1, 7, 13, count):
        some = slice(start, start + size)
        batch = {name: values[some] for name, values in meta.items()}
        if ids[some]:
            store.add(ids[some], {"main": vectors[some]}, batch)
            plain.add(ids[some], vectors[some], batch)
        start += size
    return plain


def assert_finds(
    store: Store, plain: Plain, k: int, where: list[Condition], seed: int = 9, number: int = 7
) -> None:
    queries = unit_vectors(number, seed)
    queries[0] = unit_vectors(60, 1)[3]  # equal to several rows

    found = store.search(queries, k, where=where)

    assert found.ids.shape == found.scores.shape == (number, k)
    for place, query in enumerate(queries):
        expected = plain.search(query, k, where)
        count = int(found.counts[place])
        assert found.ids[place, :count].tolist() == [number for number, _ in expected]
        scores = [score for _, score in expected]
        np.testing.assert_allclose(found.scores[place, :count], scores, atol=1e-6)
        assert (found.ids[place, count:] == 0).all()
        assert (found.scores[place, count:] == -np.inf).all()


@pytest.mark.parametrize("k", [1, 5, 100])
@pytest.mark.parametrize("where", CONDITIONS.values(), ids=list(CONDITIONS))
def test_a_search_finds_what_a_loop_finds(store: Store, where: list[Condition], k: int) -> None:
    plain = filled(store)

    assert_finds(store, plain, k, where)


def test_rows_of_one_id_are_replaced_and_count_as_added_last(store: Store) -> None:
    plain = filled(store)
    ids, meta = [row[0] for row in plain.rows[3:40:4]], drawn_meta(10, 5)
    vectors = np.repeat(unit_vectors(60, 1)[3:4], 10, axis=0)  # as others that stay

    store.add(ids, {"main": vectors}, meta)
    plain.add(ids, vectors, meta)

    assert len(store) == len(plain.rows) == 60
    assert_finds(store, plain, 60, [])
    assert_finds(store, plain, 5, [Condition("camera", "eq", 1)])


def test_deleted_rows_are_found_no_more(store: Store) -> None:
    plain = filled(store)
    ids = [row[0] for row in plain.rows[::3]]

    assert store.delete([*ids, 12345, ids[0]]) == plain.delete(ids) == 20
    assert store.delete(ids) == 0

    assert len(store) == 40
    assert_finds(store, plain, 60, [])
    with pytest.raises(KeyError, match=str(ids[1])):
        store.get([plain.rows[0][0], *ids[1:]])


def test_rows_come_back_as_they_were_stored_in_the_order_asked(store: Store) -> None:
    plain = filled(store)
    asked = [plain.rows[place] for place in (40, 5, 0, 40)]

    rows = store.get([row[0] for row in asked], vectors=True)

    assert rows.ids.tolist() == [row[0] for row in asked]
    assert rows.meta == {name: [row[2][name] for row in asked] for name in COLUMNS}
    assert rows.vectors is not None
    np.testing.assert_array_equal(rows.vectors["main"], [row[1] for row in asked])
    assert store.get([]).ids.tolist() == []
    assert store.get([LARGEST]).vectors is None


def test_a_scan_goes_through_all_rows_by_id(store: Store) -> None:
    plain = filled(store)
    ordered = sorted(plain.rows, key=lambda row: row[0])

    first = store.scan(None, 25, vectors=True)
    second = store.scan(int(first.ids[-1]), 100, columns=["place"])

    assert first.ids.tolist() + second.ids.tolist() == [row[0] for row in ordered]
    assert first.vectors is not None
    np.testing.assert_array_equal(first.vectors["main"], [row[1] for row in ordered[:25]])
    assert first.meta["time"] == [row[2]["time"] for row in ordered[:25]]
    assert second.meta == {"place": [row[2]["place"] for row in ordered[25:]]}
    assert store.scan(LARGEST).ids.tolist() == store.scan(limit=0).ids.tolist() == []
    assert store.scan(columns=[]).ids.tolist() == [row[0] for row in ordered]


def test_an_empty_store_finds_nothing(store: Store) -> None:
    found = store.search(unit_vectors(2, 0), 3, where=[Condition("camera", "eq", 1)])

    assert found.counts.tolist() == [0, 0]
    assert found.ids.tolist() == [[0] * 3] * 2
    assert len(store) == len(store.scan().ids) == store.delete([1]) == store.stats().rows == 0
    assert store.maintain().rows == 0
    assert store.search(np.empty((0, DIM), np.float32), 3).ids.shape == (0, 3)


def test_missing_values_are_none_and_columns_may_be_left_out(store: Store) -> None:
    missing = {"camera": np.array([np.nan, 2.0]), "time": [None, np.int64(5)]}

    store.add([1, 2], {"main": unit_vectors(2, 1)}, missing)

    assert store.get([1, 2]).meta == {
        "camera": [None, 2.0],
        "place": [None, None],
        "time": [None, 5],
    }


def test_texts_of_any_kind_are_kept_and_found(store: Store) -> None:
    texts = ["", "naïve 名前", "a'b\"c;--", "nul\0nul", "not UTF-8 \udcff.jpg", "lone \ud800", "%"]
    store.add(range(7), {"main": unit_vectors(7, 1)}, {"place": texts})

    assert store.get(range(7)).meta["place"] == texts
    for number, text in enumerate(texts):
        found = store.search(unit_vectors(1, 2), 7, where=[Condition("place", "eq", text)])
        assert found.ids[0, : found.counts[0]].tolist() == [number], text


def test_a_store_opened_again_holds_what_it_held(url: str) -> None:
    with open_store(url, dim=DIM, columns=COLUMNS, write=True) as store:
        plain = filled(store)

    with open_store(url, dim=DIM) as again:
        assert again.columns == COLUMNS
        assert_finds(again, plain, 10, [Condition("place", "eq", "gate 1")])


def test_the_values_of_a_column_are_told_in_order(store: Store) -> None:
    plain = filled(store)
    store.delete([plain.rows[0][0]])
    left = [values for _, _, values in plain.rows[1:]]

    for name in COLUMNS:
        expected = sorted({values[name] for values in left} - {None})
        assert store.values(name) == expected
        assert store.values(name, 2) == expected[:2]


def test_columns_may_be_added_later_and_are_missing_in_what_was_there(url: str) -> None:
    more: dict[str, Kind] = {"camera": "number", "shop": "text"}
    with open_store(url, dim=DIM, columns=COLUMNS, write=True) as store:
        store.add([1], {"main": unit_vectors(1, 1)}, {"camera": [3]})

    with open_store(url, dim=DIM, columns=more, write=True) as store:
        store.add([2], {"main": unit_vectors(1, 2)}, {"camera": [3], "shop": ["a"]})
        found = store.search(unit_vectors(1, 1), 5, where=[Condition("shop", "eq", "a")])
        rows = store.get([1, 2]).meta

    assert found.ids[0].tolist() == [2, 0, 0, 0, 0]
    assert rows["shop"] == [None, "a"]
    assert rows["camera"] == [3, 3]
    assert set(rows) == {*COLUMNS, "shop"}


def test_a_column_keeps_its_kind(url: str) -> None:
    open_store(url, dim=DIM, columns=COLUMNS, write=True).close()

    with pytest.raises(ValueError, match="the column camera is of numbers, not of texts"):
        open_store(url, dim=DIM, columns={"camera": "text"}, write=True)


WRONG: dict[str, tuple[Callable[[Store], Any], str]] = {
    "an unknown column": (
        lambda store: store.search(unit_vectors(1, 1), 1, where=[Condition("camra", "eq", 1)]),
        "no column 'camra'. Did you mean camera?",
    ),
    "a text for a number": (
        lambda store: store.search(unit_vectors(1, 1), 1, where=[Condition("camera", "eq", "a")]),
        "'camera' holds numbers, and 'a' is none",
    ),
    "a number for a text": (
        lambda store: store.search(unit_vectors(1, 1), 1, where=[Condition("place", "in", [3])]),
        "'place' holds texts, and 3 is none",
    ),
    "a half for a time": (
        lambda store: store.search(
            unit_vectors(1, 1), 1, where=[Condition("time", "range", (0.5, None))]
        ),
        "whole microseconds",
    ),
    "a range of texts": (
        lambda store: store.search(
            unit_vectors(1, 1), 1, where=[Condition("place", "range", ("a", "b"))]
        ),
        "no ranges",
    ),
    "a range of three": (
        lambda store: store.search(
            unit_vectors(1, 1), 1, where=[Condition("camera", "range", (1, 2, 3))]
        ),
        "no range of 'camera'",
    ),
    "an unknown condition": (
        lambda store: store.search(
            unit_vectors(1, 1),
            1,
            where=[Condition("camera", "like", 1)],  # type: ignore[arg-type]
        ),
        "choose eq, in or range",
    ),
    "no results": (lambda store: store.search(unit_vectors(1, 1), 0), "k=0"),
    "an unknown view": (lambda store: store.search(unit_vectors(1, 1), 1, view="a"), "no view 'a'"),
    "queries of another length": (
        lambda store: store.search(unit_vectors(1, 1, dim=3), 1),
        r"\[1, 3\].*vectors of length 8",
    ),
    "a query of zeros": (
        lambda store: store.search(np.zeros((1, DIM), np.float32), 1),
        "no unit vector",
    ),
    "vectors that are not finite": (
        lambda store: store.add([1], {"main": np.full((1, DIM), np.nan, np.float32)}, {}),
        "row 0 of the vectors of main holds NaN",
    ),
    "fewer vectors than ids": (
        lambda store: store.add([1, 2], {"main": unit_vectors(1, 1)}, {}),
        "2 ids and 1 vectors",
    ),
    "fewer values than ids": (
        lambda store: store.add([1], {"main": unit_vectors(1, 1)}, {"camera": []}),
        "1 ids and 0 values",
    ),
    "another view": (lambda store: store.add([1], {"a": unit_vectors(1, 1)}, {}), "for .'main'."),
    "an id twice": (
        lambda store: store.add([7, 7], {"main": unit_vectors(2, 1)}, {}),
        "the id 7 is given 2 times",
    ),
    "a negative id": (lambda store: store.delete([-1]), "the id -1"),
    "an id beyond 64 bits": (lambda store: store.get([2**64]), "the id 18446744073709551616"),
    "an id that is a text": (lambda store: store.get(["a"]), "the id 'a'"),
    "a column that is not there": (
        lambda store: store.add([1], {"main": unit_vectors(1, 1)}, {"colour": ["red"]}),
        "no column 'colour'",
    ),
    "a scan of such a column": (lambda store: store.scan(columns=["colour"]), "no column 'colour'"),
    "a negative limit": (lambda store: store.scan(limit=-1), "limit=-1"),
}


@pytest.mark.parametrize(("use", "message"), WRONG.values(), ids=list(WRONG))
def test_a_mistake_is_named_and_changes_nothing(
    store: Store, use: Callable[[Store], Any], message: str
) -> None:
    plain = filled(store)

    with pytest.raises(ValueError, match=message):
        use(store)

    assert_finds(store, plain, 60, [])
