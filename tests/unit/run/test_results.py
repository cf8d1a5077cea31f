import io
from typing import Any

import pytest

from crosswalk.run.results import EXTRA_MEASURES, MEASURES, chosen_by, print_results, result_rows
from tests.unit.narrow import WIDTHS, figures, plain, terminal

TEXT = ("text_to_image", "image_to_text")


def metrics(split: str, start: float, prefix: str = "") -> dict[str, float]:
    return {f"{split}/{prefix}{name}": start + i / 100 for i, name in enumerate(MEASURES)}


def printed(results: dict[str, dict[str, Any]], **settings: Any) -> str:  # noqa: ANN401
    output = io.StringIO()
    print_results(results, file=output, **settings)
    return output.getvalue()


def test_rows_are_in_percent_for_both_splits_and_directions() -> None:
    best = {
        "epoch": 3,
        **metrics("val", 0.5),
        **metrics("test", 0.25),
        **metrics("test", 0.125, "image_to_text/"),
    }

    rows = result_rows(
        {"best": best, "last": {"epoch": 9, **metrics("test", 0.0)}}, directions=TEXT
    )

    assert [row[:4] for row in rows] == [
        ("best (3)", "val", "text → image", "50.00"),
        ("best (3)", "test", "text → image", "25.00"),
        ("best (3)", "test", "image → text", "12.50"),
        ("last (9)", "test", "text → image", "0.00"),
    ]
    assert rows[1][4:] == ("26.00", "27.00", "28.00", "29.00")


def test_a_row_names_the_direction_that_was_measured() -> None:
    results = {
        "start": {"epoch": 0, **metrics("test", 0.25)},
        "last": {"epoch": 9, **metrics("test", 0.5)},
    }

    rows = result_rows(results, directions=["image_to_image"])

    assert [row[:4] for row in rows] == [
        ("start (0)", "test", "image → image", "25.00"),
        ("last (9)", "test", "image → image", "50.00"),
    ]


def test_the_best_epoch_and_the_last_one_are_one_row_where_they_are_one() -> None:
    same = {"epoch": 9, **metrics("test", 0.5)}
    start = {"epoch": 0, **metrics("test", 0.25)}

    rows = result_rows({"best": same, "last": same, "start": start}, directions=TEXT)

    assert [row[:4] for row in rows] == [
        ("best = last (9)", "test", "text → image", "50.00"),
        ("start (0)", "test", "text → image", "25.00"),
    ]


def test_a_re_ranking_has_a_row_behind_its_direction() -> None:
    best = {"epoch": 3}
    for number, prefix in enumerate(("", "reranked/", "image_to_text/", "image_to_text/reranked/")):
        best |= metrics("test", number / 8, prefix)

    rows = result_rows({"best": best}, directions=TEXT)

    assert [row[1:4] for row in rows] == [
        ("test", "text → image", "0.00"),
        ("test", "text → image, re-ranked", "12.50"),
        ("test", "image → text", "25.00"),
        ("test", "image → text, re-ranked", "37.50"),
    ]
    table = printed({"best": best}, counts=chosen_by("val/rank1"), directions=TEXT)
    lines = [line for line in table.splitlines() if "re-ranked" in line]
    assert ["12.50" in lines[0], "37.50" in lines[1], len(lines)] == [True, True, 2]


def test_the_printed_table_names_the_choice_of_the_epoch() -> None:
    best = {"best": {"epoch": 1, **metrics("test", 0.5)}}

    table = printed(best, counts=chosen_by("val/rank1"), directions=TEXT)

    assert "best epoch by val/rank1" in table
    assert "50.00" in table
    assert "Queries without a match" not in table


def test_the_printed_table_says_that_nothing_was_chosen() -> None:
    last = {"last": {"epoch": 60, **metrics("test", 0.5), "test/queries_without_match": 3.0}}

    table = printed(last, counts=chosen_by(None), directions=["image_to_image"])

    assert "last epoch (no val split: nothing was selected)" in table
    assert "R@1 (CMC@1)" in table
    assert "left out: 3 of test" in table
    assert "trapezoidal" not in table


@pytest.mark.parametrize("measured_by", [["last"], ["start", "last"]])
def test_further_definitions_of_map_have_columns_that_name_them(measured_by: list[str]) -> None:
    results = {name: {"epoch": 1, **metrics("test", 0.5)} for name in ("start", "last")}
    for name in measured_by:
        results[name] |= {"test/map_trapezoidal": 0.3125, "test/map_first_hit_bonus": 0.6875}

    table = printed(results, counts=chosen_by(None), directions=["image_to_image"])

    words = " ".join(table.replace("┃", " ").split())
    assert all(word in words for word in ("(trapezoidal)", "(first-hit"))
    assert table.count("31.25") == table.count("68.75") == len(measured_by)
    for line in table.splitlines():
        assert "53.00" not in line or "31.25" in line or line.split("│")[-2].strip() == "-"


@pytest.mark.parametrize("width", [*WIDTHS, 100])
@pytest.mark.parametrize("extra", [(), EXTRA_MEASURES])
def test_a_narrow_terminal_keeps_every_number(
    monkeypatch: pytest.MonkeyPatch, width: int, extra: tuple[str, ...]
) -> None:
    terminal(monkeypatch, width)
    numbers = ("100.00", "98.76", "87.65", "76.54", "65.43", "54.32", "43.21")
    named = zip([*MEASURES, *extra], numbers, strict=False)
    best = {"epoch": 12, **{f"test/{name}": float(value) / 100 for name, value in named}}
    stream = io.StringIO()

    print_results({"best": best}, counts=chosen_by("val/rank1"), directions=TEXT, file=stream)

    shown = figures(stream.getvalue())
    assert all(number in shown for number in numbers[: 5 + len(extra)])
    assert "…" not in stream.getvalue()
    assert max(map(len, plain(stream.getvalue()).splitlines())) <= width
