"""What keeps an embedded store quick: compaction, indexes, and the removal of old files.

All of it is done by the one writer; a reader changes over at the commit.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crosswalk.files import UNFINISHED
from crosswalk.gallery.damage import damaged
from crosswalk.gallery.index import Known, build, opened, path_of, read_known, remove, tuned
from crosswalk.gallery.moment import Moment, vector_file
from crosswalk.gallery.rows import RowFile
from crosswalk.gallery.store import MAIN, Stats

EXACT_UP_TO = 200_000
"""Rows that are all compared with a query; an index is made for more."""
DELETED, BEHIND = 0.2, 0.1
"""Shares of deleted rows, and of rows behind the index, that are let be."""
ROWS_AT_ONCE = 16_384
OLD_INDEX, OLD_VECTORS = (
    re.compile(rf"{name}(\.\d+{re.escape(UNFINISHED)})?")
    for name in (r"index-\w+-\d+-\d+\.faiss", r"\w+-\d+\.f32")
)


def wants_compaction(moment: Moment) -> bool:
    """Return whether many rows are deleted."""
    return bool(np.count_nonzero(~moment.alive) > DELETED * len(moment.alive))


def compact(rows: RowFile, folder: Path, moment: Moment) -> None:
    """Write new files without deleted rows, and change over to them by one commit."""
    generation, kept = moment.state.generation + 1, np.flatnonzero(moment.alive)
    for view, vectors in moment.vectors.items():
        file = vector_file(folder, view, generation, rows.shape.dim)
        file.append(vectors[:0], 0)
        for start in range(0, len(kept), ROWS_AT_ONCE):
            file.append(vectors[kept[start : start + ROWS_AT_ONCE]], start)
    with rows.transaction(write=True):
        rows.compact(generation)


def index_rows(
    rows: RowFile, folder: Path, moment: Moment, queries: NDArray[np.float32] | None
) -> None:
    """Build and tune indexes that are missing or too old, and drop those that few rows need not.

    Args:
        rows: Of the store.
        folder: Its folder.
        moment: What is confirmed.
        queries: ``[queries, dim]`` to tune for, also what was built without any; None: for stored
            rows.
    """
    end, known = moment.state.end, read_known(moment.state.indexes)
    serial = 1 + max((each.serial for each in known.values()), default=0)
    if np.count_nonzero(moment.alive) <= EXACT_UP_TO:
        known = {}
    else:
        for view, vectors in moment.vectors.items():
            index = moment.indexes.get(view)
            if index is None or (1 + BEHIND) * index.known.rows < end:
                known[view] = Known(moment.state.generation, serial, end, 1, None, None)
                path = path_of(folder, view, known[view])
                build(vectors, path)
                index = opened(path, known[view], rows.shape.dim)
                if index is None:
                    raise damaged(path, "it cannot be read although it was just written")
            elif queries is None or index.known.recall is not None:
                continue
            known[view] = tuned(index, vectors, moment.alive, queries)
    if (text := json.dumps(known)) != moment.state.indexes:
        with rows.transaction(write=True):
            rows.set_indexes(text)


def remove_old(folder: Path, moment: Moment) -> None:
    """Remove indexes and vectors that do not count any more, or never did after a kill."""
    known = read_known(moment.state.indexes)
    needed = {path_of(folder, view, each) for view, each in known.items()}
    for view in moment.vectors:
        needed.add(vector_file(folder, view, moment.state.generation, 0).path)
    for path in sorted(folder.iterdir()):
        if path in needed:
            continue
        if OLD_INDEX.fullmatch(path.name):
            remove(path)
        elif OLD_VECTORS.fullmatch(path.name):
            path.unlink()


def stats_of(folder: Path, moment: Moment) -> Stats:
    """Return how a store stands."""
    size = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # what a writer removes meanwhile
            size += path.stat().st_size if path.is_file() else 0
    rows, end = int(moment.alive.sum()), moment.state.end
    wanted = read_known(moment.state.indexes)
    lost = sorted(set(wanted) - set(moment.indexes))
    notice = lost and (
        f"{path_of(folder, lost[0], wanted[lost[0]])} was not made by you on this machine, or is "
        "damaged, and is not read: searches compare all rows. "
        f"`crosswalk index MODEL FOLDER --out {folder}` makes it anew."
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
