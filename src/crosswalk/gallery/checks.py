"""Checks of what a store is given, the same for every store."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosswalk.config.words import did_you_mean
from crosswalk.gallery.store import KINDS, Condition, Kind
from crosswalk.words import counted

LARGEST_DIM = 65_536
"""Qdrant's largest; of any encoder, some thousands."""
LONGEST_TEXT = 10_000
"""Letters of a value."""
MOST_COLUMNS = 200
LARGEST_K = 1_000_000
LARGEST_NUMBER = sys.float_info.max
NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
"""Of a view: it becomes part of a file's name."""
TOLERANCE = 0.01
"""By how much a unit vector's length may differ from 1, such as one that was kept in float16."""


class Wanted(NamedTuple):
    """A checked `Condition`: the values of which one is equal, or the range."""

    column: str
    kind: Kind
    values: list[Any] | None
    low: float | int | None
    high: float | int | None


def check_shape(dim: int, views: Sequence[str], columns: Mapping[str, Kind]) -> None:
    """Refuse sizes and names that no store can have.

    Example:
        >>> check_shape(2, ["main"], {"age": "years"})
        Traceback (most recent call last):
            ...
        ValueError: the column 'age' is of the kind 'years'; choose one of number, text, time.
    """
    if not 0 < dim <= LARGEST_DIM:
        raise ValueError(f"the vectors' length {dim} is not in 1 to {LARGEST_DIM}.")
    bad = [view for view in views if not NAME.fullmatch(view)]
    if bad or not views or len(set(views)) < len(views):
        raise ValueError(
            f"views={list(views)!r}: give different names of small letters, digits and _."
        )
    if len(columns) > MOST_COLUMNS:
        raise ValueError(f"{len(columns)} columns are more than {MOST_COLUMNS}. Leave some out.")
    for column, kind in columns.items():
        if not column or len(column) > 200:
            raise ValueError(f"the column {column[:50]!r} needs a name of 1 to 200 letters.")
        if kind not in KINDS:
            raise ValueError(
                f"the column {column!r} is of the kind {kind!r}; choose one of {', '.join(KINDS)}."
            )


def checked_ids(ids: ArrayLike) -> NDArray[np.uint64]:
    """Return ``[rows]`` ids, each in [0, 2**64).

    Example:
        >>> checked_ids([2**64 - 1, 3])
        array([18446744073709551615, 3], dtype=uint64)
        >>> checked_ids([-1])
        Traceback (most recent call last):
            ...
        ValueError: the id -1 is no whole number in [0, 2**64).
    """
    array = ids if isinstance(ids, np.ndarray) else np.array(ids, dtype=object)
    if array.ndim != 1:
        raise ValueError(f"ids have the shape {list(array.shape)}; give a list of them.")
    if array.dtype.kind == "u":
        return array.astype(np.uint64)
    for each in array:
        whole = isinstance(each, (int, np.integer)) and not isinstance(each, bool)
        if not whole or not 0 <= int(each) < 2**64:
            raise ValueError(f"the id {each!r} is no whole number in [0, 2**64).")
    return array.astype(np.uint64)


def different_ids(ids: ArrayLike) -> NDArray[np.uint64]:
    """Return ``[rows]`` ids, of which none may be there twice."""
    array = checked_ids(ids)
    once, times = np.unique(array, return_counts=True)
    if len(once) < len(array):
        raise ValueError(
            f"the id {int(once[times > 1][0])} is given {times.max()} times. Give each id once."
        )
    return array


def checked_vectors(vectors: ArrayLike, dim: int, name: str) -> NDArray[np.float32]:
    """Return ``[rows, dim]`` unit vectors in float32, in C order.

    Args:
        vectors: What was given.
        dim: Their length.
        name: What they are, for messages.

    Example:
        >>> checked_vectors([[3.0, 4.0]], 2, "queries")
        Traceback (most recent call last):
            ...
        ValueError: row 0 of the queries has the length 5, and is no unit vector. Divide each row \
        by its length.
    """
    array = np.ascontiguousarray(vectors, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != dim:
        raise ValueError(
            f"the {name} have the shape {list(array.shape)}; this gallery holds vectors of length "
            f"{dim}: give [rows, {dim}], embedded by the model that it was made with."
        )
    lengths = np.sqrt(np.vecdot(array, array))
    wrong = ~(np.abs(lengths - 1) <= TOLERANCE)  # NaN is wrong, too
    if wrong.any():
        row = int(wrong.argmax())
        what = f"has the length {lengths[row]:g}, and is no unit vector. Divide each row by its"
        what = f"{what} length." if np.isfinite(lengths[row]) else "holds NaN or infinite numbers."
        raise ValueError(f"row {row} of the {name} {what}")
    return array


def checked_views(
    vectors: Mapping[str, ArrayLike], views: Sequence[str], dim: int, count: int
) -> dict[str, NDArray[np.float32]]:
    """Return per view ``[count, dim]`` unit vectors."""
    if set(vectors) != set(views):
        raise ValueError(f"vectors are given for {sorted(vectors)}; give them for {list(views)}.")
    checked = {view: checked_vectors(vectors[view], dim, f"vectors of {view}") for view in views}
    for view, array in checked.items():
        if len(array) != count:
            raise ValueError(f"there are {count} ids and {len(array)} vectors of {view}.")
    return checked


def checked_meta(
    meta: Mapping[str, Sequence[Any] | NDArray[Any]], columns: Mapping[str, Kind], count: int
) -> dict[str, list[Any]]:
    """Return per column ``[count]`` plain values: float, str or int; None where missing."""
    for name in meta:
        check_column(name, columns)
    checked = {}
    for name, kind in columns.items():
        given = meta.get(name)
        if given is None:
            checked[name] = [None] * count
            continue
        if len(given) != count:
            raise ValueError(f"there are {count} ids and {len(given)} values of {name!r}.")
        values = given.tolist() if isinstance(given, np.ndarray) else given
        plain = _PLAIN[kind]
        checked[name] = [None if _is_missing(each) else plain(each, name) for each in values]
    return checked


def check_column(name: str, columns: Mapping[str, Kind]) -> None:
    """Refuse a column that the store has not."""
    if name not in columns:
        has = ", ".join(columns) or "none"
        raise ValueError(
            f"this gallery has no column {name!r}.{did_you_mean(name, columns)} Its columns: {has}."
        )


def new_columns(given: Mapping[str, Kind], kept: Mapping[str, Kind], where: str) -> dict[str, Kind]:
    """Return the columns that a store has not yet; the others must be of the kind that it keeps.

    Args:
        given: Names and kinds.
        kept: Those of the store.
        where: The store and what to do otherwise, for the message.
    """
    for name, kind in given.items():
        if kept.get(name, kind) != kind:
            raise ValueError(f"the column {name} is of {kept[name]}s, not of {kind}s, in {where}")
    return {name: kind for name, kind in given.items() if name not in kept}


def checked_names(names: Iterable[str] | None, columns: Mapping[str, Kind]) -> list[str]:
    """Return the columns to give back; None: all."""
    wanted = list(columns if names is None else names)
    for name in wanted:
        check_column(name, columns)
    return wanted


def checked_start(after_id: int | None, limit: int | None) -> int:
    """Return the first id that a scan may give back, which may be 2**64."""
    if limit is not None and limit < 0:
        raise ValueError(f"limit={limit}: give how many rows to return, or None for all.")
    return 0 if after_id is None else int(checked_ids([after_id])[0]) + 1


def check_view(view: str, views: Sequence[str]) -> None:
    """Refuse a view that the store has not."""
    if view not in views:
        raise ValueError(f"there is no view {view!r}; this gallery has {', '.join(views)}.")


def checked_conditions(where: Sequence[Condition], columns: Mapping[str, Kind]) -> list[Wanted]:
    """Return conditions whose columns are there, and whose values are of their kind.

    Example:
        >>> checked_conditions([Condition("camera", "eq", "two")], {"camera": "number"})
        Traceback (most recent call last):
            ...
        ValueError: the column 'camera' holds numbers, and 'two' is none.
    """
    wanted = []
    for column, op, value in where:
        check_column(column, columns)
        kind = columns[column]
        plain = _PLAIN[kind]
        if op == "eq":
            wanted.append(Wanted(column, kind, [plain(value, column)], None, None))
        elif op == "in":
            if isinstance(value, str) or not hasattr(value, "__iter__"):
                raise ValueError(f"{column!r} is to be in {value!r}; give a list of values.")
            wanted.append(Wanted(column, kind, [plain(each, column) for each in value], None, None))
        elif op == "range":
            if kind == "text":
                raise ValueError(f"the column {column!r} holds texts, which have no ranges.")
            try:
                first, last = value
            except (TypeError, ValueError):
                raise ValueError(
                    f"{value!r} is no range of {column!r}: give (low, high)."
                ) from None
            low, high = (None if each is None else plain(each, column) for each in (first, last))
            wanted.append(Wanted(column, kind, None, low, high))
        else:
            raise ValueError(f"there is no condition {op!r}: choose eq, in or range.")
    return wanted


def check_k(k: int) -> None:
    """Refuse a number of results that is none."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 0 < k <= LARGEST_K:
        raise ValueError(f"k={k!r}: give the number of results, 1 to {LARGEST_K:,}.")


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, (float, np.floating)) and math.isnan(value))


def _number(value: Any, column: str) -> float:  # noqa: ANN401
    number = isinstance(value, (int, float, np.integer, np.floating))
    if not number or isinstance(value, bool) or not abs(value) <= LARGEST_NUMBER:
        raise ValueError(f"the column {column!r} holds numbers, and {value!r} is none.")
    return float(value)


def _text(value: Any, column: str) -> str:  # noqa: ANN401
    if not isinstance(value, str):
        raise ValueError(f"the column {column!r} holds texts, and {value!r} is none.")
    if len(value) > LONGEST_TEXT:
        raise ValueError(
            f"the column {column!r}: a text of {counted(len(value), 'letter')} is too long; the "
            f"longest has {LONGEST_TEXT:,}."
        )
    return str(value)


def _time(value: Any, column: str) -> int:  # noqa: ANN401
    whole = isinstance(value, (int, float, np.integer, np.floating)) and value == value // 1
    if not whole or isinstance(value, bool) or not -(2**62) < value < 2**62:
        raise ValueError(
            f"the column {column!r} holds times, whole microseconds since 1970 in UTC, and "
            f"{value!r} is none."
        )
    return int(value)


_PLAIN: dict[Kind, Callable[[Any, str], Any]] = {"number": _number, "text": _text, "time": _time}
