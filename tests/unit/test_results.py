import io
import json
from pathlib import Path

from crosswalk.results import MEASURES, print_results, result_rows, save_results
from crosswalk.run_folder import RunFolder


def metrics(split: str, start: float, prefix: str = "") -> dict[str, float]:
    return {f"{split}/{prefix}{name}": start + i / 100 for i, name in enumerate(MEASURES)}


def test_rows_are_in_percent_for_both_splits_and_directions() -> None:
    best = {
        "epoch": 3,
        **metrics("val", 0.5),
        **metrics("test", 0.25),
        **metrics("test", 0.125, "image_to_text/"),
    }

    rows = result_rows({"best": best, "last": {"epoch": 9, **metrics("test", 0.0)}})

    assert [row[:4] for row in rows] == [
        ("best (3)", "val", "text → image", "50.00"),
        ("best (3)", "test", "text → image", "25.00"),
        ("best (3)", "test", "image → text", "12.50"),
        ("last (9)", "test", "text → image", "0.00"),
    ]
    assert rows[1][4:] == ("26.00", "27.00", "28.00", "29.00")


def test_the_printed_table_names_the_choice_of_the_epoch() -> None:
    output = io.StringIO()

    print_results({"best": {"epoch": 1, **metrics("test", 0.5)}}, monitor="val/rank1", file=output)

    assert "best epoch by val/rank1" in output.getvalue()
    assert "50.00" in output.getvalue()


def test_results_are_written_to_the_run_folder(tmp_path: Path) -> None:
    save_results(RunFolder(tmp_path), {"best": {"epoch": 1, "test/rank1": 0.5}})

    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored == {"best": {"epoch": 1, "test/rank1": 0.5}}
