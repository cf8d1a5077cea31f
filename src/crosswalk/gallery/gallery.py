"""A gallery: pictures that are found by a sentence, by another picture, by camera and time."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from crosswalk.config.model_file import THRESHOLDS
from crosswalk.gallery.damage import damaged
from crosswalk.gallery.description import (
    FILE,
    MOST_HITS,
    Description,
    check_new_or_gallery,
    read_gallery,
    updating,
)
from crosswalk.gallery.pictures import Picture, id_of, pictures_of
from crosswalk.gallery.servers import remember
from crosswalk.gallery.store import Condition, Kind, Rows, Stats
from crosswalk.gallery.update import SENTENCES, Changes, gone, remove, rows_of, update
from crosswalk.gallery.where import as_time, parse_where
from crosswalk.use.calibrate import thresholds_of
from crosswalk.use.inputs import Listed, listed_images
from crosswalk.use.source import source_of
from crosswalk.use.thresholds import Thresholds, read_thresholds
from crosswalk.words import counted

if TYPE_CHECKING:
    from crosswalk.use.model import AnyImage, Model

RERANKED = 200
"""First hits among which re-ranking looks for neighbours."""

K1, K2, DISTANCE_WEIGHT = 20, 6, 0.3  # Zhong et al., CVPR 2017, the numbers for ReID

SAME = 0.97  # ours
"""Cosine from which two pictures are shown as one, where that is asked for."""

ATTEMPTS = 20
"""Changes that may come between the two parts of a search."""

DIRECTION = {"sentence": "text_to_image", "picture": "image_to_image"}
"""What thresholds were measured of, by what is looked for."""


@dataclass(frozen=True)
class Hit:
    """A picture that was found.

    Attributes:
        id: Of the row in the gallery.
        path: The file.
        score: Cosine of the query and the picture, in [-1, 1]; after re-ranking too.
        camera: A whole number or a text; None if nobody said.
        time: When it was taken; None if nobody said.
        own_id: What a table called it; None without.
        columns: All that is known of it, these included.
        count: Pictures that it stands for, itself included, of those that were looked at for this
            search (`Gallery.search` with ``group``).
        probability: That the query's person is in the gallery, going by this score; None where
            nobody measured it, or scores cannot tell.
    """

    id: int
    path: Path
    score: float
    camera: int | float | str | None = None
    time: datetime | None = None
    own_id: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    count: int = 1
    probability: float | None = None


class Gallery:
    """Pictures with their embeddings, in a folder; open for reading, from any number of threads.

    Search is exact up to some 200,000 pictures, and with ``exact=True`` beyond. Other processes
    may read while one writes; what they have confirmed is seen by the next search.

    Args:
        path: The folder.
        model: The one that the gallery was built with, if it is loaded already; None loads it
            when a query needs it.

    Raises:
        FileNotFoundError: If there is no gallery.
        ValueError: If it is damaged, something else, or of another model.
    """

    def __init__(self, path: str | Path, *, model: Model | str | Path | None = None) -> None:
        self.path = Path(path)
        told = read_gallery(self.path)
        self.dim, self.fingerprint, self.built_with = told.dim, told.fingerprint, told.model
        self.reads_captions = told.reads_captions
        self.changes: Changes | None = None
        """What the update did that this gallery comes from; None if it was only opened."""
        self.stats: Stats | None = None
        """What became of the index then."""
        file = self.path / THRESHOLDS
        self.thresholds = read_thresholds(file) if file.exists() else None
        """What scores say about whether a person is in the gallery; None if nobody measured it."""
        if self.thresholds and self.thresholds.fingerprint not in (None, self.fingerprint):
            raise ValueError(
                f"{file} was measured on another model ({self.thresholds.model}). Delete it, or "
                "measure this one: `crosswalk calibrate`."
            )
        self._model = model
        self._store = told.open()
        self.columns: Mapping[str, Kind] = self._store.columns
        if model is not None and not isinstance(model, (str, Path)):
            self._check(model)

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._store)

    def __repr__(self) -> str:
        return f"Gallery({self.path}: {counted(len(self), 'picture')})"

    def close(self) -> None:
        """Let go of its files."""
        self._store.close()

    @classmethod
    def build(
        cls,
        path: str | Path,
        model: Model | str | Path,
        source: str | Path,
        *,
        store: str | None = None,
        batch_size: int = 64,
        allow_outside: bool = False,
        prune: bool = False,
        thresholds: str | Path | None = None,
    ) -> Gallery:
        """Make a gallery, or bring one up to date; return it, with what was done in `changes`.

        Only pictures that are new, or whose content has changed, are embedded. After a kill the
        same call goes on.

        Args:
            path: Its folder.
            model: Embeds; what `crosswalk.load` takes, or the model.
            source: A folder of pictures, or a CSV with a column ``path``, and as it likes
                ``camera``, ``time``, ``own_id`` and others.
            store: A Qdrant server that is to hold it, ``qdrant://host:6333/<name>``; None keeps
                it in ``path``. It is said once.
            batch_size: Pictures computed at a time.
            allow_outside: Whether the paths of a CSV may lead out of its folder.
            prune: Remove pictures of this folder (of that of the CSV) that are gone.
            thresholds: A file of `crosswalk calibrate`; None takes what the model has of itself.

        Raises:
            FileNotFoundError: If there is no such source.
            ValueError: If ``path`` holds something else, was built with another model, or the
                source has no pictures or wrong cells.
        """
        from crosswalk.use.load import load
        from crosswalk.use.model import Model

        path, source = Path(path), Path(source)
        nothing = "nothing was indexed"
        listed = listed_images(source, allow_outside=allow_outside, nothing=nothing)
        _fitting(path, listed, source, store)  # before the model is loaded, and again with the lock
        if not isinstance(model, Model):
            model = load(model)
        measured = _thresholds(path, model, thresholds)
        if check_new_or_gallery(path):
            read_gallery(path).check_model(model)
        if store is not None:
            remember(store)
        with updating(path):
            before, pictures, columns = _fitting(path, listed, source, store)
            if before is not None:
                before.check_model(model)
            told = Description(
                path=path,
                model=model.source or (before.model if before else ""),
                fingerprint=model.fingerprint,
                dim=model.embedding_size,
                reads_captions=model.tokenizer is not None,
                columns=columns,
                store=store if before is None else before.store,
            )
            with told.open(write=True) as opened:
                told._replace(columns=dict(opened.columns)).write()
                if measured is not None:
                    measured.write(path / THRESHOLDS)
                changes = update(opened, model, pictures, batch_size=batch_size)
                if prune:
                    folder = source if source.is_dir() else source.parent
                    left = [each for each in pictures if each.path not in changes.missing]
                    changes.removed += remove(opened, gone(opened, left, str(folder)))
                stats = opened.maintain(_queries(model))
        gallery = cls(path, model=model)
        gallery.changes, gallery.stats = changes, stats
        return gallery

    @classmethod
    def remove(cls, path: str | Path, source: str | Path, *, allow_outside: bool = False) -> int:
        """Take the pictures of a folder, or those that a CSV lists, out of a gallery.

        Returns:
            How many there were.

        Raises:
            FileNotFoundError: If there is no gallery.
            ValueError: If the source is neither.
        """
        told, source = read_gallery(Path(path)), Path(source)
        with updating(told.path), told.open(write=True) as opened:
            if source.suffix.lower() == ".csv" and source.is_file():
                nothing = "nothing was removed"
                listed = listed_images(source, allow_outside=allow_outside, nothing=nothing)
                pictures, _ = pictures_of([each._replace(row={}) for each in listed], source, {})
                known = {row.id for row in rows_of(opened)}
                ids = [id for each in pictures if (id := id_of(each.path)) in known]
            else:  # gone or not
                ids = gone(opened, [], str(source))
                if source.is_file() or not ids:
                    ids += [id_of(os.path.abspath(source))]
            removed = remove(opened, ids)
            opened.maintain()
        return removed

    @cached_property
    def model(self) -> Model:
        """The model that queries are embedded with.

        Raises:
            FileNotFoundError: If it is gone.
            ValueError: If it is not the one that the gallery was built with.
        """
        from crosswalk.use.load import load
        from crosswalk.use.model import Model

        if isinstance(self._model, Model):
            return self._model
        if self._model is None and not self.built_with:
            raise ValueError(f"{self.path} does not say which model it was built with: pass it.")
        with nullcontext() if self._model else read_gallery(self.path).kept():
            model = load(self._model or self.built_with)
        self._check(model)
        return model

    def search(
        self,
        query: AnyImage | NDArray[np.float32],
        k: int = 10,
        *,
        where: str | Sequence[Condition] = "",
        exact: bool = False,
        group: bool | float = False,
        rerank: bool = False,
        without: int = 0,
    ) -> list[Hit]:
        """Return the pictures most similar to a query, best first.

        Args:
            query: A sentence (a text); a picture (a `Path`, an image of Pillow, an array or a
                tensor); or its embedding, ``[D]`` float32.
            k: How many at most.
            where: What they have to be of (`crosswalk.gallery.where.parse_where`), such as
                ``"camera in (2, 5) and time >= '2026-11-01'"``.
            exact: Compare with every picture, where an index would look at a part.
            group: Show near-duplicates as one hit with their number: pictures whose cosine is at
                least this; True is 0.97.
            rerank: Order the first 200 by the neighbours they share with the query
                (`crosswalk.metrics.reranking.k_reciprocal`).
            without: The id of a picture that is not to be found.

        Raises:
            ValueError: If the query cannot be embedded, or the filter not be read.

        Source:
            Re-ranking: Zhong et al., Re-ranking with k-reciprocal Encoding, CVPR 2017.
        """
        if not 1 <= k <= MOST_HITS:
            raise ValueError(f"k={k}: give a number from 1 to {MOST_HITS:,}.")
        conditions = parse_where(where, self.columns) if isinstance(where, str) else list(where)
        vector = self.embed(query)
        direction = DIRECTION["sentence" if isinstance(query, str) else "picture"]
        least = SAME if group is True else float(group)
        wanted = max(k, RERANKED) if rerank or least else k
        wanted = min(wanted + (without != 0), MOST_HITS)
        while True:
            rows, scores = self._found(vector, wanted, conditions, exact, bool(least) or rerank)
            order = self._reranked(vector, rows, scores) if rerank else np.arange(len(scores))
            order = order[rows.ids[order] != np.uint64(without)]
            groups = _groups(rows, order, least) if least else [[place] for place in order.tolist()]
            if len(groups) >= k or len(scores) < wanted or wanted >= MOST_HITS:
                break
            wanted = min(4 * wanted, MOST_HITS)
        return [
            self._hit(rows, places[0], float(scores[places[0]]), len(places), direction)
            for places in groups[:k]
        ]

    def similar(self, id: int, k: int = 10, **options: Any) -> list[Hit]:  # noqa: ANN401
        """Return the pictures most similar to one of the gallery, without itself.

        Args:
            id: Of a `Hit`.
            k: How many at most.
            options: As for `search`.

        Raises:
            KeyError: If the gallery holds no such picture.
        """
        vectors = self._store.get(np.array([id], np.uint64), vectors=True).vectors
        assert vectors is not None  # asked for
        return self.search(vectors["main"][0], k, without=id, **options)

    def _found(
        self,
        vector: NDArray[np.float32],
        wanted: int,
        conditions: Sequence[Condition],
        exact: bool,
        vectors: bool,
    ) -> tuple[Rows, NDArray[np.float32]]:
        """Return rows and their scores, of one moment: a writer may remove some meanwhile."""
        for _ in range(ATTEMPTS):
            found = self._store.search(vector[None], wanted, where=conditions, exact=exact)
            count = int(found.counts[0])
            try:
                rows = self._store.get(found.ids[0, :count], vectors=vectors)
            except KeyError:
                continue
            return rows, found.scores[0, :count]
        raise RuntimeError(f"{self.path} is changed again and again. Repeat the search.")

    def embed(self, query: AnyImage | NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the ``[D]`` embedding of a query, as `search` takes it.

        Raises:
            ValueError: If it cannot be embedded.
        """
        if isinstance(query, np.ndarray) and query.dtype == np.float32 and query.ndim == 1:
            if len(query) != self.dim or not np.isfinite(query).all():
                raise ValueError(
                    f"an embedding of {len(query)} numbers: {self.path} compares finite ones of "
                    f"{self.dim}."
                )
            return query.astype(np.float32)
        if not isinstance(query, str):
            return np.asarray(self.model.embed_images(query)[0].numpy())
        if not self.reads_captions:
            raise ValueError(
                f"{self.path} was built with {self.built_with}, a model of images alone: search by "
                "a picture (--image), or build a gallery with a model of text-based search."
            )
        return np.asarray(self.model.embed_texts(query)[0].numpy())

    def hit(self, id: int) -> Hit:
        """Return a picture of the gallery, with the score 1.

        Raises:
            KeyError: If the gallery holds no such picture.
        """
        return self._hit(self._store.get(np.array([id], np.uint64)), 0, 1.0, 1, "")

    def note(self, hits: Sequence[Hit], query: Literal["sentence", "picture"]) -> str:
        """Return what is to be said of a search: that the person is probably not in the gallery.

        Args:
            hits: What was found.
            query: What was looked for.

        Returns:
            Empty if there is nothing to say, or nobody measured it (`crosswalk calibrate`).
        """
        if self.thresholds is None or not hits:
            return ""
        best = max(hit.score for hit in hits)  # re-ranking may put another one first
        return self.thresholds.note(best, DIRECTION[query], len(self))

    def values(self, column: str, limit: int = 1000) -> list[Any]:
        """Return the different values of a column in order, at most ``limit``."""
        return [shown(value, self.columns[column]) for value in self._store.values(column, limit)]

    def _probability(self, score: float, direction: str) -> float | None:
        if self.thresholds is None or direction not in self.thresholds.directions:
            return None
        tells = self.thresholds.directions[direction].tells
        return self.thresholds.probability(score, direction) if tells else None

    def _check(self, model: Model) -> None:
        told = read_gallery(self.path)
        told.check_model(model)

    def _reranked(
        self, vector: NDArray[np.float32], rows: Rows, scores: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        import torch

        from crosswalk.metrics.reranking import k_reciprocal

        assert rows.vectors is not None  # asked for
        first = min(len(scores), RERANKED)
        if first == 0:
            return np.arange(0)
        again = k_reciprocal(
            torch.from_numpy(vector[None]),
            torch.from_numpy(rows.vectors["main"][:first]),
            k1=K1,
            k2=K2,
            distance_weight=DISTANCE_WEIGHT,
        )
        bonus = again.bonus.toarray()[0]
        order = np.argsort(-(again.slope[0] * scores[:first] + bonus), kind="stable")
        return np.concatenate([order, np.arange(first, len(scores))])

    def _hit(self, rows: Rows, place: int, score: float, count: int, direction: str) -> Hit:
        try:
            columns = {
                name: shown(value, self.columns[name])
                for name, values in rows.meta.items()
                if (value := values[place]) is not None and name != "sha256"
            }
            path = Path(columns["path"])
        except (KeyError, OverflowError) as error:
            why = f"the row {int(rows.ids[place])} has no {error}"
            raise damaged(self.path / FILE, why) from error
        return Hit(
            id=int(rows.ids[place]),
            path=path,
            score=score,
            camera=columns.get("camera"),
            time=columns.get("time"),
            own_id=columns.get("own_id"),
            columns=columns,
            count=count,
            probability=self._probability(score, direction),
        )


def _fitting(
    path: Path, listed: Sequence[Listed], source: Path, store: str | None
) -> tuple[Description | None, list[Picture], dict[str, Kind]]:
    """Return what a gallery says of itself, the pictures to index, and the columns of both."""
    before = read_gallery(path) if check_new_or_gallery(path) else None
    pictures, columns = pictures_of(listed, source, before.columns if before else {})
    if before is not None:
        before.check_store(store)
    return before, pictures, {"time": "time", **columns}  # files may say when they were taken


def _thresholds(path: Path, model: Model, given: str | Path | None) -> Thresholds | None:
    """Return the thresholds to write into a gallery; None if it has some, or there are none."""
    if given is not None:
        found = read_thresholds(Path(given))
        if found.fingerprint not in (None, model.fingerprint):
            raise ValueError(
                f"{given} was measured on {found.model} (fingerprint {found.fingerprint}), and "
                f"scores of {model.name} ({model.fingerprint}) are others. Measure them: "
                "`crosswalk calibrate`."
            )
    elif (path / THRESHOLDS).exists() or not model.source:
        return None
    else:
        measured = thresholds_of(source_of(model.source))
        if measured is None:
            return None
        found = measured
    return found._replace(fingerprint=model.fingerprint)


def shown(value: float | int | str, kind: Kind) -> Any:  # noqa: ANN401 - by its kind
    """Return a value of a column as people use it: whole numbers as such, times as times."""
    if kind == "time":
        return as_time(int(value))
    if kind == "number" and float(value).is_integer() and math.fabs(float(value)) < 2**53:
        return int(value)
    return value


def _queries(model: Model) -> NDArray[np.float32] | None:
    if model.tokenizer is None:
        return None
    return np.asarray(model.embed_texts(SENTENCES).numpy())


def _groups(rows: Rows, order: NDArray[np.int64], least: float) -> list[list[int]]:
    """Return the places of hits, each with those that look the same behind it.

    A hit joins the first one whose cosine with it is at least ``least``.
    """
    assert rows.vectors is not None  # asked for
    groups: list[list[int]] = []
    vectors = rows.vectors["main"]
    firsts = np.empty((len(order), vectors.shape[1]), np.float32)
    for place in order.tolist():
        same = np.flatnonzero(firsts[: len(groups)] @ vectors[place] >= least)
        if len(same):
            groups[same[0]].append(place)
        else:
            firsts[len(groups)] = vectors[place]
            groups.append([place])
    return groups
