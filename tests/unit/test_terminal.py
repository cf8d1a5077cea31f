import pytest
from rich.console import Console
from rich.table import Table

from crosswalk.terminal import fit
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
