"""What a manifest's keys may hold; messages name the file, the row and the key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crosswalk.config.constructors import did_you_mean
from crosswalk.run.results import DIRECTIONS, EXTRA_MEASURES, MEASURES

CHECKPOINTS = ("start", "best", "last")

MANIFEST_KEYS = {
    **dict.fromkeys(("title", "source", "base", "metrics", "seeds", "rows"), True),
    **dict.fromkeys(
        ("checkpoint", "synthetic", "synthetic_checkpoint", "order", "references", "not_offered"),
        False,
    ),
}
SOURCE_KEYS = {"paper": True, "table": True, "verified": True, "note": False}
ROW_KEYS = {
    **{"name": True, "published": True},
    **dict.fromkeys(("overrides", "run", "view", "checkpoint", "synthetic", "note"), False),
}
REFERENCE_KEYS = {"name": True, "published": True, "source": True}
NOT_OFFERED_KEYS = {"name": True, "reason": True, "published": True}
"""Keys by whether they are needed."""


def check_keys(entry: Any, keys: Mapping[str, bool], place: str) -> None:  # noqa: ANN401
    """Refuse anything but a mapping with the needed keys and no unknown one.

    Raises:
        ValueError: What is wrong, after ``place``.

    Example:
        >>> check_keys({"name": "A", "publish": None}, {"name": True, "published": True}, "here")
        Traceback (most recent call last):
            ...
        ValueError: here: unknown key publish. Did you mean published? There are: name, published.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"{place}: {entry!r} is no mapping with the keys {', '.join(keys)}.")
    for key in entry:
        if key not in keys:
            near = did_you_mean(str(key), keys)
            raise ValueError(f"{place}: unknown key {key}.{near} There are: {', '.join(keys)}.")
    missing = [key for key, needed in keys.items() if needed and key not in entry]
    if missing:
        raise ValueError(f"{place}: needs {' and '.join(missing)}.")


def checked_text(value: Any, place: str) -> str:  # noqa: ANN401
    """Return a text that is there.

    Example:
        >>> checked_text(0.1, "here: the name")
        Traceback (most recent call last):
            ...
        ValueError: here: the name is 0.1; write a text, in quotes where it looks like a number.
    """
    if not isinstance(value, str) or not value:
        raise ValueError(
            f"{place} is {value!r}; write a text, in quotes where it looks like a number."
        )
    return value


def checked_checkpoint(value: Any, place: str) -> str:  # noqa: ANN401
    """Return which weights a row is about.

    Example:
        >>> checked_checkpoint("last", "here")
        'last'
    """
    if value not in CHECKPOINTS:
        raise ValueError(
            f"{place}: checkpoint={value}; write start (the weights before training), best or last"
        )
    return str(value)


def checked_list(value: Any, place: str) -> list[Any]:  # noqa: ANN401
    """Return a list that is one.

    Example:
        >>> checked_list({"name": "A"}, "here: rows")
        Traceback (most recent call last):
            ...
        ValueError: here: rows is {'name': 'A'}; write a list.
    """
    if not isinstance(value, list):
        raise ValueError(f"{place} is {value!r}; write a list.")
    return value


def checked_numbers(
    value: Any,  # noqa: ANN401
    metrics: tuple[str, ...],
    place: str,
) -> tuple[float | None, ...] | None:
    """Return published numbers, one or None per metric; None if nothing was published.

    Example:
        >>> checked_numbers([71, None], ("rank1", "map"), "here")
        (71.0, None)
    """
    if value is None:
        return None
    numbers = checked_list(value, f"{place}: published")
    if len(numbers) != len(metrics):
        raise ValueError(
            f"{place}: {len(numbers)} published numbers for {len(metrics)} metrics; write null for "
            "a number that is not known"
        )
    for number in numbers:
        is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
        if number is not None and not (is_number and 0 <= number <= 100):
            raise ValueError(f"{place}: published {number!r} is not a percentage from 0 to 100.")
    return tuple(None if number is None else float(number) for number in numbers)


def checked_overrides(value: Any, place: str) -> tuple[str, ...]:  # noqa: ANN401
    """Return overrides.

    Example:
        >>> checked_overrides(["method=rde"], "here")
        ('method=rde',)
    """
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{place}: {value!r} is no list of key=value; [] changes nothing.")
    return tuple(value)


def checked_metrics(value: Any, place: str) -> tuple[str, ...]:  # noqa: ANN401
    """Return the names of the columns.

    Example:
        >>> checked_metrics(["rank1", "image_to_text/map"], "here")
        ('rank1', 'image_to_text/map')
    """
    measures = [*MEASURES, *EXTRA_MEASURES]
    for metric in checked_list(value, f"{place}: metrics"):
        *groups, measure = str(metric).split("/")
        if measure not in measures or not set(groups) <= {*DIRECTIONS, "reranked"}:
            near = did_you_mean(measure, measures)
            raise ValueError(
                f"{place}: unknown metric {metric}.{near} There are: {', '.join(measures)}; in "
                "another direction or re-ranked, image_to_text/<metric> and reranked/<metric>."
            )
    if len(set(value)) != len(value) or not value:
        raise ValueError(f"{place}: metrics={value!r}; write different ones, at least one.")
    return tuple(value)


def checked_seeds(value: Any, place: str) -> tuple[int, ...]:  # noqa: ANN401
    """Return the seeds.

    Example:
        >>> checked_seeds([1, 2, 3], "here")
        (1, 2, 3)
    """
    seeds = checked_list(value, f"{place}: seeds")
    if not seeds or not all(type(seed) is int for seed in seeds) or len(set(seeds)) != len(seeds):
        raise ValueError(f"{place}: seeds={value!r}; write a list of different whole numbers.")
    return tuple(seeds)
