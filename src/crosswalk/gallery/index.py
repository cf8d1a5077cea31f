"""Indexes of faiss over the vectors of an embedded store: many rows searched approximately.

An index is made of the vectors and may be deleted. faiss trusts what it reads, and a gallery may be
somebody else's: an index is read only if the cache folder holds a note that this user made it here.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crosswalk.cache_folder import cache_root
from crosswalk.files import whole, write_text
from crosswalk.gallery.vectors import exact_scores, first_of, nearest

ROWS_PER_LIST, ROUNDS = 32, 6
"""Rows for each list from which the lists' centres are learnt, and how often they are moved."""
MOST_LISTS = 16_384
AT_ONCE = 65_536
RECALL = 0.95
"""Share of the exact search's first ten that an index is to find."""
FIRST = 10
SAMPLES = 200
"""Queries by which the index is tuned."""
NOISE = 0.5
"""Length of what is added to a stored vector to make a query of it; the cosine is then 0.89."""


class Known(NamedTuple):
    """What the store remembers of an index.

    Attributes:
        generation: Of the numbering of the rows.
        serial: Counts the indexes of the generation.
        rows: It covers the first so many.
        probes: Lists to look into.
        recall: Measured with the given queries; None without any.
        recall_of_rows: Measured with changed stored vectors.
    """

    generation: int
    serial: int
    rows: int
    probes: int
    recall: float | None
    recall_of_rows: float | None


class Index(NamedTuple):
    """An index that is open."""

    known: Known
    faiss: Any

    def nearest(
        self,
        query: NDArray[np.float32],
        vectors: NDArray[np.float32],
        k: int,
        *,
        mask: NDArray[np.bool_],
        probes: int | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return what `crosswalk.gallery.vectors.nearest` returns, some of it missed.

        Rows behind the index are all compared.

        Args:
            query: ``[queries, dim]`` unit vectors.
            vectors: ``[rows, dim]``, all of the store.
            k: At least 1.
            mask: ``[rows]`` true where a row may be found.
            probes: Lists to look into; None: as tuned.
        """
        faiss = _faiss()
        covered = self.known.rows
        chosen = None
        if not mask[:covered].all():
            chosen = faiss.IDSelectorBitmap(np.packbits(mask[:covered], bitorder="little"))
        parameters = faiss.SearchParametersIVF(nprobe=probes or self.known.probes, sel=chosen)
        _, rows = self.faiss.search(query, min(k, covered), params=parameters)
        place, column = np.nonzero(rows >= 0)
        found = rows[place, column]
        later, score = nearest(query, vectors[covered:], k, mask=mask[covered:])
        behind = np.nonzero(later >= 0)
        return first_of(
            np.concatenate([place, behind[0]]),
            np.concatenate([found, later[behind] + covered]),
            np.concatenate([exact_scores(query, vectors, (place, found)), score[behind]]),
            (len(query), k),
        )


def _faiss() -> Any:  # noqa: ANN401
    import faiss  # 0.1 s that few rows need not wait for

    return faiss


def path_of(folder: Path, view: str, known: Known) -> Path:
    """Return where the index of a view lies."""
    return folder / f"index-{view}-{known.generation}-{known.serial}.faiss"


def read_known(text: str) -> dict[str, Known]:
    """Return by view what a store remembers of its indexes; nothing if that makes no sense.

    Example:
        >>> read_known('{"main": [0, 1, 100, 8, null, 0.5]}')["main"].rows
        100
        >>> read_known('{"main": ["../../other", 1, 100, 8, null, 0.5]}')
        {}
    """
    try:
        read = {view: Known(*values) for view, values in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}
    for known in read.values():
        shares = (known.recall, known.recall_of_rows)
        numbers = known[:4]
        if not all(type(each) is int and 0 <= each < 2**62 for each in numbers) or not known.probes:
            return {}
        if not all(each is None or isinstance(each, (int, float)) for each in shares):
            return {}
    return read


def lists_for(count: int) -> int:
    """Return into how many lists so many rows are divided: about four square roots.

    For sentences, a quarter of them had to be compared with 55 % of the rows to find as much as
    with 15 % of them here.

    Example:
        >>> lists_for(1_000_000), lists_for(200_000)
        (4096, 2048)
    """
    return int(min(MOST_LISTS, 2 ** round(2 + math.log2(max(count, 1)) / 2)))


def build(vectors: NDArray[np.float32], path: Path) -> None:
    """Write an index of ``[rows, dim]`` vectors, whole or not at all, and note that it is ours."""
    faiss = _faiss()
    count, dim = vectors.shape
    lists = lists_for(count)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1  # fewer are no reason for a warning
    index.cp.niter = ROUNDS
    random = np.random.default_rng(0)
    learnt_from = random.choice(count, min(count, ROWS_PER_LIST * lists), replace=False)
    index.train(vectors[np.sort(learnt_from)])
    nearest_list = np.empty(count, np.int32)
    for start in range(0, count, AT_ONCE):
        some = np.ascontiguousarray(vectors[start : start + AT_ONCE])
        nearest_list[start : start + AT_ONCE] = index.quantizer.search(some, 1)[1][:, 0]
    order = np.argsort(nearest_list, kind="stable").astype(np.int64)
    bounds = np.searchsorted(nearest_list[order], np.arange(lists + 1))
    for number in range(lists):
        # each list at once and of its size: lists that grow take up to twice the memory
        rows = order[bounds[number] : bounds[number + 1]]
        codes = np.ascontiguousarray(vectors[rows]).view(np.uint8)
        index.invlists.add_entries(number, len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(codes))
    index.ntotal = count
    with whole(path) as unfinished:
        faiss.write_index(index, str(unfinished))
    write_text(_note(path), f"{path.absolute()}\n")


def is_ours(path: Path) -> bool:
    """Return whether this user built an index here, and it has not been touched since."""
    return path.is_file() and _note(path).is_file()


def remove(path: Path) -> None:
    """Remove an index and its note."""
    if path.is_file():
        _note(path).unlink(missing_ok=True)
        path.unlink()


def _note(path: Path) -> Path:
    # not by its path: a folder may be moved. What another puts in its place has another time.
    status = path.stat()
    what = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return cache_root() / "galleries" / hashlib.sha256(repr(what).encode()).hexdigest()[:32]


def opened(path: Path, known: Known, dim: int) -> Index | None:
    """Return the index of a file, which stays on the disk; None if it cannot be used."""
    if not is_ours(path):
        return None
    faiss = _faiss()
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError:
        return None
    fits = isinstance(index, faiss.IndexIVFFlat) and (index.d, index.ntotal) == (dim, known.rows)
    return Index(known, index) if fits else None


def tuned(
    index: Index,
    vectors: NDArray[np.float32],
    alive: NDArray[np.bool_],
    queries: NDArray[np.float32] | None,
) -> Known:
    """Return what to remember of an index: the fewest probes that find enough, a power of two.

    Args:
        index: To be tuned.
        vectors: ``[rows, dim]``, all of the store.
        alive: ``[rows]`` true where a row was not deleted.
        queries: ``[queries, dim]`` such as embedded sentences, for which the index is tuned. They
            lie apart from the pictures and want several times their probes. None: it is tuned for
            stored vectors, slightly changed.
    """
    random = np.random.default_rng(0)
    places = np.flatnonzero(alive)
    stored = vectors[random.choice(places, min(len(places), SAMPLES), replace=False)]
    noise = random.normal(size=stored.shape).astype(np.float32)
    noise *= NOISE / np.linalg.norm(noise, axis=1, keepdims=True)
    changed = stored + noise
    changed /= np.linalg.norm(changed, axis=1, keepdims=True)
    given = None if queries is None or len(queries) == 0 else queries[:SAMPLES]
    samples = changed if given is None else given
    least = nearest(samples, vectors, FIRST, mask=alive)[1]
    probes = 1
    while (
        probes < index.faiss.nlist
        and _recall(index, vectors, alive, samples, least, probes) < RECALL
    ):
        probes *= 2
    recall = _recall(index, vectors, alive, samples, least, probes)
    if given is None:
        return index.known._replace(probes=probes, recall=None, recall_of_rows=recall)
    of_rows = nearest(changed, vectors, FIRST, mask=alive)[1]
    recall_of_rows = _recall(index, vectors, alive, changed, of_rows, probes)
    return index.known._replace(probes=probes, recall=recall, recall_of_rows=recall_of_rows)


def _recall(
    index: Index,
    vectors: NDArray[np.float32],
    alive: NDArray[np.bool_],
    queries: NDArray[np.float32],
    exact: NDArray[np.float32],
    probes: int,
) -> float:
    """Return the share of the first ten that is found; of equal rows any is right.

    Args:
        index: The index.
        vectors: ``[rows, dim]``.
        alive: ``[rows]``.
        queries: ``[queries, dim]``.
        exact: ``[queries, 10]`` scores of the exact search.
        probes: Lists to look into.
    """
    _, scores = index.nearest(queries, vectors, FIRST, mask=alive, probes=probes)
    there = np.isfinite(exact)
    least = np.where(there, exact, np.inf).min(axis=1)
    right = (scores >= least[:, None]) & np.isfinite(scores)
    return float(np.minimum(right.sum(axis=1), there.sum(axis=1)).sum() / max(1, there.sum()))
