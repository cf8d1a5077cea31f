"""The store in a folder: rows in SQLite, vectors in files beside it, and an index over many.

What a writer does becomes true by one commit of SQLite: vectors are appended and on the disk before
it, and count only as far as the committed rows go. Killed anywhere, it leaves what was confirmed,
and perhaps vectors behind the end, which the next write overwrites. Readers see one moment each.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from filelock import Timeout
from numpy.typing import ArrayLike, NDArray

from crosswalk.files import UNFINISHED, lock, writing
from crosswalk.gallery import checks
from crosswalk.gallery.columns import Column
from crosswalk.gallery.damage import NO_GALLERY, damaged
from crosswalk.gallery.index import Index, Known, build, opened, path_of, read_known, remove, tuned
from crosswalk.gallery.rows import RowFile, Shape, State
from crosswalk.gallery.store import MAIN, Condition, Found, Kind, Rows, Stats
from crosswalk.gallery.vectors import VectorFile, nearest

ROWS, LOCK = "rows.sqlite", "lock"
OLD_INDEX, OLD_VECTORS = (
    re.compile(rf"{name}(\.\d+{re.escape(UNFINISHED)})?")
    for name in (r"index-\w+-\d+-\d+\.faiss", r"\w+-\d+\.f32")
)
EXACT_UP_TO = 200_000
"""Rows that are all compared with a query; an index is made for more."""
SUBSET_UP_TO, SUBSET_SHARE = 50_000, 0.05
"""So many rows that meet a condition, or this share of all, are all compared with a query."""
BATCH, BATCH_PROBES = 16, 8
"""From so many queries on, a matrix product with all rows takes no longer than looking into one in
so many lists."""
DELETED, BEHIND = 0.2, 0.1
"""Shares of deleted rows, and of rows behind the index, that `EmbeddedStore.maintain` lets be."""
ROWS_AT_ONCE = 16_384
ATTEMPTS = 20
"""Compactions that may come between the parts of one search."""


class _Moment(NamedTuple):
    """What was confirmed at one time. Nothing in it changes."""

    state: State
    alive: NDArray[np.bool_]
    vectors: dict[str, NDArray[np.float32]]
    indexes: dict[str, Index]


class EmbeddedStore:
    """See `crosswalk.gallery.store.Store`. Threads may share it, forked processes may not."""

    def __init__(
        self,
        folder: Path,
        *,
        dim: int,
        views: tuple[str, ...] = (MAIN,),
        columns: Mapping[str, Kind] | None = None,
        write: bool = False,
    ) -> None:
        """Open it, or make it: see `crosswalk.gallery.open.open_store`."""
        checks.check_shape(dim, views, columns or {})
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is a file: a gallery is a folder. Name another place.")
        if not write and not folder.exists():
            raise FileNotFoundError(f"{folder} is missing: {NO_GALLERY.format(folder)}")
        self.folder, self.writes = folder, write
        self._thread = threading.RLock()
        self._lock = _locked(folder) if write else None
        self._moment: _Moment | None = None
        self._columns: dict[str, Column] = {}
        try:
            make = Shape(dim, views, dict(columns or {})) if write else None
            self._rows = RowFile(folder / ROWS, write=write, make=make)
            try:
                self.dim, self.views = self._rows.shape.dim, self._rows.shape.views
                self.columns: Mapping[str, Kind] = self._rows.shape.columns
                self._check_shape(dim, views, columns)
                with self._reading():
                    pass
            except BaseException:
                self._rows.close()
                raise
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise

    def _check_shape(
        self, dim: int, views: tuple[str, ...], columns: Mapping[str, Kind] | None
    ) -> None:
        again = "Choose another folder, or delete this one and make it again."
        if self.dim != dim:
            raise ValueError(
                f"{self.folder} holds vectors of length {self.dim}, and the model's have {dim}: it "
                f"was made with another model. {again}"
            )
        if self.views != views:
            raise ValueError(
                f"{self.folder} holds the views {', '.join(self.views)}, not {', '.join(views)}. "
                f"{again}"
            )
        new = checks.new_columns(columns or {}, self.columns, f"{self.folder}. {again}")
        if new and self.writes:
            self._rows.add_columns(new)
            self.columns = self._rows.shape.columns

    def add(
        self,
        ids: ArrayLike,
        vectors: Mapping[str, NDArray[np.float32]],
        meta: Mapping[str, Sequence[Any] | NDArray[Any]],
    ) -> None:
        """Store rows, those whose id is there already in their place."""
        numbers = checks.different_ids(ids)
        arrays = checks.checked_views(vectors, self.views, self.dim, len(numbers))
        values = checks.checked_meta(meta, self.columns, len(numbers))
        with self._writing():
            if len(numbers) == 0:
                return
            with self._reading() as moment:
                state = moment.state
            for view, array in arrays.items():
                self._file(view, state.generation).append(array, state.end)
            with self._rows.transaction(write=True):
                self._rows.add(state.end, numbers, values)

    def delete(self, ids: ArrayLike) -> int:
        """Remove rows; return how many there were."""
        numbers = np.unique(checks.checked_ids(ids))
        with self._writing(), self._rows.transaction(write=True):
            return self._rows.delete(numbers)

    def search(
        self,
        query: NDArray[np.float32],
        k: int,
        *,
        view: str = MAIN,
        where: Sequence[Condition] = (),
        exact: bool = False,
    ) -> Found:
        """Return the ``k`` most similar rows of each query."""
        checks.check_k(k)
        checks.check_view(view, self.views)
        queries = checks.checked_vectors(query, self.dim, "queries")
        wanted = checks.checked_conditions(where, self.columns)
        for _ in range(ATTEMPTS):
            with self._reading([each.column for each in wanted]) as moment:
                mask = moment.alive
                for each in wanted:
                    mask = mask & self._columns[each.column].matches(each, len(mask))
            rows, scores = self._best(moment, queries, k, view, mask, exact)
            with self._reading() as now:
                if now.state.generation != moment.state.generation:
                    continue
                known = {-1: 0, **self._rows.ids_of(np.unique(rows[rows >= 0]).tolist())}
            ids = np.array([known[row] for row in rows.ravel().tolist()], np.uint64)
            return Found(ids.reshape(rows.shape), scores, (rows >= 0).sum(axis=1))
        raise RuntimeError(f"{self.folder} is compacted again and again. Repeat the search.")

    def _best(
        self,
        moment: _Moment,
        query: NDArray[np.float32],
        k: int,
        view: str,
        mask: NDArray[np.bool_],
        exact: bool,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return ``[queries, k]`` rows and scores among those of a mask."""
        vectors, index = moment.vectors[view], moment.indexes.get(view)
        alive, count = np.count_nonzero(moment.alive), np.count_nonzero(mask)
        few = count < alive and count <= max(SUBSET_UP_TO, SUBSET_SHARE * alive)
        if exact or index is None or few:
            return nearest(query, vectors, k, mask=mask)
        # what meets a condition is spread over lists: a share of the rows wants more of them
        probes = round(index.known.probes * alive / count)
        if len(query) >= BATCH and BATCH_PROBES * probes > index.faiss.nlist:
            return nearest(query, vectors, k, mask=mask)
        rows, scores = index.nearest(query, vectors, k, mask=mask, probes=probes)
        short = np.flatnonzero((rows >= 0).sum(axis=1) < min(k, count))
        if len(short):
            rows[short], scores[short] = nearest(query[short], vectors, k, mask=mask)
        return rows, scores

    def get(self, ids: ArrayLike, *, vectors: bool = False) -> Rows:
        """Return rows in the order of ``ids``."""
        numbers = checks.checked_ids(ids)
        with self._reading() as moment:
            known = self._rows.rows_of(np.unique(numbers))
            missing = [number for number in numbers.tolist() if number not in known]
            if missing:
                raise KeyError(f"this gallery has no row with the id {missing[0]}")
            rows = [known[number] for number in numbers.tolist()]
            meta = self._rows.values_of(rows, self.columns)
        return Rows(numbers, meta, self._vectors(moment, rows) if vectors else None)

    def scan(
        self,
        after_id: int | None = None,
        limit: int | None = None,
        *,
        columns: Iterable[str] | None = None,
        vectors: bool = False,
    ) -> Rows:
        """Return rows by ascending id: at most ``limit`` of those behind ``after_id``."""
        names = checks.checked_names(columns, self.columns)
        first = checks.checked_start(after_id, limit)
        with self._reading() as moment:
            ids, rows, meta = self._rows.scan(first, limit, names)
        return Rows(ids, meta, self._vectors(moment, rows) if vectors else None)

    def _vectors(
        self, moment: _Moment, rows: Sequence[int] | NDArray[np.int64]
    ) -> dict[str, NDArray[np.float32]]:
        places = np.array(rows, np.int64)
        return {view: np.array(array[places]) for view, array in moment.vectors.items()}

    def values(self, column: str, limit: int = 1000) -> list[Any]:
        """Return the different values of a column in order."""
        checks.check_column(column, self.columns)
        with self._reading([column]) as moment:
            return self._columns[column].different(moment.alive, limit)

    def stats(self) -> Stats:
        """Return how the store stands."""
        with self._reading() as moment:
            size = sum(each.stat().st_size for each in self.folder.iterdir() if each.is_file())
        rows, end = int(moment.alive.sum()), moment.state.end
        wanted = read_known(moment.state.indexes)
        lost = sorted(set(wanted) - set(moment.indexes))
        notice = lost and (
            f"{path_of(self.folder, lost[0], wanted[lost[0]])} was not made by you on this "
            "machine, or is damaged, and is not read: searches compare all rows. "
            f"`crosswalk index MODEL FOLDER --out {self.folder}` makes it anew."
        )
        index = moment.indexes.get(MAIN) or next(iter(moment.indexes.values()), None)
        known = Known(0, 0, 0, 0, None, None) if index is None else index.known
        return Stats(
            rows=rows,
            deleted=end - rows,
            indexed=int(moment.alive[: known.rows].sum()),
            generation=moment.state.generation,
            bytes=size,
            probes=known.probes,
            recall_at_10=known.recall,
            recall_at_10_of_rows=known.recall_of_rows,
            notice=notice or "",
        )

    def maintain(self, queries: NDArray[np.float32] | None = None) -> Stats:
        """Drop what was deleted, index many rows, and remove files that nothing needs."""
        if queries is not None:
            queries = checks.checked_vectors(queries, self.dim, "queries")
        with self._writing():
            with self._reading() as moment:
                deleted = np.count_nonzero(~moment.alive)
            if deleted > DELETED * len(moment.alive):
                self._compact(moment)
                with self._reading() as moment:
                    pass
            self._index(moment, queries)
            self._rows.shrink()
            with self._reading() as moment:
                self._remove_old(moment)
            return self.stats()

    def _compact(self, moment: _Moment) -> None:
        """Write new files without deleted rows, and change to them by one commit."""
        generation, kept = moment.state.generation + 1, np.flatnonzero(moment.alive)
        for view, vectors in moment.vectors.items():
            file = self._file(view, generation)
            file.append(vectors[:0], 0)
            for start in range(0, len(kept), ROWS_AT_ONCE):
                file.append(vectors[kept[start : start + ROWS_AT_ONCE]], start)
        with self._rows.transaction(write=True):
            self._rows.compact(generation)

    def _index(self, moment: _Moment, queries: NDArray[np.float32] | None) -> None:
        """Build and tune what is missing or too old, and drop what is not needed."""
        end, known = moment.state.end, read_known(moment.state.indexes)
        serial = 1 + max((each.serial for each in known.values()), default=0)
        if np.count_nonzero(moment.alive) <= EXACT_UP_TO:
            known = {}
        else:
            for view, vectors in moment.vectors.items():
                index = moment.indexes.get(view)
                if index is None or (1 + BEHIND) * index.known.rows < end:
                    known[view] = Known(moment.state.generation, serial, end, 1, None, None)
                    path = path_of(self.folder, view, known[view])
                    build(vectors, path)
                    index = opened(path, known[view], self.dim)
                    if index is None:
                        raise damaged(path, "it cannot be read although it was just written")
                elif queries is None:
                    continue
                known[view] = tuned(index, vectors, moment.alive, queries)
        if (text := json.dumps(known)) != moment.state.indexes:
            with self._rows.transaction(write=True):
                self._rows.set_indexes(text)

    def _remove_old(self, moment: _Moment) -> None:
        known = read_known(moment.state.indexes)
        needed = {path_of(self.folder, view, each) for view, each in known.items()}
        needed |= {self._file(view, moment.state.generation).path for view in self.views}
        for path in self.folder.iterdir():
            if path in needed:
                continue
            if OLD_INDEX.fullmatch(path.name):
                remove(path)
            elif OLD_VECTORS.fullmatch(path.name):
                path.unlink()

    def close(self) -> None:
        """Let go of files and of the lock."""
        with self._thread:
            self._rows.close()
            self._moment = None
            if self._lock is not None:
                self._lock.release()

    def __len__(self) -> int:
        """Return the number of rows."""
        with self._reading() as moment:
            return int(moment.alive.sum())

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def _file(self, view: str, generation: int) -> VectorFile:
        return VectorFile(self.folder / f"{view}-{generation}.f32", self.dim)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        if not self.writes:
            raise RuntimeError(f"{self.folder} is open for reading only: open it with write=True.")
        with self._thread, writing(self.folder / ROWS):
            yield

    @contextmanager
    def _reading(self, columns: Sequence[str] = ()) -> Iterator[_Moment]:
        """Yield what is confirmed now, ``columns`` up to date, and SQLite at that moment."""
        with self._thread:
            for attempt in range(ATTEMPTS):
                try:
                    with self._rows.transaction():
                        moment = self._look(columns)
                        yield moment
                        return
                except _CompactedError as error:
                    if attempt == ATTEMPTS - 1:
                        raise damaged(error.path, "it is missing") from None

    def _look(self, columns: Sequence[str]) -> _Moment:
        """Return what is confirmed now, by asking for what is new since the last time."""
        last, state = self._moment, self._rows.state()
        if last is None or last.state.generation != state.generation:
            self._columns = {}
            last = _Moment(State(state.generation, 0, 0, ""), np.empty(0, bool), {}, {})
        for name in columns:
            column = self._columns.setdefault(name, Column(self.columns[name]))
            if (start := len(column.values)) < state.end:
                column.append(self._rows.column(name, start, state.end))
        if last.state == state:
            return last
        self._rows.check_rows(last.state.end, state.end)
        vectors = {}
        for view in self.views:
            file = self._file(view, state.generation)
            try:
                vectors[view] = file.mapped(state.end)
            except FileNotFoundError:
                if state.end:
                    raise _CompactedError(file.path) from None
                vectors[view] = np.empty((0, self.dim), np.float32)
        alive = np.concatenate([last.alive, np.ones(state.end - len(last.alive), bool)])
        alive[self._rows.deleted_since(last.state.deletions, state.end)] = False
        indexes = last.indexes
        if last.state.indexes != state.indexes:
            indexes = {}
            for view, known in read_known(state.indexes).items():
                index = opened(path_of(self.folder, view, known), known, self.dim)
                if index is not None and view in self.views and known.rows <= state.end:
                    indexes[view] = index
        self._moment = _Moment(state, alive, vectors, indexes)
        return self._moment


class _CompactedError(Exception):
    """A file of vectors went while one looked: of a compaction, or for good."""

    def __init__(self, path: Path) -> None:
        self.path = path


def _locked(folder: Path) -> Any:  # noqa: ANN401
    held = lock(folder / LOCK)
    try:
        held.acquire(timeout=0.1)
    except Timeout:
        raise RuntimeError(
            f"{folder} is being written by another process. Wait until it is done, and repeat the "
            "command; searching works meanwhile."
        ) from None
    return held
