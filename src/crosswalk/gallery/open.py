"""Opens a store by its place. What that needs is imported then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from crosswalk.gallery.store import MAIN, Kind, Store


def open_store(
    url: str | Path,
    *,
    dim: int,
    views: Sequence[str] = (MAIN,),
    columns: Mapping[str, Kind] | None = None,
    write: bool = False,
) -> Store:
    """Return the store at a place, made if it is missing and may be written.

    Args:
        url: A folder, or ``qdrant://host:6333/name`` for a collection of a Qdrant server;
            ``qdrant://:memory:/name`` is one that goes with this process.
        dim: Length of the vectors; > 0.
        views: Names of the vectors of a row.
        columns: Names and kinds of what is kept beside them; a writer adds those that it has not
            yet. None: those that it has.
        write: One process at a time may; any number may read meanwhile.

    Raises:
        FileNotFoundError: If there is none, and none may be made.
        ValueError: If there is something else, it is damaged, or does not fit what was given.
        RuntimeError: If another process writes to it.

    Example:
        >>> import numpy as np, tempfile
        >>> from crosswalk.gallery.store import Condition
        >>> with open_store(tempfile.mkdtemp(), dim=2, columns={"camera": "number"}, write=True) \
        as store:
        ...     vectors = np.array([[1, 0], [0.6, 0.8]], np.float32)
        ...     store.add([7, 8], {"main": vectors}, {"camera": [1, 2]})
        ...     found = store.search(vectors[:1], 5, where=[Condition("camera", "eq", 2)])
        >>> found.ids[0, : found.counts[0]], found.scores[0, 0]
        (array([8], dtype=uint64), np.float32(0.6))
    """
    given = tuple(views)
    if str(url).startswith(("qdrant://", "qdrants://")):
        from crosswalk.gallery.qdrant import QdrantStore

        return QdrantStore(str(url), dim=dim, views=given, columns=columns, write=write)
    from crosswalk.gallery.embedded import EmbeddedStore

    return EmbeddedStore(Path(url), dim=dim, views=given, columns=columns, write=write)
