"""Columns of an embedded store as arrays, for conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosswalk.gallery.checks import Wanted
from crosswalk.gallery.store import Kind

MISSING_TIME = np.iinfo(np.int64).min


class Column:
    """The values of a column up to some row; later ones are appended.

    Texts are numbers here, counted as they come.
    """

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.values: NDArray[Any] = np.empty(0, np.float64 if kind == "number" else np.int64)
        self.numbers: dict[str, int] = {}

    def append(self, values: Sequence[Any]) -> None:
        """Take in the values of the next rows; None where missing."""
        if self.kind == "number":
            later: NDArray[Any] = np.array(
                [np.nan if value is None else value for value in values], np.float64
            )
        elif self.kind == "time":
            later = np.array(
                [MISSING_TIME if value is None else value for value in values], np.int64
            )
        else:
            number = self.numbers
            later = np.array(
                [
                    -1 if value is None else number.setdefault(value, len(number))
                    for value in values
                ],
                np.int64,
            )
        self.values = np.concatenate([self.values, later])

    def different(self, rows: NDArray[np.bool_], limit: int) -> list[Any]:
        """Return the first different values in order of rows that count.

        Example:
            >>> column = Column("text")
            >>> column.append(["b", None, "a", "b", "c"])
            >>> column.different(np.array([True, True, True, True, False]), 5)
            ['a', 'b']
        """
        values = self.values[: len(rows)][rows]
        if self.kind == "text":
            names = list(self.numbers)
            return sorted(names[place] for place in np.unique(values[values >= 0]))[:limit]
        missing = np.isnan(values) if self.kind == "number" else values == MISSING_TIME
        found: list[Any] = np.unique(values[~missing])[:limit].tolist()
        return found

    def matches(self, wanted: Wanted, end: int) -> NDArray[np.bool_]:
        """Return ``[end]`` which rows meet a condition.

        Example:
            >>> column = Column("number")
            >>> column.append([1.0, None, 2.0])
            >>> column.matches(Wanted("camera", "number", None, 1.5, None), 3)
            array([False, False,  True])
        """
        values = self.values[:end]
        if wanted.values is not None:
            known = wanted.values
            if self.kind == "text":
                known = [self.numbers[value] for value in known if value in self.numbers]
            if not known:
                return np.zeros(end, bool)
            if len(known) == 1:
                return np.asarray(values == known[0])
            return np.isin(values, np.array(known, values.dtype))
        met = ~np.isnan(values) if self.kind == "number" else values != MISSING_TIME
        if wanted.low is not None:
            met &= values >= wanted.low
        if wanted.high is not None:
            met &= values < wanted.high
        return np.asarray(met)
