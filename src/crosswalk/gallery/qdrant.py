"""The store in a collection of a Qdrant server, for galleries that outgrow one machine.

What a server does otherwise than a folder: it keeps no second writer away, a batch that is stopped
before `QdrantStore.add` returns may be there in part (adding it again completes it), and the server
decides when it indexes. Scores and their order are computed here, as everywhere.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosswalk.gallery import checks
from crosswalk.gallery.store import KINDS, MAIN, Condition, Found, Kind, Rows, Stats
from crosswalk.gallery.vectors import exact_scores, first_of

if TYPE_CHECKING:
    from qdrant_client import QdrantClient, models

FORMAT = 1
AT_ONCE = 256
"""Rows or queries of a request: a server refuses long ones."""
MEMORY = ":memory:"
KEY = "crosswalk"
"""Of what this program notes about a collection in its metadata."""
ADDED = "added"
"""Key of a point's place in the order of adding."""
ROUNDING = 1e-5
"""By how much a server's score may differ from the exact one."""
UNSENDABLE = re.compile("^\0|[\ud800-\udfff]")
"""Texts that are sent as hexadecimal digits behind a zero."""
EFFORTS = (64, 128, 256, 512, 1024, 2048)
"""Points that a search of the server's index keeps in sight."""
RECALL, FIRST = 0.95, 10
MOST_TEXTS = 10_000
AGAIN = "Choose another name, or delete the collection and make it again."


class QdrantStore:
    """See `crosswalk.gallery.store.Store`."""

    def __init__(
        self,
        url: str,
        *,
        dim: int,
        views: tuple[str, ...] = (MAIN,),
        columns: Mapping[str, Kind] | None = None,
        write: bool = False,
    ) -> None:
        """Open it, or make it: see `crosswalk.gallery.open.open_store`."""
        checks.check_shape(dim, views, columns or {})
        self.url, self.writes = url, write
        host, port, self.name = _parts(url)
        self.is_local = host == MEMORY
        is_https = url.startswith("qdrants://")
        self.client = _in_memory() if self.is_local else _client(host, port, https=is_https)
        self._last = 0
        with self._answering():
            there = self.client.collection_exists(self.name)
        if not there and not write:
            raise FileNotFoundError(
                f"{url} is missing: the server has no such collection. `crosswalk index` makes one."
            )
        if not there:
            self._make(dim, views)
        told = self._told()
        kept: dict[str, Kind] = dict(told.get("columns", []))
        if told.get("format") != FORMAT or not set(kept.values()) <= set(KINDS):
            raise ValueError(
                f"{url} is a collection of another program, or of another release of crosswalk. "
                "Choose another name."
            )
        if (told.get("dim"), told.get("views")) != (dim, list(views)):
            raise ValueError(
                f"{url} was made with vectors of length {told.get('dim')} and the views "
                f"{told.get('views')}; given are {dim} and {list(views)}. {AGAIN}"
            )
        self.dim, self.views = dim, views
        new = checks.new_columns(columns or {}, kept, f"{url}. {AGAIN}")
        if new and write:
            self._add_columns(told, kept, new)
        self.columns: Mapping[str, Kind] = {**kept, **new} if write else kept
        self._keys = {name: f"c{number}" for number, name in enumerate(self.columns)}

    def _make(self, dim: int, views: Sequence[str]) -> None:
        from qdrant_client import models

        told = {"format": FORMAT, "dim": dim, "views": list(views), "columns": []}
        # products, not cosines: for those, a server would change the vectors that it is given
        vectors = {
            view: models.VectorParams(size=dim, distance=models.Distance.DOT, on_disk=True)
            for view in views
        }
        with self._answering():
            self.client.create_collection(self.name, vectors, metadata={KEY: told})

    def _add_columns(
        self, told: Mapping[str, Any], kept: Mapping[str, Kind], new: Mapping[str, Kind]
    ) -> None:
        from qdrant_client import models

        kinds = {"number": "float", "time": "integer", "text": "keyword"}
        columns = [*kept.items(), *new.items()]
        with self._answering():
            for number, kind in enumerate(new.values(), len(kept)):
                if not self.is_local:  # where nothing is indexed
                    schema = models.PayloadSchemaType(kinds[kind])
                    self.client.create_payload_index(self.name, f"c{number}", schema, wait=True)
            self.client.update_collection(self.name, metadata={KEY: {**told, "columns": columns}})

    def _told(self) -> dict[str, Any]:
        with self._answering():
            told = (self.client.get_collection(self.name).config.metadata or {}).get(KEY)
        return told if isinstance(told, dict) else {}

    def add(
        self,
        ids: ArrayLike,
        vectors: Mapping[str, NDArray[np.float32]],
        meta: Mapping[str, Sequence[Any] | NDArray[Any]],
    ) -> None:
        """Store rows, those whose id is there already in their place."""
        from qdrant_client import models

        numbers = checks.different_ids(ids).tolist()
        arrays = checks.checked_views(vectors, self.views, self.dim, len(numbers))
        values = checks.checked_meta(meta, self.columns, len(numbers))
        self._check_writes()
        # of the clock: greater than what any writer gave before
        first = max(self._last + 1, time.time_ns())
        self._last = first + len(numbers)
        for start in range(0, len(numbers), AT_ONCE):
            some = range(start, min(start + AT_ONCE, len(numbers)))
            points = models.Batch(
                ids=[numbers[place] for place in some],
                vectors={view: array[some].tolist() for view, array in arrays.items()},
                payloads=[
                    {
                        ADDED: first + place,
                        **{
                            self._keys[name]: _sendable(column[place])
                            for name, column in values.items()
                            if column[place] is not None
                        },
                    }
                    for place in some
                ],
            )
            with self._answering():
                self.client.upsert(self.name, points, wait=True)

    def delete(self, ids: ArrayLike) -> int:
        """Remove rows; return how many there were."""
        numbers = np.unique(checks.checked_ids(ids)).tolist()
        self._check_writes()
        count = 0
        for start in range(0, len(numbers), AT_ONCE):
            some = numbers[start : start + AT_ONCE]
            with self._answering():
                there = self.client.retrieve(self.name, some, with_payload=False)
                if there:
                    found = [point.id for point in there]
                    self.client.delete(self.name, found, wait=True)
                    count += len(found)
        return count

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
        effort = None if exact else self._told().get("effort")
        ids = np.zeros((len(queries), k), np.uint64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        if not any(each.values == [] for each in wanted):
            for start in range(0, len(queries), AT_ONCE):
                some = slice(start, start + AT_ONCE)
                ids[some], scores[some] = self._best(queries[some], k, view, wanted, exact, effort)
        return Found(ids, scores, np.isfinite(scores).sum(axis=1))

    def _best(
        self,
        queries: NDArray[np.float32],
        k: int,
        view: str,
        wanted: Sequence[checks.Wanted],
        exact: bool,
        effort: int | None,
    ) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """Return ``[queries, k]`` ids and scores."""
        from qdrant_client import models

        how = None if self.is_local else models.SearchParams(exact=exact, hnsw_ef=effort)
        condition = self._filter(wanted)
        found: dict[int, list[Any]] = {}
        left, limit = list(range(len(queries))), k + 8
        while left:
            requests = [
                models.QueryRequest(
                    query=queries[place].tolist(),
                    using=view,
                    limit=limit,
                    filter=condition,
                    params=how,
                    with_payload=[ADDED],
                    with_vector=[view],
                )
                for place in left
            ]
            with self._answering():
                answers = self.client.query_batch_points(self.name, requests)
            found.update(zip(left, (answer.points for answer in answers), strict=True))
            # equal rows at the end of a list: which of them were added first is seen with all
            left = [
                place
                for place in left
                if len(found[place]) == limit
                and found[place][-1].score >= found[place][k - 1].score - ROUNDING
            ]
            limit *= 4
        return self._ordered(queries, [found[place] for place in range(len(queries))], k, view)

    def _ordered(
        self, queries: NDArray[np.float32], found: Sequence[Sequence[Any]], k: int, view: str
    ) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """Return ``[queries, k]`` ids and exact scores of what a server found."""
        points = [point for answer in found for point in answer]
        place = np.repeat(np.arange(len(found)), [len(answer) for answer in found])
        added = np.array([point.payload[ADDED] for point in points], np.int64)
        numbers = np.array([point.id for point in points], np.uint64)
        vectors = np.array([point.vector[view] for point in points], np.float32)
        vectors = vectors.reshape(len(points), self.dim)
        each = exact_scores(queries, vectors, (place, np.arange(len(points))))
        best, scores = first_of(place, added, each, (len(queries), k))
        ids = np.zeros(best.shape, np.uint64)
        if len(points):
            order = np.argsort(added, kind="stable")
            ids[best >= 0] = numbers[order][np.searchsorted(added[order], best[best >= 0])]
        return ids, scores

    def _filter(self, wanted: Sequence[checks.Wanted]) -> models.Filter | None:
        from qdrant_client import models

        must: list[Any] = []
        for each in wanted:
            key = self._keys[each.column]
            if each.values is not None and each.kind == "text":
                texts = [_sendable(value) for value in each.values]
                must.append(models.FieldCondition(key=key, match=models.MatchAny(any=texts)))
            elif each.values is not None:  # a server compares no fractions but by ranges
                ranges = [models.Range(gte=value, lte=value) for value in each.values]
                same: list[Any] = [models.FieldCondition(key=key, range=one) for one in ranges]
                must.append(models.Filter(should=same))
            elif each.low is None and each.high is None:
                there = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
                must.append(models.Filter(must_not=[there]))
            else:
                between = models.Range(gte=each.low, lt=each.high)
                must.append(models.FieldCondition(key=key, range=between))
        return models.Filter(must=must) if must else None

    def get(self, ids: ArrayLike, *, vectors: bool = False) -> Rows:
        """Return rows in the order of ``ids``."""
        numbers = checks.checked_ids(ids)
        different = np.unique(numbers).tolist()
        points = {}
        for start in range(0, len(different), AT_ONCE):
            some = different[start : start + AT_ONCE]
            with self._answering():
                found = self.client.retrieve(self.name, some, with_vectors=vectors)
            points.update({point.id: point for point in found})
        missing = [number for number in numbers.tolist() if number not in points]
        if missing:
            raise KeyError(f"this gallery has no row with the id {missing[0]}")
        return self._rows([points[number] for number in numbers.tolist()], self.columns, vectors)

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
        first: int | None = checks.checked_start(after_id, limit)
        points: list[Any] = []
        left = limit
        keys = [self._keys[name] for name in names]
        while first is not None and first < 2**64 and left != 0:
            with self._answering():
                found, following = self.client.scroll(
                    self.name,
                    limit=AT_ONCE * 4 if left is None else min(left, AT_ONCE * 4),
                    offset=first,
                    with_payload=keys or False,
                    with_vectors=vectors,
                )
            points += found
            left = None if left is None else left - len(found)
            first = None if following is None else int(str(following))
        return self._rows(points, names, vectors)

    def _rows(self, points: Sequence[Any], names: Iterable[str], vectors: bool) -> Rows:
        ids = np.array([point.id for point in points], np.uint64)
        payloads = [point.payload or {} for point in points]
        meta = {
            name: [
                _received(payload.get(self._keys[name]), self.columns[name]) for payload in payloads
            ]
            for name in names
        }
        if not vectors:
            return Rows(ids, meta, None)
        arrays = {
            view: np.array([point.vector[view] for point in points], np.float32)
            for view in self.views
        }
        return Rows(ids, meta, {v: each.reshape(len(ids), self.dim) for v, each in arrays.items()})

    def values(self, column: str, limit: int = 1000) -> list[Any]:
        """Return the different values of a column in order.

        Of more than `MOST_TEXTS` different texts those that the most rows have.
        """
        from qdrant_client import models

        checks.check_column(column, self.columns)
        key, kind = self._keys[column], self.columns[column]
        if kind == "text":
            with self._answering():
                hits = self.client.facet(self.name, key, limit=MOST_TEXTS, exact=True).hits
            return sorted(_received(hit.value, kind) for hit in hits)[:limit]
        values: list[Any] = []
        beyond = None
        while len(values) < limit:  # one after the other: a server lists no different numbers
            with self._answering():
                found, _ = self.client.scroll(
                    self.name, beyond, limit=1, order_by=key, with_payload=[key]
                )
            if not found:
                break
            values.append(_received((found[0].payload or {})[key], kind))
            later = models.FieldCondition(key=key, range=models.Range(gt=values[-1]))
            beyond = models.Filter(must=[later])
        return values

    def stats(self) -> Stats:
        """Return how the store stands, as far as the server tells."""
        told, rows = self._told(), len(self)
        with self._answering():
            indexed = self.client.get_collection(self.name).indexed_vectors_count or 0
        return Stats(
            rows=rows,
            deleted=0,
            indexed=min(indexed // len(self.views), rows),
            generation=0,
            bytes=0,
            probes=told.get("effort") or 0,
            recall_at_10=told.get("recall"),
            recall_at_10_of_rows=None,
            notice="",
        )

    def maintain(self, queries: NDArray[np.float32] | None = None) -> Stats:
        """Measure what the server's index finds, and set how far it looks; it indexes by itself."""
        self._check_writes()
        if queries is not None and len(queries) and not self.is_local:
            queries = checks.checked_vectors(queries, self.dim, "queries")
            least = self.search(queries, FIRST, view=self.views[0], exact=True).scores
            effort, recall = EFFORTS[0], 0.0
            for effort in EFFORTS:
                _, scores = self._best(queries, FIRST, self.views[0], [], False, effort)
                right = np.isfinite(scores) & (scores >= least.min(axis=1, keepdims=True))
                recall = float(right.sum() / max(1, np.isfinite(least).sum()))
                if recall >= RECALL:
                    break
            told = {**self._told(), "effort": effort, "recall": recall}
            with self._answering():
                self.client.update_collection(self.name, metadata={KEY: told})
        return self.stats()

    def close(self) -> None:
        """Let go of the connection."""
        if not self.is_local:
            self.client.close()

    def __len__(self) -> int:
        """Return the number of rows."""
        with self._answering():
            return int(self.client.count(self.name, exact=True).count)

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

    def _check_writes(self) -> None:
        if not self.writes:
            raise RuntimeError(f"{self.url} is open for reading only: open it with write=True.")

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Word the errors of a server that does not answer, or refuses."""
        from qdrant_client.http.exceptions import ApiException

        try:
            yield
        except ApiException as error:
            lines = str(error).strip().splitlines() or ["no reason given"]
            raise RuntimeError(
                f"{self.url}: the server does not answer or refuses ({lines[0][:300]}). See that "
                "Qdrant runs there, and that QDRANT_API_KEY holds its key if it has one."
            ) from error


def _parts(url: str) -> tuple[str, int, str]:
    """Return host, port and collection.

    Example:
        >>> _parts("qdrant://db.example:6333/photos"), _parts("qdrant://:memory:/a")
        (('db.example', 6333, 'photos'), (':memory:', 0, 'a'))
    """
    place, _, name = url.partition("://")[2].partition("/")
    try:
        split = urlsplit(f"//{place}") if place != MEMORY else None
        host, port = (MEMORY, 0) if split is None else (split.hostname, split.port or 6333)
    except ValueError:
        host, port = None, 0
    if not host or not name or "/" in name or "@" in place:
        raise ValueError(
            f"{url!r} names no collection: write qdrant://<host>:6333/<name>, or qdrants:// for a "
            "server that speaks HTTPS. A key belongs into QDRANT_API_KEY."
        )
    if port == 6334:
        raise ValueError(f"{url!r} names the port of gRPC; write the one of HTTP, as a rule 6333.")
    return host, port, name


def _client(host: str, port: int, *, https: bool) -> QdrantClient:
    _check_installed()
    from qdrant_client import QdrantClient

    key = os.environ.get("QDRANT_API_KEY") or None
    with warnings.catch_warnings():  # a key over HTTP is what `qdrant://` says
        warnings.simplefilter("ignore", UserWarning)
        return QdrantClient(
            host=host, port=port, https=https, api_key=key, timeout=60, check_compatibility=False
        )


@functools.cache
def _in_memory() -> QdrantClient:
    """Return the one client of this process whose collections go with it."""
    _check_installed()
    from qdrant_client import QdrantClient

    return QdrantClient(MEMORY)


def _check_installed() -> None:
    if importlib.util.find_spec("qdrant_client") is None:
        raise ValueError(
            "qdrant:// needs the Python package qdrant-client: pip install "
            '"<folder or URL of crosswalk>[qdrant]".'
        )


def _sendable(value: Any) -> Any:  # noqa: ANN401
    """Return a value as JSON takes it: parts of file names need not be UTF-8."""
    if isinstance(value, str) and UNSENDABLE.search(value):
        return "\0" + value.encode("utf-8", "surrogatepass").hex()
    return value


def _received(value: Any, kind: Kind) -> Any:  # noqa: ANN401
    """Return a value as it was given."""
    if kind == "text" and isinstance(value, str) and value.startswith("\0"):
        try:
            return bytes.fromhex(value[1:]).decode("utf-8", "surrogatepass")
        except ValueError:
            return value
    return float(value) if kind == "number" and value is not None else value
