"""``thresholds.json``: what a model's scores say about whether a person is in a gallery at all.

Imports no torch: a search that has its scores asks here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from crosswalk import __version__
from crosswalk.files import read_text, write_text
from crosswalk.metrics.open_set import RATES, Measured, OpenSet, Rate
from crosswalk.run.results import DIRECTIONS
from crosswalk.words import kind_of

FORMAT = 1
"""Raised when older crosswalks cannot read it."""

LARGEST = 1_000_000
"""Bytes of such a file."""

FAR = 4
"""A gallery so many times larger or smaller than the measured one has other first scores."""

GROUPS = ("right", "wrong", "absent")


class Thresholds(NamedTuple):
    """What was measured of the first scores of a model.

    Attributes:
        model: What people call it.
        fingerprint: That of `crosswalk.use.model.Model`; None where it is not known.
        data: Name of the data that it was measured on.
        split: Their split.
        directions: By the names of `crosswalk.metrics.retrieval.DIRECTIONS`.
    """

    model: str
    fingerprint: str | None
    data: str
    split: str
    directions: Mapping[str, OpenSet]

    def probability(self, score: float, direction: str) -> float | None:
        """Return how probable it is that the person is in the gallery, in [0, 1], at even odds.

        Args:
            score: Of the first item.
            direction: What is looked for in what; None is returned of one that was not measured.

        Example:
            >>> zero = Measured(0.0, 0.0, 0.0)
            >>> one = OpenSet(9, 9, 9, {}, zero, 4.0, -2.0, quantiles={}, tells=False)
            >>> found = Thresholds("m", None, "d", "test", {"text_to_image": one})
            >>> found.probability(0.5, "text_to_image"), found.probability(0.5, "image_to_image")
            (0.5, None)
        """
        found = self.directions.get(direction)
        if found is None:
            return None
        # tanh does not overflow
        return (1 + math.tanh((found.slope * score + found.intercept) / 2)) / 2

    def note(self, score: float, direction: str, gallery_size: int) -> str:
        """Return what is to be said of the first item of a search; "" if there is nothing to say.

        Args:
            score: Of the first item.
            direction: What is looked for in what; nothing is said of one that was not measured.
            gallery_size: Items that were searched.
        """
        found = self.directions.get(direction)
        if found is None:
            return ""
        rate = found.rates.get(RATES[0])
        if rate is None:
            return (
                f"whether the person is in this gallery is not known: {found.absent} queries "
                f"({self.data}, {self.split}) were too few to measure it. `crosswalk calibrate` "
                "does so with larger data"
            )
        if not found.tells:
            return "the scores of this model cannot tell whether the person is in this gallery"
        said = []
        threshold = rate.threshold.value
        if score < threshold:
            probability = self.probability(score, direction)
            assert probability is not None
            how = "probably not" if probability < 0.5 else "perhaps not"
            said.append(
                f"{how} in this gallery (score {score:.3f}; {100 * RATES[0]:g} % of people who are "
                f"not there reach {threshold:.3f})"
            )
        if not found.gallery / FAR < gallery_size < found.gallery * FAR:
            larger = gallery_size > found.gallery
            said.append(
                f"the threshold was measured on a gallery of {found.gallery:,}, and among "
                f"{gallery_size:,} first scores are {'higher' if larger else 'lower'}"
            )
        return "; ".join(said)

    def to_json(self) -> str:
        """Return the text that `read_thresholds` reads."""
        content = {
            "format": FORMAT,
            "crosswalk": __version__,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "measured_on": {"data": self.data, "split": self.split},
            **{direction: _plain(found) for direction, found in self.directions.items()},
        }
        return json.dumps(content, indent=1) + "\n"

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_text(path, self.to_json())


def read_thresholds(path: str | Path) -> Thresholds:
    """Return what a ``thresholds.json`` holds.

    Args:
        path: The file, which may be somebody else's.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged, or of a later crosswalk.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "thresholds.json"
        >>> empty = Thresholds("m", None, "synthetic_pairs", "test", {})
        >>> empty.write(path)
        >>> read_thresholds(path) == empty
        True
    """
    path = Path(path)
    try:
        content = json.loads(read_text(path, limit=LARGEST))
        if not isinstance(content, dict):
            raise ValueError(f"it holds {kind_of(content)}, not entries by name")
        if content.get("format") == FORMAT:
            return _thresholds(content)
    except (ValueError, RecursionError) as error:
        why = str(error).rstrip(".")
        raise ValueError(
            f"{path} is damaged ({why}). Put back a copy, or write it again: crosswalk calibrate "
            f"<run> --out {path}"
        ) from error
    raise ValueError(
        f"{path} was written by crosswalk {content.get('crosswalk')!s:.40}, in a format "
        f"({content.get('format')!s:.40}) that this one does not know. Update crosswalk."
    )


def _plain(found: OpenSet) -> dict[str, Any]:
    return {
        "queries": found.queries,
        "absent": found.absent,
        "gallery": found.gallery,
        "tells": found.tells,
        "rates": {str(fpr): rate._asdict() for fpr, rate in found.rates.items()},
        "auc": found.auc,
        "logistic": {"slope": found.slope, "intercept": found.intercept},
        "quantiles": found.quantiles,
    }


def _thresholds(content: Mapping[str, Any]) -> Thresholds:
    fingerprint = content.get("fingerprint")
    if fingerprint is not None and not re.fullmatch(r"[0-9a-f]{16}", str(fingerprint)):
        raise ValueError(f"fingerprint is {fingerprint!r:.60}, not 16 hexadecimal digits")
    measured = _entries(content, "measured_on")
    directions = {}
    for name in DIRECTIONS:
        if name in content:
            try:
                directions[name] = _open_set(_entries(content, name))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    return Thresholds(
        _text(content, "model"),
        fingerprint,
        _text(measured, "data"),
        _text(measured, "split"),
        directions,
    )


def _open_set(node: Mapping[str, Any]) -> OpenSet:
    rates = _entries(node, "rates")
    logistic, quantiles = _entries(node, "logistic"), _entries(node, "quantiles")
    by_rate = {
        fpr: Rate(*(_measured(_entries(rates, str(fpr)), name) for name in Rate._fields))
        for fpr in RATES
        if str(fpr) in rates
    }
    tells = node.get("tells")
    if not isinstance(tells, bool) or (tells and RATES[0] not in by_rate):
        raise ValueError(f"tells is {tells!r:.60}, and the rates are {list(by_rate)}")
    return OpenSet(
        queries=_count(node, "queries"),
        absent=_count(node, "absent"),
        gallery=_count(node, "gallery"),
        rates=by_rate,
        auc=_measured(node, "auc"),
        slope=_number(logistic.get("slope"), "slope"),
        intercept=_number(logistic.get("intercept"), "intercept"),
        quantiles={
            name: None if quantiles.get(name) is None else _numbers(quantiles, name, 3)
            for name in GROUPS
        },
        tells=tells,
    )


def _entries(node: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = node.get(name)
    if not isinstance(found, dict):
        raise ValueError(f"{name} is {found!r:.60}, not entries by name")
    return found


def _text(node: Mapping[str, Any], name: str) -> str:
    found = node.get(name)
    if not isinstance(found, str) or len(found) > 300 or not found.isprintable():
        raise ValueError(f"{name} is {found!r:.60}, no name")
    return found


def _count(node: Mapping[str, Any], name: str) -> int:
    found = node.get(name)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < 1e15:
        raise ValueError(f"{name} is {found!r:.60}, no number of queries or pictures")
    return found


def _measured(node: Mapping[str, Any], name: str) -> Measured:
    return Measured(*_numbers(node, name, len(Measured._fields)))


def _numbers(node: Mapping[str, Any], name: str, many: int) -> tuple[float, ...]:
    found = node.get(name)
    if not isinstance(found, list) or len(found) != many:
        raise ValueError(f"{name} is {found!r:.60}, not {many} numbers")
    return tuple(_number(each, name) for each in found)


def _number(value: Any, name: str) -> float:  # noqa: ANN401
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not abs(value) < 1e9:  # nor NaN
        raise ValueError(f"{name} is {value!r:.60}, no number")
    return float(value)
