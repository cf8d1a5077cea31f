"""A store as plain loops over lists, with which real ones are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosswalk.gallery.store import Condition, Kind

DIM = 8
COLUMNS: dict[str, Kind] = {"camera": "number", "place": "text", "time": "time"}

Row = tuple[int, NDArray[np.float32], dict[str, Any]]


def unit_vectors(number: int, seed: int, dim: int = DIM) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).normal(size=(number, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def drawn_meta(number: int, seed: int) -> dict[str, list[Any]]:
    random = np.random.default_rng(seed)
    return {
        "camera": [None if one == 4 else float(one) for one in random.integers(5, size=number)],
        "place": [None if one == 3 else f"gate {one}" for one in random.integers(4, size=number)],
        "time": [
            None if one < 5 else int(one) * 10**15 for one in random.integers(50, size=number)
        ],
    }


def meets(value: object, condition: Condition) -> bool:
    """Return whether a value meets a condition, as the contract says."""
    if value is None:
        return False
    if condition.op == "range":
        low, high = condition.value
        return (low is None or value >= low) and (high is None or value < high)
    return bool(value in (condition.value if condition.op == "in" else [condition.value]))


class Plain:
    """Rows in the order of adding."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(
        self, ids: Sequence[int], vectors: NDArray[np.float32], meta: Mapping[str, Sequence[Any]]
    ) -> None:
        self.delete(ids)
        for place, number in enumerate(ids):
            values = {name: values[place] for name, values in meta.items()}
            self.rows.append((number, vectors[place], values))

    def delete(self, ids: Sequence[int]) -> int:
        before = len(self.rows)
        self.rows = [row for row in self.rows if row[0] not in ids]
        return before - len(self.rows)

    def search(
        self, query: NDArray[np.float32], k: int, where: Sequence[Condition] = ()
    ) -> list[tuple[int, float]]:
        """Return ids and scores for one query."""
        found = [
            (number, float(np.float32(np.dot(query.astype(float), vector.astype(float)))))
            for number, vector, values in self.rows
            if all(meets(values[each.column], each) for each in where)
        ]
        return sorted(found, key=lambda pair: -pair[1])[:k]  # stable: first added, first found
