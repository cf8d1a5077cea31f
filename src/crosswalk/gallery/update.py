"""Brings a gallery up to date: only what is new or has changed is embedded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crosswalk.gallery.pictures import Content, Picture, Value, content_of, id_of
from crosswalk.gallery.store import Store
from crosswalk.progress import Progress

if TYPE_CHECKING:
    from crosswalk.use.model import Model

AT_ONCE = 256
"""Pictures that are embedded, and then confirmed, together."""

PAGE = 50_000
"""Rows of a gallery that are read at one time."""

COLOURS = ("black", "white", "red", "blue", "green", "grey", "yellow", "brown")
CLOTHES = (("coat", "trousers"), ("shirt", "shorts"), ("jacket", "jeans"), ("sweater", "skirt"))
SENTENCES = tuple(
    f"a person in a {top_colour} {top} and {bottom_colour} {bottom}"
    for (top, bottom), top_colour, bottom_colour in product(CLOTHES, COLOURS, COLOURS)
)
"""Queries by which an approximate index is tuned: sentences find less than pictures do."""


@dataclass
class Changes:
    """What an update did, in pictures.

    Attributes:
        new: Were not there.
        changed: Were there with another content.
        described: Are what they were, and something else is said of them.
        unchanged: Are what they were.
        removed: Are there no more.
        embedded: Went through the model; a file that has moved does not.
        broken: Cannot be read, by path, and why.
        missing: Those of them of which there is no file; what was indexed of them stays.
    """

    new: int = 0
    changed: int = 0
    described: int = 0
    unchanged: int = 0
    removed: int = 0
    embedded: int = 0
    broken: dict[str, str] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        told = {
            "new": self.new,
            "changed": self.changed,
            "with other values": self.described,
            "removed": self.removed,
            "unchanged": self.unchanged,
        }
        parts = [f"{number:,} {what}" for what, number in told.items() if number]
        if self.broken:
            parts.append(f"{len(self.broken):,} left out")
        return ", ".join(parts) or "nothing to do"


class _Row(NamedTuple):
    """A row of the gallery as it stands."""

    id: int
    values: dict[str, Value]  # with its path and the digest of its content


def rows_of(store: Store) -> Iterator[_Row]:
    """Yield every row of a gallery, without vectors."""
    after = None
    while len((page := store.scan(after, PAGE)).ids):
        for place, id in enumerate(page.ids.tolist()):
            values = {name: column[place] for name, column in page.meta.items()}
            yield _Row(id, {name: value for name, value in values.items() if value is not None})
        after = int(page.ids[-1])


def update(store: Store, model: Model, pictures: Sequence[Picture], *, batch_size: int) -> Changes:
    """Add pictures to a gallery, and replace those that changed; return what was done.

    What is confirmed, `AT_ONCE` pictures at a time, outlasts a kill; the next update goes on there.

    Args:
        store: Open for writing, with all columns of the pictures.
        model: Embeds.
        pictures: From `crosswalk.gallery.pictures.pictures_of`.
        batch_size: Images computed at a time.
    """
    rows = {row.id: row for row in rows_of(store)}
    by_content = {str(row.values["sha256"]): row.id for row in rows.values()}
    changes = Changes()
    with Progress(f"Indexing pictures with {model.name}") as shown, ThreadPoolExecutor() as pool:
        for start in range(0, len(pictures), AT_ONCE):
            shown(start, len(pictures))
            some = pictures[start : start + AT_ONCE]
            contents = list(zip(some, pool.map(_content_or_problem, some), strict=True))
            _add(store, model, contents, rows, by_content, changes, batch_size)
    return changes


def remove(store: Store, ids: Sequence[int]) -> int:
    """Remove rows from a gallery, and return how many there were."""
    return store.delete(np.array(ids, np.uint64)) if ids else 0


def gone(store: Store, listed: Sequence[Picture], folder: str) -> list[int]:
    """Return the rows of pictures in a folder, or below it, that are not listed any more."""
    inside = os.path.join(os.path.abspath(folder), "")
    there = {picture.path for picture in listed}
    paths = ((row.id, str(row.values["path"])) for row in rows_of(store))
    return [id for id, path in paths if path.startswith(inside) and path not in there]


def _content_or_problem(picture: Picture) -> Content | OSError | ValueError:
    try:
        return content_of(picture.path)
    except (OSError, ValueError) as error:
        return error


def _add(
    store: Store,
    model: Model,
    contents: Sequence[tuple[Picture, Content | OSError | ValueError]],
    rows: dict[int, _Row],
    by_content: dict[str, int],
    changes: Changes,
    batch_size: int,
) -> None:
    """Add those of a few pictures that are new, changed or described otherwise."""
    new: list[tuple[int, dict[str, Value]]] = []
    known: list[tuple[int, dict[str, Value]]] = []
    no_pictures: list[str] = []
    for picture, content in contents:
        if not isinstance(content, Content):
            changes.broken[picture.path] = str(content)
            if isinstance(content, FileNotFoundError):
                changes.missing.add(picture.path)
            elif isinstance(content, ValueError):  # others may pass, such as a drive that is away
                no_pictures.append(picture.path)
            continue
        id = id_of(picture.path)
        before = rows.get(id)
        values = _values(picture, content, before)
        twin = rows.get(by_content.get(content.sha256, 0))
        if before is not None and before.values == values:
            changes.unchanged += 1
        elif twin is not None and twin.values["sha256"] == content.sha256:
            known.append((id, values))
        else:
            new.append((id, values))
    broken: dict[int, str] = {}
    vectors = model.embed_images(
        [str(values["path"]) for _, values in new],
        batch_size=batch_size,
        on_error="skip",
        broken=broken,
    ).numpy()
    changes.broken.update({str(new[place][1]["path"]): why for place, why in broken.items()})
    changes.embedded += len(vectors)
    # what is there and is no picture any more is not what was indexed
    no_pictures += [str(new[place][1]["path"]) for place in broken]
    stale = [id for path in no_pictures if (id := id_of(path)) in rows]
    new = [each for place, each in enumerate(new) if place not in broken]
    if known:
        places = np.array([by_content[str(values["sha256"])] for _, values in known], np.uint64)
        found = store.get(places, vectors=True).vectors
        assert found is not None  # asked for
        vectors = np.concatenate([vectors, found["main"]])
    added = [*new, *known]
    if added:
        _write(store, added, vectors)
    for id, values in added:
        before = rows.get(id)
        if before is None:
            changes.new += 1
        elif before.values["sha256"] != values["sha256"]:
            changes.changed += 1
        else:
            changes.described += 1
        rows[id] = _Row(id, values)
        by_content[str(values["sha256"])] = id
    changes.removed += remove(store, stale)
    for id in stale:
        del rows[id]


def _values(picture: Picture, content: Content, before: _Row | None) -> dict[str, Value]:
    """Return the row of a picture: what is said of it now, and what was said before."""
    values: dict[str, Value | None] = {**before.values} if before is not None else {}
    has_changed = values.get("sha256") != content.sha256
    values.update({**picture.values, "path": picture.path, "sha256": content.sha256})
    if values.get("time") is None or (has_changed and picture.values.get("time") is None):
        values["time"] = content.time if content.time is not None else values.get("time")
    return {name: value for name, value in values.items() if value is not None}


def _write(store: Store, added: list[tuple[int, dict[str, Value]]], vectors: Any) -> None:  # noqa: ANN401
    ids = np.array([id for id, _ in added], np.uint64)
    meta = {name: [values.get(name) for _, values in added] for name in store.columns}
    store.add(ids, {"main": vectors}, meta)
