import io

import pytest
from rich.console import Console
from rich.table import Table

from crosswalk.terminal import console_for, fit, show
from tests.unit.narrow import WIDTHS


@pytest.mark.parametrize("width", [*WIDTHS, 56])
def test_a_frame_goes_before_the_head_of_numbers_is_broken(width: int) -> None:
    console = Console(width=width)
    table = Table("", "queries", "R@1: B - A", "mAP: B - A")
    table.add_row("camera 12 (small)", "6", "0.00  [0.00, 0.00]", "+1.10  [-0.45, +3.75]")

    with console.capture() as captured:
        console.print(fit(table, console, numbers=[1, 2, 3]))

    shown = captured.get()
    assert "queries" in shown
    assert max(map(len, shown.splitlines())) <= width


@pytest.mark.parametrize("width", [27, 40])
def test_a_table_never_breaks_a_number_and_stands_row_below_row_instead(width: int) -> None:
    table = Table("epoch", "direction", "R@1", "mAP", title="Results", caption="9 queries")
    table.add_row("best (1)", "text → image", "100.00", "77.60")
    console = Console(width=width, file=io.StringIO(), color_system=None)

    show(table, console, numbers=[2, 3])

    text = console.file.getvalue()  # type: ignore[attr-defined]
    words = text.split()
    assert {"100.00", "77.60", "direction", "R@1", "epoch"} <= set(words)
    assert ("  R@1        100.00" in text) == (width == 27)
    assert words[-2:] == ["9", "queries"]


@pytest.mark.parametrize("width", [42, 80])
def test_an_interval_stays_on_its_line(width: int) -> None:
    interval = "+1.10  [-0.45, +3.75]"
    table = Table("", "queries", "R@1: B - A", "mAP: B - A")
    table.add_row("camera 12 (few)", "6", "0.00  [0.00, 0.00]", interval)
    console = Console(width=width, file=io.StringIO(), color_system=None)

    show(table, console, numbers=[1, 2, 3])

    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line for line in lines if interval in line]
    assert (f"  mAP: B - A  {interval}" in lines) == (width == 42)


def test_the_width_of_a_pipe_is_that_of_columns_where_it_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console_for(io.StringIO(), width=120).width == 120

    monkeypatch.setenv("COLUMNS", "60")
    assert console_for(io.StringIO(), width=120).width == 60
