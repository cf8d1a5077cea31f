"""Filters: what they mean, and what is refused."""

from __future__ import annotations

import math

import pytest

from crosswalk.gallery.store import Condition, Kind
from crosswalk.gallery.where import LONGEST, microseconds, parse_where

COLUMNS: dict[str, Kind] = {"camera": "number", "time": "time", "own_id": "text", "path": "text"}
DAY = microseconds("2026-11-01")


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("", []),
        ("camera == 2", [("camera", "eq", 2.0)]),
        ("camera = 2", [("camera", "eq", 2.0)]),
        ("camera_id=-1.5", [("camera", "eq", -1.5)]),
        ("camera IN (2, 5) AND own_id = 'a=b AND c'", [
            ("camera", "in", (2.0, 5.0)), ("own_id", "eq", "a=b AND c")]),
        ("camera in (2)", [("camera", "in", (2.0,))]),
        ("camera in [2, '5']", [("camera", "in", (2.0, 5.0))]),
        ("id in ('a', 7)", [("own_id", "in", ("a", "7"))]),
        ("camera >= 2", [("camera", "range", (2.0, None))]),
        ("camera < 2", [("camera", "range", (None, 2.0))]),
        ("camera > 2", [("camera", "range", (math.nextafter(2, 3), None))]),
        ("2 >= camera", [("camera", "range", (None, math.nextafter(2, 3)))]),
        ("1 <= camera < 5", [("camera", "range", (1.0, None)), ("camera", "range", (None, 5.0))]),
        ("time >= '2026-11-01'", [("time", "range", (DAY, None))]),
        ("time <= '2026-11-01'", [("time", "range", (None, DAY + 86_400_000_000))]),
        ("time > '2026-11-01'", [("time", "range", (DAY + 86_400_000_000, None))]),
        ("time < '2026-11-01 00:00'", [("time", "range", (None, DAY))]),
        ("time <= '2026-11-01 00:00'", [("time", "range", (None, DAY + 1))]),
        ("time == '2026-11-01'", [("time", "range", (DAY, DAY + 86_400_000_000))]),
        ("time == '2026-11-01T01:00+01:00'", [("time", "eq", DAY)]),
        ("(camera == 1 and (own_id == 'x'))", [("camera", "eq", 1.0), ("own_id", "eq", "x")]),
    ],
)  # fmt: skip
def test_a_filter_becomes_conditions(text: str, conditions: list[tuple[str, str, object]]) -> None:
    assert parse_where(text, COLUMNS) == [Condition(*each) for each in conditions]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("camera == 1 or camera == 2", "joins by or"),
        ("not camera == 1", "is no comparison"),
        ("camera", "is no comparison"),
        ("camera == ", "is no comparison of columns with values"),
        ("camera ~ 2", "is no comparison of columns with values"),
        ("camera; drop table rows", "is no comparison of columns with values"),
        ("shop == 1", "asks for shop, which the gallery does not know. It has camera (number)"),
        ("camera != 1", "uses a sign that is not known"),
        ("camera not in (1, 2)", "uses a sign that is not known"),
        ("camera == 'front'", "compares camera with 'front': it holds a number"),
        ("camera == __import__('os')", "give a number, or a text in quotes"),
        ("camera == (lambda: 1)()", "give a number, or a text in quotes"),
        ("camera == True", "give a number, or a text in quotes"),
        ("camera == 1e999", "it holds a number"),
        ("camera == own_id", "give a number, or a text in quotes"),
        ("1 == 1", "compares '1', which is no column"),
        ("time == 'yesterday'", "it holds a time, such as '2026-11-01'"),
        ("time in ('2026-11-01',)", "lists days of time"),
        ("own_id > 'a'", "orders own_id, which is a text"),
        ("camera == " + "9" * 5000, "letters; at most"),
        ("camera == " + "9" * 1500, "it holds a number"),
        ("(" * 500 + "camera == 1" + ")" * 500, "is no comparison of columns with values"),
        (" and ".join(["camera == 1"] * 300), "letters; at most"),
        ("not " * 400 + "camera", "nested too deeply"),
        ("camera == '\0'", "is no comparison of columns with values"),
    ],
)
def test_what_is_no_filter_is_refused_in_its_words(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="filter") as refused:
        parse_where(text, COLUMNS)

    assert said in str(refused.value)
    assert len(str(refused.value)) < LONGEST + 500
