"""Groups of queries to look at one by one: by matches in the gallery, words, and camera."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosswalk.data.readers.records import Record, records_fingerprint
from crosswalk.metrics.queries import QueryResults

MOST_VALUES = 5
"""So many different values each make a group; more are put together in quarters."""

Groups = Mapping[str, NDArray[np.bool_]]
"""``[queries]`` members by the group's name."""


def query_groups(
    results: QueryResults,
    direction: str,
    *,
    data: Any | None,  # noqa: ANN401
    split: str,
) -> dict[str, Groups]:
    """Return the groups of queries by what they are divided by.

    Args:
        results: The queries of one direction.
        direction: Which one.
        data: The data of a run; None where they could not be read, so that only the number of
            matches is known.
        split: The split of the queries.

    Example:
        >>> ids, nothing = np.arange(3), np.zeros(3, np.int64)
        >>> results = QueryResults(ids, ids, np.array([1, 2, 1]), *[nothing] * 6)
        >>> groups = query_groups(results, "image_to_image", data=None, split="test")
        >>> {title: list(members) for title, members in groups.items()}
        {'number of matches in the gallery': ['1 match', '2 matches']}
    """
    found: dict[str, Groups] = {
        "number of matches in the gallery": number_groups(results.num_matches, "match")
    }
    if data is None:
        return found
    records = query_records(data, split, direction)
    if direction == "text_to_image":
        captions = [caption for record in records for caption in record.captions]
        num_words = np.array([len(caption.split()) for caption in captions])
        found["length of the caption"] = number_groups(num_words[results.sample_index], "word")
        records = [record for record in records for _ in record.captions]
    camera_id = np.array([record.camera_id for record in records])
    title = "camera of the described image" if direction == "text_to_image" else "camera"
    if groups := camera_groups(camera_id[results.sample_index]):
        found[title] = groups
    return found


def number_groups(values: NDArray[np.int64], unit: str) -> dict[str, NDArray[np.bool_]]:
    """Return groups of queries by a count: each value, or quarters where there are many values.

    A quarter ends at a quartile, and its name says what is in it; equal counts stay together, so
    quarters have different sizes where many queries have one count.

    Args:
        values: ``[queries]`` counts.
        unit: What is counted, in the singular.

    Example:
        >>> groups = number_groups(np.array([2, 1, 2]), "match")
        >>> {name: members.tolist() for name, members in groups.items()}
        {'1 match': [False, True, False], '2 matches': [True, False, True]}
        >>> list(number_groups(np.array([3, 4, 5, 6, 7, 9, 11, 12]), "word"))
        ['3 to 4 words', '5 to 6 words', '7 to 9 words', '11 to 12 words']
    """
    distinct = np.unique(values)
    if len(distinct) <= MOST_VALUES:
        return {_counted(value, value, unit): values == value for value in distinct.tolist()}
    edges = np.unique(np.quantile(values, [0.25, 0.5, 0.75, 1], method="inverted_cdf"))
    groups = {}
    left = np.ones(len(values), dtype=bool)
    for edge in edges.tolist():
        members = left & (values <= edge)
        groups[_counted(int(values[members].min()), int(edge), unit)] = members
        left &= ~members
    return groups


def _counted(low: int, high: int, unit: str) -> str:
    many = f"{unit}es" if unit.endswith("ch") else f"{unit}s"
    if low == high:
        return f"{low} {unit if low == 1 else many}"
    return f"{low} to {high} {many}"


def camera_groups(camera_id: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Return groups of queries by camera; none where no camera is known.

    Example:
        >>> groups = camera_groups(np.array([2, -1, 2]))
        >>> {name: members.tolist() for name, members in groups.items()}
        {'camera unknown': [False, True, False], 'camera 2': [True, False, True]}
        >>> camera_groups(np.array([-1, -1]))
        {}
    """
    if (camera_id < 0).all():
        return {}
    return {
        "camera unknown" if camera < 0 else f"camera {camera}": camera_id == camera
        for camera in np.unique(camera_id).tolist()
    }


def query_records(data: Any, split: str, direction: str) -> list[Record]:  # noqa: ANN401
    """Return the images that are queries, or whose captions are, by sample index.

    Args:
        data: The data of a run; what has a source is evaluated on its target.
        split: "test" or "val".
        direction: Retrieval direction.
    """
    data = getattr(data, "target", data)
    if direction == "image_to_image":
        name = "query" if split == "test" else f"{split}_query"
        images: list[Path] = data.evaluation_queries(split)
    else:
        name, images = split, data.evaluation_images(split)
    kept = set(images)  # where data.allow_missing left broken images out
    return [record for record in data.splits.split(name) if record.image_path in kept]


def split_fingerprint(data: Any, split: str) -> str:  # noqa: ANN401
    """Return a hash of the names, persons, cameras and captions of one split alone.

    The fingerprint of a whole data set differs too where its training part was divided otherwise.

    Args:
        data: The data of a run; what has a source is evaluated on its target.
        split: "test" or "val".
    """
    splits = getattr(data, "target", data).splits
    if hasattr(splits, "query"):
        prefix = "" if split == "test" else f"{split}_"
        names = [f"{prefix}query", f"{prefix}gallery"]
    else:
        names = [split]
    records = [(name, record) for name in names for record in splits.split(name)]
    return records_fingerprint(
        records,
        splits.root,
        lambda record: (record.person_id, record.camera_id, *record.captions),
    )
