"""What is confirmed in an embedded store at one time, found by asking for what is new since."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crosswalk.gallery.columns import Column
from crosswalk.gallery.index import Index, opened, path_of, read_known
from crosswalk.gallery.rows import RowFile, State
from crosswalk.gallery.vectors import VectorFile


class Moment(NamedTuple):
    """What was confirmed at one time. Nothing in it changes.

    Attributes:
        state: As SQLite said.
        alive: ``[rows]`` true where a row was not deleted.
        vectors: Per view ``[rows, dim]``, in their files.
        indexes: Per view, of those that have one.
    """

    state: State
    alive: NDArray[np.bool_]
    vectors: dict[str, NDArray[np.float32]]
    indexes: dict[str, Index]


class CompactedError(Exception):
    """A file of vectors went while one looked: of a compaction, or for good."""

    def __init__(self, path: Path) -> None:
        self.path = path


def vector_file(folder: Path, view: str, generation: int, dim: int) -> VectorFile:
    """Return the file of the vectors of a view."""
    return VectorFile(folder / f"{view}-{generation}.f32", dim)


class Watch:
    """The last moment of a store that was looked at, and the columns that were asked for."""

    def __init__(self, folder: Path, rows: RowFile) -> None:
        self.folder, self.rows = folder, rows
        self.columns: dict[str, Column] = {}
        self._last: Moment | None = None

    def forget(self) -> None:
        """Let go of everything."""
        self._last, self.columns = None, {}

    def look(self, columns: Sequence[str]) -> Moment:
        """Return what is confirmed now, and bring ``columns`` up to date. Within a transaction.

        Raises:
            CompactedError: If a file of vectors is missing.
        """
        last, state = self._last, self.rows.state()
        shape = self.rows.shape
        if last is None or last.state.generation != state.generation:
            self.columns = {}
            last = Moment(State(state.generation, 0, 0, ""), np.empty(0, bool), {}, {})
        for name in columns:
            column = self.columns.setdefault(name, Column(shape.columns[name]))
            if (start := len(column.values)) < state.end:
                column.append(self.rows.column(name, start, state.end))
        if last.state == state:
            return last
        self.rows.check_rows(last.state.end, state.end)
        vectors = {view: self._mapped(view, state) for view in shape.views}
        alive = np.concatenate([last.alive, np.ones(state.end - len(last.alive), bool)])
        alive[self.rows.deleted_since(last.state.deletions, state.end)] = False
        indexes = last.indexes
        if last.state.indexes != state.indexes:
            indexes = {}
            for view, known in read_known(state.indexes).items():
                index = opened(path_of(self.folder, view, known), known, shape.dim)
                if index is not None and view in shape.views and known.rows <= state.end:
                    indexes[view] = index
        self._last = Moment(state, alive, vectors, indexes)
        return self._last

    def _mapped(self, view: str, state: State) -> NDArray[np.float32]:
        file = vector_file(self.folder, view, state.generation, self.rows.shape.dim)
        try:
            return file.mapped(state.end)
        except FileNotFoundError:
            if state.end:
                raise CompactedError(file.path) from None
            return np.empty((0, file.dim), np.float32)
