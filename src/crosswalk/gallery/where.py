"""The language of ``--where``: what pictures have to be of, as conditions on columns."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from crosswalk.gallery.store import Condition, Kind

LONGEST = 2_000
"""Letters of a filter; whoever names more values calls `Gallery.search` several times."""

EXAMPLE = "camera in (2, 5) and time >= '2026-11-01'"
"""What a filter looks like, for messages."""

ALIASES = {
    "image": "path",
    "camera_id": "camera",
    "timestamp": "time",
    "datetime": "time",
    "id": "own_id",
}
"""Names of columns that tables have for what is called otherwise here."""

EPOCH = datetime(1970, 1, 1)
A_DAY = 86_400 * 10**6  # microseconds

_SQL = re.compile(r"('[^']*'|\"[^\"]*\")|(?<![<>=!])=(?!=)|\b(AND|IN)\b")
_SINCE_1970 = re.compile(r"(\d{10}|\d{13})(?:\.\d+)?", re.ASCII)
_FLIPPED = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}


def parse_where(text: str, columns: Mapping[str, Kind]) -> list[Condition]:
    """Return the conditions that a filter says; all of them have to hold.

    Comparisons are joined by ``and``: ``column == value`` (or ``=``), ``column in (value, …)``, and
    of numbers and times ``<``, ``<=``, ``>``, ``>=``. Times are texts such as ``'2026-11-01'`` or
    ``'2026-11-01 18:30'``; a day alone is the whole day. Nothing of the text is run or becomes part
    of a query: values are compared.

    Args:
        text: The filter; nothing asks for nothing.
        columns: What may be asked for, and of which kind it is.

    Raises:
        ValueError: If it says something else; the message says what, and shows a filter.

    Example:
        >>> parse_where("camera in (2, 5)", {"camera": "number"})
        [Condition(column='camera', op='in', value=(2.0, 5.0))]
        >>> parse_where("camera >= 2 or 1", {"camera": "number"})
        Traceback (most recent call last):
            ...
        ValueError: the filter "camera >= 2 or 1" joins by or: join comparisons by `and` alone, \
        such as camera in (2, 5) and time >= '2026-11-01'.
    """
    if not text.strip():
        return []
    if len(text) > LONGEST:
        raise ValueError(f"the filter has {len(text):,} letters; at most {LONGEST:,} are read.")
    try:
        tree = ast.parse(_SQL.sub(_as_python, text.strip()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(
            f"the filter {text!r} is no comparison of columns with values, such as {EXAMPLE}."
        ) from None
    try:
        return [each for part in _joined(tree) for each in _compared(part, columns)]
    except ValueError as error:
        raise ValueError(f'the filter "{text}" {error}') from None
    except RecursionError:
        raise ValueError(f"the filter is nested too deeply. Write such as {EXAMPLE}.") from None


def microseconds(text: str) -> int:
    """Return a time as microseconds since 1970; one with a zone is turned into UTC.

    A time without a zone is taken as it is written, and shown so. Seconds since 1970, of ten
    digits, and milliseconds, of thirteen, are times as well.

    Raises:
        ValueError: If it is no time of ISO 8601.

    Example:
        >>> microseconds("1970-01-01 00:00:01"), microseconds("1970-01-01T01:00:00+01:00")
        (1000000, 0)
    """
    if seconds := _SINCE_1970.fullmatch(text):
        return round(float(text) * (1_000 if len(seconds[1]) == 13 else 1_000_000))
    found = datetime.fromisoformat(text)
    if found.tzinfo is not None:
        found = found.astimezone(UTC).replace(tzinfo=None)
    return (found - EPOCH) // timedelta(microseconds=1)


def as_time(value: int) -> datetime:
    """Return what `microseconds` was given.

    Example:
        >>> as_time(1000000)
        datetime.datetime(1970, 1, 1, 0, 0, 1)
    """
    return EPOCH + timedelta(microseconds=int(value))


def _as_python(found: re.Match[str]) -> str:
    if found[1]:
        return found[1]
    return found[2].lower() if found[2] else "=="


def _joined(tree: ast.expr) -> list[ast.Compare]:
    if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And):
        return [each for part in tree.values for each in _joined(part)]
    if isinstance(tree, ast.BoolOp):
        raise ValueError(f"joins by or: join comparisons by `and` alone, such as {EXAMPLE}.")
    if not isinstance(tree, ast.Compare):
        said = ast.unparse(tree)
        raise ValueError(f"holds {said!r}, which is no comparison. Write such as {EXAMPLE}.")
    return [tree]


def _compared(tree: ast.Compare, columns: Mapping[str, Kind]) -> list[Condition]:
    """Return the conditions of one comparison, which may be a chain such as ``1 < camera < 5``."""
    conditions = []
    left = tree.left
    for op, right in zip(tree.ops, tree.comparators, strict=True):
        kind, name, value = type(op), left, right
        if not isinstance(left, ast.Name) and isinstance(right, ast.Name):
            name, value, kind = right, left, _FLIPPED.get(kind, kind)
        if not isinstance(name, ast.Name):
            raise ValueError(
                f"compares {ast.unparse(left)[:80]!r}, which is no column. {_listed(columns)}"
            )
        column = name.id if name.id in columns else ALIASES.get(name.id, name.id)
        if column not in columns:
            raise ValueError(
                f"asks for {name.id}, which the gallery does not know. {_listed(columns)}"
            )
        conditions.append(_condition(column, kind, value, columns[column]))
        left = right
    return conditions


def _listed(columns: Mapping[str, Kind]) -> str:
    return f"It has {', '.join(f'{name} ({kind})' for name, kind in columns.items())}."


def _condition(column: str, op: type[ast.cmpop], node: ast.expr, kind: Kind) -> Condition:
    if op not in (ast.In, ast.Eq, *_FLIPPED):
        raise ValueError(
            f"uses a sign that is not known. There are ==, in, <, <=, > and >=, such as {EXAMPLE}."
        )
    if op is ast.In:
        if not isinstance(node, (ast.Tuple, ast.List)):
            node = ast.Tuple(elts=[node], ctx=ast.Load())  # (2) is a number with brackets
        values = [_value(column, each, kind) for each in node.elts]
        if any(low != high for low, high in values):
            raise ValueError(f"lists days of {column}. Write {column} >= … and {column} < …")
        return Condition(column, "in", tuple(low for low, _ in values))
    low, high = _value(column, node, kind)
    if op is ast.Eq:
        if low != high:
            return Condition(column, "range", (low, high + 1))
        return Condition(column, "eq", low)
    if kind == "text":
        raise ValueError(f"orders {column}, which is a text: compare it by == or in.")
    if op is ast.GtE:
        return Condition(column, "range", (low, None))
    if op is ast.Lt:
        return Condition(column, "range", (None, low))
    after = high + 1 if kind == "time" else math.nextafter(high, math.inf)
    return Condition(column, "range", (after, None) if op is ast.Gt else (None, after))


def _value(column: str, node: ast.expr, kind: Kind) -> tuple[Any, Any]:
    """Return the first and the last value that is meant; a day without a time is all of it."""
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        value = None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(
            f"compares {column} with {ast.unparse(node)[:80]!r}: "
            "give a number, or a text in quotes."
        )
    if kind == "text":
        return str(value), str(value)
    try:
        if kind == "time":
            first = microseconds(str(value))
            is_day = re.fullmatch(r"\d{4}-\d\d-\d\d|\d{8}", str(value)) is not None
            return first, first + A_DAY - 1 if is_day else first
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
    except (ValueError, OverflowError):
        example = "'2026-11-01' or '2026-11-01 18:30'" if kind == "time" else "2"
        what = "a time" if kind == "time" else "a number"
        said = ast.unparse(node)[:80]
        raise ValueError(
            f"compares {column} with {said}: it holds {what}, such as {example}."
        ) from None
    return number, number
