"""The store in a folder: rows in SQLite, vectors in files beside it, and an index over many.

What a writer does becomes true by one commit of SQLite: vectors are appended and on the disk before
it, and count only as far as the committed rows go. Killed anywhere, it leaves what was confirmed,
and perhaps vectors behind the end, which the next write overwrites. Readers see one moment each.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from filelock import Timeout
from numpy.typing import ArrayLike, NDArray

from crosswalk.files import lock, writing
from crosswalk.gallery import checks, upkeep
from crosswalk.gallery.damage import NO_GALLERY, damaged
from crosswalk.gallery.moment import CompactedError, Moment, Watch, vector_file
from crosswalk.gallery.rows import RowFile, Shape
from crosswalk.gallery.store import MAIN, Condition, Found, Kind, Rows, Stats
from crosswalk.gallery.vectors import nearest

ROWS, LOCK = "rows.sqlite", "lock"
SUBSET_UP_TO, SUBSET_SHARE = 50_000, 0.05
"""So many rows that meet a condition, or this share of all, are all compared with a query."""
BATCH, BATCH_PROBES = 16, 8
"""From so many queries on, a matrix product with all rows takes no longer than looking into one in
so many lists."""
ATTEMPTS = 20
"""Compactions that may come between the parts of one search."""


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
        if folder.exists():
            for each in folder.iterdir():
                if each.is_symlink():  # a write would go where it leads
                    raise damaged(each, "it is a link")
        self.folder, self.writes = folder, write
        self._thread = threading.RLock()
        self._lock = _locked(folder) if write else None
        try:
            make = Shape(dim, views, dict(columns or {})) if write else None
            self._rows = RowFile(folder / ROWS, write=write, make=make)
            try:
                self.dim, self.views = self._rows.shape.dim, self._rows.shape.views
                self.columns: Mapping[str, Kind] = self._rows.shape.columns
                self._check_shape(dim, views, columns)
                self._watch = Watch(folder, self._rows)
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
                file = vector_file(self.folder, view, state.generation, self.dim)
                file.append(array, state.end)
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
                    mask = mask & self._watch.columns[each.column].matches(each, len(mask))
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
        moment: Moment,
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
        if exact or index is None or few or count == 0:
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
        self, moment: Moment, rows: Sequence[int] | NDArray[np.int64]
    ) -> dict[str, NDArray[np.float32]]:
        places = np.array(rows, np.int64)
        return {view: np.array(array[places]) for view, array in moment.vectors.items()}

    def values(self, column: str, limit: int = 1000) -> list[Any]:
        """Return the different values of a column in order."""
        checks.check_column(column, self.columns)
        with self._reading([column]) as moment:
            return self._watch.columns[column].different(moment.alive, limit)

    def stats(self) -> Stats:
        """Return how the store stands."""
        with self._reading() as moment:
            return upkeep.stats_of(self.folder, moment)

    def maintain(self, queries: NDArray[np.float32] | None = None) -> Stats:
        """Drop what was deleted, index many rows, and remove files that nothing needs."""
        if queries is not None:
            queries = checks.checked_vectors(queries, self.dim, "queries")
        with self._writing():
            with self._reading() as moment:
                pass
            if upkeep.wants_compaction(moment):
                upkeep.compact(self._rows, self.folder, moment)
                with self._reading() as moment:
                    pass
            upkeep.index_rows(self._rows, self.folder, moment, queries)
            self._rows.shrink()
            with self._reading() as moment:
                pass
            upkeep.remove_old(self.folder, moment)
            return self.stats()

    def close(self) -> None:
        """Let go of files and of the lock."""
        with self._thread:
            self._rows.close()
            self._watch.forget()
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

    @contextmanager
    def _writing(self) -> Iterator[None]:
        if not self.writes:
            raise RuntimeError(f"{self.folder} is open for reading only: open it with write=True.")
        with self._thread, writing(self.folder / ROWS):
            yield

    @contextmanager
    def _reading(self, columns: Sequence[str] = ()) -> Iterator[Moment]:
        """Yield what is confirmed now, ``columns`` up to date, and SQLite at that moment."""
        with self._thread:
            for attempt in range(ATTEMPTS):
                try:
                    with self._rows.transaction():
                        yield self._watch.look(columns)
                        return
                except CompactedError as error:
                    if attempt == ATTEMPTS - 1:
                        raise damaged(error.path, "it is missing") from None


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
