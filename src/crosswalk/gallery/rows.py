"""Rows of an embedded store in SQLite: ids, columns, deletions, and how far the vectors count.

Rows are numbered in the order of adding, and row n has the n-th vector. Nothing is changed in
place: what is replaced is marked as deleted and added anew. So what a reader has seen stays true,
and it asks for nothing but later rows and deletions, until a compaction numbers the rows anew.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crosswalk.gallery.damage import NO_GALLERY, damaged, of_database, what_it_is
from crosswalk.gallery.store import KINDS, Kind

APPLICATION, FORMAT = 0x43574B47, 1
"""What SQLite's header says of whose file it is, and of the layout below."""
AT_ONCE = 5000
"""Numbers of a question to SQLite."""
LONGEST = 16 << 20
"""Bytes of a row or of a question; what is longer was not written here."""
OFFSET = 2**63
"""SQLite's integers have a sign, ids have none; the order is the same."""


class State(NamedTuple):
    """What was confirmed last.

    Attributes:
        generation: Of the numbering; vectors lie in the files of this generation.
        end: Rows, deleted ones included.
        deletions: So many rows were deleted.
        indexes: JSON of what is known of the indexes.
    """

    generation: int
    end: int
    deletions: int
    indexes: str


class Shape(NamedTuple):
    """What a store was made with."""

    dim: int
    views: tuple[str, ...]
    columns: dict[str, Kind]


class RowFile:
    """One connection to ``rows.sqlite``; the caller lets one thread in at a time."""

    def __init__(self, path: Path, *, write: bool, make: Shape | None) -> None:
        """Open what is there, or with ``make`` what is missing."""
        self.path = path
        head = _head(path)
        if not head and any(each.stat().st_size for each in path.parent.glob("*.f32")):
            what = "missing" if head is None else "empty"
            raise damaged(
                path, f"it is {what}, and beside it are vectors of which nothing is known"
            )
        if head is None and make is None:
            raise FileNotFoundError(f"{path} is missing: {NO_GALLERY.format(path.parent)}")
        if head and not head.startswith(b"SQLite format 3\0"):
            raise damaged(path, f"it is {what_it_is(head)}, no database of SQLite")
        with of_database(path):
            self.connection = _connection(path, write=write)
        try:
            self._open(write, make)
        except BaseException:
            self.connection.close()
            raise

    def _open(self, write: bool, make: Shape | None) -> None:
        with of_database(self.path):
            self.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
            for pragma in ("trusted_schema=OFF", "cell_size_check=ON"):
                self.connection.execute(f"PRAGMA {pragma}")
            ours = self._pragma("application_id"), self._pragma("user_version")
            schema = self._schema()
            empty = ours == (0, 0) and not schema
            if empty and make is not None:
                self._make(make)
            elif empty:
                raise FileNotFoundError(
                    f"{self.path} is empty: {NO_GALLERY.format(self.path.parent)}"
                )
            elif ours[0] != APPLICATION:
                names = ", ".join(sorted(name for _, name, _ in schema)[:3]) or "nothing"
                raise damaged(self.path, f"it is a database of another program (it holds {names})")
            elif ours[1] != FORMAT:
                raise damaged(
                    self.path,
                    f"it has the format {ours[1]}, and this release of crosswalk reads {FORMAT}",
                )
            if write:
                self.connection.execute("PRAGMA journal_mode=WAL")
                self.connection.execute("PRAGMA synchronous=FULL")
            self.shape = self._read_shape()
            if self._schema() != _expected_schema(self.shape):
                raise damaged(self.path, "its tables are not those that crosswalk makes")

    def _pragma(self, name: str) -> Any:  # noqa: ANN401
        return self.connection.execute(f"PRAGMA {name}").fetchone()[0]

    def _schema(self) -> set[tuple[str, str, str | None]]:
        found = self.connection.execute("SELECT type, name, sql FROM sqlite_master").fetchmany(100)
        return {(kind, name, sql) for kind, name, sql in found}

    def _make(self, shape: Shape) -> None:
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=FULL")
        told = {"shape": _told(shape)}
        with self.transaction(write=True):
            for statement in _statements(len(shape.columns)):
                self.connection.execute(statement)
            self._set({**told, "generation": 0, "end": 0, "indexes": "{}"})
            self.connection.execute(f"PRAGMA application_id={APPLICATION}")
            self.connection.execute(f"PRAGMA user_version={FORMAT}")

    def _read_shape(self) -> Shape:
        try:
            (text,) = self.connection.execute(
                "SELECT value FROM settings WHERE name = 'shape'"
            ).fetchone()
            dim, views, columns = json.loads(text)
            kinds = {str(name): kind for name, kind in columns}
            if not isinstance(dim, int) or not set(kinds.values()) <= set(KINDS):
                raise ValueError
            return Shape(dim, tuple(map(str, views)), kinds)
        except (TypeError, ValueError, RecursionError, sqlite3.OperationalError) as error:
            raise damaged(self.path, "it does not say of what shape its rows are") from error

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[None]:
        """See or change one moment of the file."""
        with of_database(self.path):
            self.connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield
                self.connection.execute("COMMIT")
            finally:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")

    def state(self) -> State:
        """Return what was confirmed last. Within a transaction."""
        values = dict(self.connection.execute("SELECT name, value FROM settings LIMIT 100"))
        last = self.connection.execute("SELECT max(number) FROM deletions").fetchone()[0] or 0
        newest = self.connection.execute('SELECT max("row") FROM rows').fetchone()[0]
        generation, end = values.get("generation"), values.get("end")
        indexes = values.get("indexes")
        if not isinstance(generation, int) or not isinstance(indexes, str):
            raise damaged(self.path, "it does not say which files belong to it")
        if not isinstance(end, int) or end != (-1 if newest is None else newest) + 1 or last > end:
            raise damaged(self.path, "it does not hold as many rows as it says")
        return State(generation, end, last, indexes)

    def check_rows(self, start: int, end: int) -> None:
        """Refuse a file in which rows from ``start`` to ``end`` are missing."""
        later, given = ('WHERE "row" >= ?', (start,)) if start else ("", ())
        (count,) = self.connection.execute(f"SELECT count(*) FROM rows {later}", given).fetchone()
        if count != end - start:
            raise damaged(self.path, "rows are missing in it")

    def deleted_since(self, deletions: int, end: int) -> NDArray[np.int64]:
        """Return rows that were deleted after so many ``deletions``."""
        found = self.connection.execute(
            'SELECT "row" FROM deletions WHERE number > ?', (deletions,)
        ).fetchall()
        rows = np.array(self._whole(row for (row,) in found), dtype=np.int64)
        if len(rows) and not (rows.min() >= 0 and rows.max() < end):
            raise damaged(self.path, "it lists deleted rows that it has not")
        return rows

    def column(self, name: str, start: int, end: int) -> list[Any]:
        """Return the values of rows ``start`` to ``end``, by row; None where missing."""
        found = self.connection.execute(
            f'SELECT {self._number_of(name)} FROM rows WHERE "row" >= ? AND "row" < ? '
            'ORDER BY "row"',
            (start, end),
        ).fetchall()
        if len(found) != end - start:
            raise damaged(self.path, "rows are missing in it")
        return self._plain(name, [value for (value,) in found])

    def ids_of(self, rows: Collection[int]) -> dict[int, int]:
        """Return the ids of rows."""
        found = dict(self._each('SELECT "row", id FROM rows WHERE "row" IN', rows))
        if len(self._whole(found.values())) < len(rows):
            raise damaged(self.path, "rows are missing in it")
        return {row: number + OFFSET for row, number in found.items()}

    def rows_of(self, ids: NDArray[np.uint64]) -> dict[int, int]:
        """Return by id the rows of those that are there."""
        select = (
            'SELECT id, "row" FROM rows WHERE "row" NOT IN (SELECT "row" FROM deletions) AND id IN'
        )
        stored = (number - OFFSET for number in ids.tolist())
        return {number + OFFSET: row for number, row in self._each(select, stored)}

    def values_of(self, rows: Sequence[int], columns: Iterable[str]) -> dict[str, list[Any]]:
        """Return the values of rows in their order."""
        names = list(columns)
        numbers = "".join(f", {self._number_of(name)}" for name in names)
        found = {
            row: values
            for row, *values in self._each(f'SELECT "row"{numbers} FROM rows WHERE "row" IN', rows)
        }
        if missing := set(rows) - set(found):
            raise damaged(self.path, f"the row {min(missing)} is missing in it")
        return {
            name: self._plain(name, [found[row][place] for row in rows])
            for place, name in enumerate(names)
        }

    def scan(
        self, first: int, limit: int | None, columns: Iterable[str]
    ) -> tuple[NDArray[np.uint64], NDArray[np.int64], dict[str, list[Any]]]:
        """Return ids from ``first`` on in ascending order, their rows and their values."""
        names = list(columns)
        numbers = "".join(f", {self._number_of(name)}" for name in names)
        limit = 0 if first >= 2**64 else -1 if limit is None else limit
        found = self.connection.execute(
            f'SELECT id, "row"{numbers} FROM rows WHERE id >= ? '
            'AND "row" NOT IN (SELECT "row" FROM deletions) ORDER BY id LIMIT ?',
            (min(first - OFFSET, OFFSET - 1), limit),
        ).fetchall()
        parts: list[tuple[Any, ...]] = list(zip(*found, strict=True)) or [()] * (2 + len(names))
        ids = np.array(self._whole(parts[0]), dtype=np.int64).view(np.uint64) ^ np.uint64(OFFSET)
        values = {
            name: self._plain(name, part) for name, part in zip(names, parts[2:], strict=True)
        }
        return ids, np.array(parts[1], dtype=np.int64), values

    def _whole(self, numbers: Iterable[Any]) -> list[int]:
        """Return whole numbers, which SQLite does not promise of any column."""
        listed = list(numbers)
        if not set(map(type, listed)) <= {int}:
            raise damaged(self.path, "it holds something other than numbers for rows or ids")
        return listed

    def _each(self, select: str, numbers: Iterable[int]) -> Iterator[tuple[Any, ...]]:
        wanted = list(numbers)
        for start in range(0, len(wanted), AT_ONCE):
            yield from self.connection.execute(
                f"{select} (SELECT value FROM json_each(?))",
                (json.dumps(wanted[start : start + AT_ONCE]),),
            )

    def add(self, start: int, ids: NDArray[np.uint64], meta: Mapping[str, Sequence[Any]]) -> None:
        """Write rows from ``start`` on, and delete those that they replace. In a transaction."""
        self.delete(ids)
        numbers = [number - OFFSET for number in ids.tolist()]
        columns = [[_stored(value) for value in meta[name]] for name in self.shape.columns]
        places = ", ".join("?" * (2 + len(columns)))
        rows = zip(range(start, start + len(ids)), numbers, *columns, strict=True)
        self.connection.executemany(f"INSERT INTO rows VALUES ({places})", rows)
        self._set({"end": start + len(ids)})

    def add_columns(self, columns: Mapping[str, Kind]) -> None:
        """Add columns, of which nothing is known so far."""
        shape = self.shape._replace(columns={**self.shape.columns, **columns})
        with self.transaction(write=True):
            for place in range(len(self.shape.columns), len(shape.columns)):
                self.connection.execute(f"ALTER TABLE rows ADD COLUMN c{place}")
            self._set({"shape": _told(shape)})
        self.shape = shape

    def delete(self, ids: NDArray[np.uint64]) -> int:
        """Mark rows as deleted; return how many. In a transaction."""
        rows = sorted(self.rows_of(ids).values())
        self.connection.executemany(
            'INSERT INTO deletions ("row") VALUES (?)', ((row,) for row in rows)
        )
        return len(rows)

    def compact(self, generation: int) -> None:
        """Number the rows anew without deleted ones. In a transaction."""
        execute = self.connection.execute
        execute(
            'CREATE TEMP TABLE kept AS SELECT * FROM rows WHERE "row" NOT IN '
            '(SELECT "row" FROM deletions) ORDER BY "row"'
        )
        execute("DELETE FROM rows")
        execute("DELETE FROM deletions")
        numbers = "".join(f", c{place}" for place in range(len(self.shape.columns)))
        execute(f"INSERT INTO rows SELECT rowid - 1, id{numbers} FROM kept ORDER BY rowid")
        (count,) = execute("SELECT count(*) FROM kept").fetchone()
        execute("DROP TABLE kept")
        self._set({"end": count, "generation": generation, "indexes": "{}"})

    def shrink(self) -> None:
        """Move what was written into the file itself, as far as readers allow."""
        with of_database(self.path):
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def set_indexes(self, indexes: str) -> None:
        """Write what is known of the indexes. In a transaction."""
        self._set({"indexes": indexes})

    def _set(self, values: Mapping[str, Any]) -> None:
        self.connection.executemany("REPLACE INTO settings VALUES (?, ?)", values.items())

    def _number_of(self, name: str) -> str:
        return f"c{list(self.shape.columns).index(name)}"

    def _plain(self, name: str, values: Iterable[Any]) -> list[Any]:
        """Return values as they were given; what nobody can have given is damage."""
        kind = self.shape.columns[name]
        plain = [_given(value) if isinstance(value, bytes) else value for value in values]
        allowed = {"number": float, "time": int, "text": str}[kind]
        if not set(map(type, plain)) <= {allowed, type(None)}:
            raise damaged(self.path, f"its column {name!r} holds something other than {kind}s")
        return plain

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def _head(path: Path) -> bytes | None:
    if not path.exists():
        return None
    if not path.is_file():
        raise damaged(path, "it is no file")
    with path.open("rb") as file:
        return file.read(1024)


def _connection(path: Path, *, write: bool) -> sqlite3.Connection:
    """Connect; where nothing may be written, too, if no other process writes there."""
    try:
        return _connected(path, "mode=rwc" if write else "mode=ro")
    except sqlite3.OperationalError:
        if write or path.with_name(f"{path.name}-wal").exists():
            raise
        # SQLite cannot make the files of readers; without those of a writer nothing changes
        return _connected(path, "immutable=1")


def _connected(path: Path, how: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{how}",
        uri=True,
        isolation_level=None,  # transactions are begun where the code says so
        check_same_thread=False,
        timeout=60,
    )
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _statements(num_columns: int) -> list[str]:
    """Return what makes the tables. Columns have numbers here: their names are the user's."""
    columns = "".join(f", c{place}" for place in range(num_columns))
    return [
        "CREATE TABLE settings (name TEXT PRIMARY KEY, value)",
        f'CREATE TABLE rows ("row" INTEGER PRIMARY KEY, id INTEGER NOT NULL{columns})',
        "CREATE INDEX rows_by_id ON rows (id)",
        'CREATE TABLE deletions (number INTEGER PRIMARY KEY, "row" INTEGER NOT NULL UNIQUE)',
    ]


def _expected_schema(shape: Shape) -> set[tuple[str, str, str | None]]:
    expected: set[tuple[str, str, str | None]] = {
        ("index", "sqlite_autoindex_settings_1", None),
        ("index", "sqlite_autoindex_deletions_1", None),
    }
    for statement in _statements(len(shape.columns)):
        _, kind, name, *_ = statement.split()
        expected.add((kind.lower(), name, statement))
    return expected


def _told(shape: Shape) -> str:
    return json.dumps([shape.dim, shape.views, list(shape.columns.items())])


def _given(stored: bytes) -> str | bytes:
    """Return what `_stored` made bytes of; of others the bytes."""
    try:
        return stored.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return stored


def _stored(value: Any) -> Any:  # noqa: ANN401
    """Return a value as SQLite takes it: parts of file names need not be UTF-8."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-8", "surrogatepass")
    return value
