"""What a gallery keeps its embeddings in: rows of unit vectors with columns, found by similarity.

One contract, two stores: a folder on this machine (`crosswalk.gallery.embedded`) and a collection
of a Qdrant server (`crosswalk.gallery.qdrant`); `crosswalk.gallery.open` opens either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

Kind = Literal["number", "text", "time"]
"""Of a column: float64, text, or whole microseconds since 1970 in UTC."""

KINDS: tuple[Kind, ...] = ("number", "text", "time")
MAIN = "main"


class Condition(NamedTuple):
    """What a column must be; a row must meet all conditions, and a missing value meets none.

    Attributes:
        column: Its name.
        op: ``"eq"``: is the value. ``"in"``: is one of the values. ``"range"``, of numbers and
            times: at least the first and below the second of two values, either of which may be
            None.
        value: Of the column's kind.
    """

    column: str
    op: Literal["eq", "in", "range"]
    value: Any


class Found(NamedTuple):
    """The most similar rows of each query, best first.

    Attributes:
        ids: ``[queries, k]`` uint64; 0 behind the last one found.
        scores: ``[queries, k]`` float32 cosines; of equal ones the row added first is ahead;
            -inf behind the last one found.
        counts: ``[queries]`` int64, how many were found: k unless fewer rows meet the conditions.
    """

    ids: NDArray[np.uint64]
    scores: NDArray[np.float32]
    counts: NDArray[np.int64]


class Rows(NamedTuple):
    """What is stored of some rows.

    Attributes:
        ids: ``[rows]`` uint64.
        meta: Per column ``[rows]`` values: float, str or int by its kind; None where missing.
        vectors: Per view ``[rows, dim]`` float32, or None if they were not asked for.
    """

    ids: NDArray[np.uint64]
    meta: dict[str, list[Any]]
    vectors: dict[str, NDArray[np.float32]] | None


class Stats(NamedTuple):
    """How a store stands.

    Attributes:
        rows: Rows that a search finds.
        deleted: Rows that take up room until the next compaction.
        indexed: Rows that an approximate search finds by an index; the others are compared all.
        generation: Changes with every compaction.
        bytes: On the disk, as far as that is known.
        probes: Lists of the index that a query looks into; 0 without an index.
        recall_at_10: Share of the exact search's first ten that the index finds, for the queries
            given to `Store.maintain`; None if there were none, or there is no index.
        recall_at_10_of_rows: The same for stored rows, slightly changed, as queries.
        notice: What a user should know, such as an index that is not used; empty if nothing.
    """

    rows: int
    deleted: int
    indexed: int
    generation: int
    bytes: int
    probes: int
    recall_at_10: float | None
    recall_at_10_of_rows: float | None
    notice: str


class Store(Protocol):
    """Rows by id. All methods raise a ValueError that names what is wrong with what was given.

    Attributes:
        dim: Length of the vectors.
        views: Names of the vectors of a row.
        columns: Names and kinds of what is kept beside them.
    """

    dim: int
    views: tuple[str, ...]
    columns: Mapping[str, Kind]

    def add(
        self,
        ids: ArrayLike,
        vectors: Mapping[str, NDArray[np.float32]],
        meta: Mapping[str, Sequence[Any] | NDArray[Any]],
    ) -> None:
        """Store rows; those whose id is there already are replaced, and count as added now.

        When this returns, they are on the disk. Stopped before, none or all of them are there.

        Args:
            ids: ``[rows]`` whole numbers in [0, 2**64), each once.
            vectors: Per view ``[rows, dim]`` unit vectors.
            meta: Per column ``[rows]`` values; None or NaN where missing. A column that is left
                out is missing in all.
        """

    def delete(self, ids: ArrayLike) -> int:
        """Remove rows; return how many there were. Ids that are not there do not matter."""

    def search(
        self,
        query: NDArray[np.float32],
        k: int,
        *,
        view: str = MAIN,
        where: Sequence[Condition] = (),
        exact: bool = False,
    ) -> Found:
        """Return the ``k`` most similar rows of each query.

        Args:
            query: ``[queries, dim]`` unit vectors.
            k: At least 1.
            view: The vectors to compare with.
            where: Conditions, all of which a row must meet.
            exact: Compare all rows, also where an index would do.
        """

    def get(self, ids: ArrayLike, *, vectors: bool = False) -> Rows:
        """Return rows in the order of ``ids``.

        Raises:
            KeyError: If one is not there.
        """

    def scan(
        self,
        after_id: int | None = None,
        limit: int | None = None,
        *,
        columns: Iterable[str] | None = None,
        vectors: bool = False,
    ) -> Rows:
        """Return rows by ascending id: at most ``limit`` of those behind ``after_id``.

        Args:
            after_id: None: from the first.
            limit: None: all.
            columns: Those to return; None: all.
            vectors: Return them, too.
        """

    def values(self, column: str, limit: int = 1000) -> list[Any]:
        """Return the different values of a column in order, missing ones not among them.

        Args:
            column: Its name.
            limit: The first so many.
        """

    def stats(self) -> Stats:
        """Return how the store stands."""

    def maintain(self, queries: NDArray[np.float32] | None = None) -> Stats:
        """Do what keeps searches fast: drop what was deleted, index many rows.

        Args:
            queries: ``[queries, dim]`` some of the kind that will be asked, such as embedded
                sentences; an index is tuned for them, once.
        """

    def close(self) -> None:
        """Let go of files and locks. Nothing else may be called afterwards."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def __enter__(self) -> Self:
        """Return itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
