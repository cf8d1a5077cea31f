"""Run folders with per-query results written down by hand, small enough to calculate with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crosswalk.data.readers.records import Record, Splits
from crosswalk.metrics.queries import QueryResults
from crosswalk.run.run_folder import RunFolder

CAPTIONS = (
    ("a red coat", "a tall man in a red coat"),
    ("red",),
    ("a blue bag", "somebody with a bag"),
)
"""By image; the first two images show person 7, the last one person 8."""
PERSONS, CAMERAS = (7, 7, 8), (1, 2, 1)

FIRST = {"first_hit": [1, 2, 3, 1, 2], "average_precision": [1.0, 0.5, 0.25, 1.0, 0.5]}
SECOND = {"first_hit": [1, 1, 1, 2, 2], "average_precision": [0.75, 1.0, 1.0, 0.5, 0.5]}
"""Two results of the five captions."""


class HandMadeData:
    """A data module of the three images, as far as a comparison looks at it."""

    directions = ("text_to_image", "image_to_text")

    def __init__(self, folder: Path, captions: Sequence[Sequence[str]] = CAPTIONS) -> None:
        facts = zip("abc", PERSONS, CAMERAS, captions, strict=True)
        records = tuple(
            Record(folder / f"{name}.png", person, camera, tuple(texts))
            for name, person, camera, texts in facts
        )
        for record in records:
            Image.new("RGB", (9, 17), "gray").save(record.image_path)
        self.splits = Splits("own", folder, "pairs.csv", (), (), records)

    def evaluation_images(self, split: str) -> list[Path]:
        return [record.image_path for record in self.splits.split(split)]

    def evaluation_captions(self, split: str) -> list[str]:
        return [text for record in self.splits.split(split) for text in record.captions]


def caption_queries(
    first_hit: Sequence[int],
    average_precision: Sequence[float],
    *,
    person_id: Sequence[int] = (7, 7, 7, 8, 8),
    num_matches: Sequence[int] = (2, 2, 2, 1, 1),
) -> QueryResults:
    """Return results of the five captions; every list is image 0, 1, 2."""
    number = len(first_hit)
    return QueryResults(
        np.arange(number),
        np.array(person_id),
        np.array(num_matches),
        np.array(first_hit),
        np.array(average_precision),
        np.array(average_precision) / 2,
        np.tile(np.arange(3), (number, 1)),
        np.tile(np.array(PERSONS), (number, 1)),
        np.tile(np.array([0.75, 0.5, 0.25]), (number, 1)),
    )


def image_queries() -> QueryResults:
    """Return results of the three images as queries: the same in every run."""
    return QueryResults(
        np.arange(3),
        np.array(PERSONS),
        np.array([3, 3, 2]),
        np.array([1, 2, 1]),
        np.array([1.0, 0.5, 0.75]),
        np.array([1.0, 0.5, 0.75]),
        np.tile(np.arange(3), (3, 1)),
        np.tile(np.array([7, 7, 7]), (3, 1)),
        np.tile(np.array([0.75, 0.5, 0.25]), (3, 1)),
    )


def write_run(
    folder: Path,
    queries: Mapping[str, QueryResults] | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    fingerprint: str = "0123",
    seed: int = 1,
    status: str = "finished",
) -> Path:
    """Write a run folder with results of test and checkpoint "best"; return it."""
    run = RunFolder(folder)
    folder.mkdir(parents=True)
    choices = {"choices": {"method": "rde", "data": "own"}, "protocol": "val"}
    run.save_config({**choices, "seed": seed, **(config or {})})
    record = {
        "status": status,
        "seeds": {"seed": seed},
        "commit": "c0ffee",
        "code": "abcdef",
        "data": {"dataset": "own", "fingerprint": fingerprint},
    }
    run.record_file.write_text(json.dumps(record))
    run.results_file.write_text(json.dumps({"best": {"epoch": 5}}))
    results = queries or {
        "text_to_image": caption_queries(**FIRST),
        "image_to_text": image_queries(),
    }
    run.save_queries("test", "best", results)
    return folder
