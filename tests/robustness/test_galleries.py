"""Damaged and foreign galleries: every use says which file it is and what to do, or just works."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from crosswalk.gallery import upkeep
from crosswalk.gallery.embedded import EmbeddedStore
from crosswalk.gallery.store import Condition
from tests.robustness.damage import ARCHIVE, damage
from tests.unit.gallery.contract import COLUMNS, DIM, drawn_meta, unit_vectors

ROWS = 60
REFUSALS = (ValueError, FileNotFoundError)
NOTHING_WRONG = ""
QUERY = unit_vectors(1, 9)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a gallery as a writer leaves it; copied, not changed."""
    folder = tmp_path_factory.mktemp("whole") / "photos.gallery"
    with EmbeddedStore(folder, dim=DIM, columns=COLUMNS, write=True) as store:
        store.add(range(ROWS), {"main": unit_vectors(ROWS, 1)}, drawn_meta(ROWS, 1))
        store.delete([3, 4])
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CROSSWALK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(whole, tmp_path / "photos.gallery"))


def read(folder: Path) -> None:
    """Ask everything that a reader can ask."""
    with EmbeddedStore(folder, dim=DIM) as store:
        store.search(QUERY, 5)
        store.search(QUERY, 5, where=[Condition("camera", "range", (1, None))])
        store.search(QUERY, 5, where=[Condition("place", "eq", "gate 1")])
        store.search(QUERY, 5, where=[Condition("time", "range", (None, 10**16))])
        numbers = store.scan(vectors=True).ids
        store.get(numbers[:5], vectors=True)
        store.values("place")
        store.stats()
        len(store)


def write(folder: Path) -> None:
    """Do everything that a writer can do."""
    with EmbeddedStore(folder, dim=DIM, write=True) as store:
        store.add([1, 777], {"main": unit_vectors(2, 2)}, drawn_meta(2, 2))
        store.delete([2, 5])
        store.maintain()
        store.search(QUERY, 5)


def assert_refused(folder: Path, use: Callable[[Path], None], words: str) -> None:
    """Check that a use is refused by words, which name the folder; without words it may work."""
    try:
        use(folder)
    except REFUSALS as error:
        said = str(error)
        assert words in said, said
        assert str(folder) in said
        assert "crosswalk index MODEL FOLDER --out" in said or "made with another model" in said
        assert len(said) < 1000
    else:
        assert words == NOTHING_WRONG
    assert not Path("exploited.txt").exists()


@pytest.mark.parametrize("use", [read, write])
@pytest.mark.parametrize("file", ["rows.sqlite", "main-0.f32"])
@pytest.mark.parametrize("name", ARCHIVE)
def test_a_damaged_file_is_named(
    folder: Path, name: str, file: str, use: Callable[[Path], None]
) -> None:
    damage(folder / file, ARCHIVE[name])
    same_size = name in ("zeros", "flipped")  # what a vector should be, nobody else knows
    words = NOTHING_WRONG if file == "main-0.f32" and same_size else file

    assert_refused(folder, use, NOTHING_WRONG if name == "flipped" else words)


CHANGES: dict[str, tuple[str, str]] = {
    "a trigger": (
        "CREATE TRIGGER t AFTER INSERT ON rows BEGIN DELETE FROM rows; END",
        "tables are not those",
    ),
    "a view": ("CREATE VIEW v AS SELECT * FROM rows", "tables are not those"),
    "a table more": ("CREATE TABLE more (a)", "tables are not those"),
    "an index more": ("CREATE INDEX more ON rows (c0)", "tables are not those"),
    "an index of calls": ("CREATE INDEX more ON rows (abs(c0))", "tables are not those"),
    "a column more": ("ALTER TABLE rows ADD COLUMN c9", "tables are not those"),
    "a table less": ("DROP TABLE deletions", "tables are not those"),
    "no settings": ("DROP TABLE settings", "of what shape"),
    "empty settings": ("DELETE FROM settings", "of what shape"),
    "another program": ("PRAGMA application_id=7", "a database of another program (it holds"),
    "a later format": ("PRAGMA user_version=2", "it has the format 2"),
    "no shape": ("UPDATE settings SET value = 'null' WHERE name = 'shape'", "of what shape"),
    "a deep shape": (
        f"UPDATE settings SET value = '{'[' * 100_000}' WHERE name = 'shape'",
        "of what shape",
    ),
    "a shape of bytes": ("UPDATE settings SET value = x'ff' WHERE name = 'shape'", "of what shape"),
    "a foreign kind": (
        """UPDATE settings SET value = '[8, ["main"], [["a", "blob"]]]' WHERE name = 'shape'""",
        "of what shape",
    ),
    "another length": (
        f"""UPDATE settings SET value = '{json.dumps([10**12, ["main"], [*COLUMNS.items()]])}'
        WHERE name = 'shape'""",
        "made with another model",
    ),
    "no end": ("DELETE FROM settings WHERE name = 'end'", "as many rows as it says"),
    "a far end": (f"UPDATE settings SET value = {2**62} WHERE name = 'end'", "as many rows"),
    "a near end": ("UPDATE settings SET value = 1 WHERE name = 'end'", "as many rows"),
    "an end before the start": ("UPDATE settings SET value = -1 WHERE name = 'end'", "as many"),
    "an end that is a text": ("UPDATE settings SET value = 'x' WHERE name = 'end'", "as many rows"),
    "a far row": (
        f'UPDATE rows SET "row" = {2**62 - 1} WHERE "row" = 59; '
        f"UPDATE settings SET value = {2**62} WHERE name = 'end'",
        "rows are missing",
    ),
    "a row less": ('DELETE FROM rows WHERE "row" = 20', "rows are missing"),
    "no rows": ("DELETE FROM rows", "as many rows"),
    "another generation": ("UPDATE settings SET value = 5 WHERE name = 'generation'", "main-5.f32"),
    "a generation elsewhere": (
        "UPDATE settings SET value = '../../x' WHERE name = 'generation'",
        "which files belong",
    ),
    "indexes of bytes": ("UPDATE settings SET value = x'00' WHERE name = 'indexes'", "which files"),
    "deep indexes": (
        f"UPDATE settings SET value = '{'[' * 100_000}' WHERE name = 'indexes'",
        NOTHING_WRONG,
    ),
    "a deletion of nothing": ('INSERT INTO deletions ("row") VALUES (60)', "deleted rows"),
    "a deletion before the start": ('INSERT INTO deletions ("row") VALUES (-1)', "deleted rows"),
    "a deletion of a text": ("INSERT INTO deletions (\"row\") VALUES ('a')", "other than numbers"),
    "deletions without end": (
        "UPDATE deletions SET number = 10000 WHERE number = 2",
        "as many rows",
    ),
    "an id that is a text": ("UPDATE rows SET id = 'a' WHERE id % 2", "other than numbers"),
    "a number that is a text": ("UPDATE rows SET c0 = 'a'", "'camera' holds something other"),
    "a text that is a number": ("UPDATE rows SET c1 = 5", "'place' holds something other"),
    "a time that is a fraction": ("UPDATE rows SET c2 = 0.5", "'time' holds something other"),
    "a text that is none": ("UPDATE rows SET c1 = CAST(x'ff' AS TEXT)", "rows.sqlite"),
    "a text of bytes": ("UPDATE rows SET c1 = x'ff'", "'place' holds"),
    "an enormous text": ('UPDATE rows SET c1 = zeroblob(17000000) WHERE "row" = 9', "rows.sqlite"),
}


@pytest.mark.parametrize(("statements", "words"), CHANGES.values(), ids=list(CHANGES))
def test_a_database_that_was_tampered_with_is_refused(
    folder: Path, statements: str, words: str
) -> None:
    connection = sqlite3.connect(folder / "rows.sqlite")
    connection.executescript(statements)
    connection.close()

    assert_refused(folder, read, words)
    try:  # what a reader alone looks at may not matter here
        write(folder)
    except REFUSALS as error:
        assert str(folder) in str(error)  # noqa: PT017


def test_a_changed_definition_is_refused(folder: Path) -> None:
    connection = sqlite3.connect(folder / "rows.sqlite")
    connection.executescript(
        "PRAGMA writable_schema=ON;"
        "UPDATE sqlite_master SET sql = replace(sql, 'c0', 'c0 DEFAULT (randomblob(9))')"
    )
    connection.close()

    for use in (read, write):
        assert_refused(folder, use, "tables are not those")


def test_the_database_of_another_program_is_named(folder: Path) -> None:
    (folder / "rows.sqlite").unlink()
    connection = sqlite3.connect(folder / "rows.sqlite")
    connection.executescript("CREATE TABLE urls (url); CREATE TABLE visits (id)")
    connection.close()

    for use in (read, write):
        assert_refused(folder, use, "another program (it holds urls, visits)")


@pytest.mark.parametrize("file", ["rows.sqlite", "main-0.f32"])
def test_a_folder_in_the_place_of_a_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    (folder / file).mkdir()

    for use in (read, write):
        assert_refused(folder, use, file)


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "photos.gallery").write_text("")

    for use in (read, write):
        with pytest.raises(ValueError, match=r"photos\.gallery is a file: a gallery is a folder"):
            use(tmp_path / "photos.gallery")


def test_a_missing_gallery_is_named_and_not_made(tmp_path: Path) -> None:
    assert_refused(tmp_path / "photos.gallery", read, "there is no gallery in")
    assert not (tmp_path / "photos.gallery").exists()


def test_a_folder_of_something_else_is_no_gallery(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"")

    assert_refused(tmp_path, read, "there is no gallery in")
    assert [path.name for path in tmp_path.iterdir()] == ["1.jpg"]


@pytest.mark.parametrize("use", [read, write])
def test_bytes_changed_anywhere_do_no_harm(folder: Path, use: Callable[[Path], None]) -> None:
    path = folder / "rows.sqlite"
    content, random = path.read_bytes(), np.random.default_rng(1)
    refused = 0
    for number in range(20):
        changed = bytearray(content)
        for place in random.integers(len(content), size=random.choice([1, 5, 100])).tolist():
            changed[place] = int(random.integers(256))
        length = len(content) if number % 4 else int(random.integers(len(content)))
        path.write_bytes(changed[:length])
        try:
            use(folder)
        except (*REFUSALS, KeyError):
            refused += 1
        for file in folder.glob("rows.sqlite*"):
            file.unlink()

    assert refused


def test_an_unfinished_gallery_is_begun_anew(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    connection = sqlite3.connect(folder / "rows.sqlite")
    connection.execute("PRAGMA journal_mode=WAL")  # so far, and killed
    connection.close()

    assert_refused(folder, read, "is empty: there is no gallery")
    with EmbeddedStore(folder, dim=DIM, columns=COLUMNS, write=True) as store:
        assert len(store) == 0


def test_vectors_behind_the_end_are_overwritten(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (folder / "main-0.f32").open("ab") as file:
        file.write(bytes(1001))
    monkeypatch.setattr(upkeep, "DELETED", 1)

    write(folder)

    assert (folder / "main-0.f32").stat().st_size == (ROWS + 2) * DIM * 4
    read(folder)
