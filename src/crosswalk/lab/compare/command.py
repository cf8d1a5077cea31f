"""``crosswalk compare``: two runs, or two sets of runs, on the same queries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crosswalk.config.places import refuse_inside_data
from crosswalk.files import write_text
from crosswalk.lab.compare.compare import compare_sides, plain
from crosswalk.lab.compare.page import comparison_page
from crosswalk.lab.compare.runs import Side, check_comparable, read_side, shared_checkpoint
from crosswalk.lab.compare.text import print_comparison
from crosswalk.lab.report.evaluation_data import evaluation_data


def run_compare(
    first: str, second: str, *others: str, checkpoint: str | None = None, split: str, out: Path
) -> int:
    """Print how runs differ from the first one, and write a page and a JSON file of each pair.

    Args:
        first: Run folder of side A, or several with commas between them.
        second: Of side B.
        others: Further sides; the page of each has its number behind the name of ``out``.
        checkpoint: "best", "last" or "start"; None: the first of these that all runs have.
        split: "test" or "val".
        out: The page to write, ``.html``.

    Returns:
        The exit status.

    Raises:
        FileNotFoundError: If a folder holds no run, or results are missing.
        ValueError: If the runs were not evaluated on the same queries.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out {out} should end in .html; a .json file is written beside it.")
    if checkpoint is None:
        checkpoint = shared_checkpoint([first, second, *others], split)
    for number, other in enumerate((second, *others), 2):
        page = out if number == 2 else out.with_name(f"{out.stem}-{number}{out.suffix}")
        if number > 2:
            print("\n")
        sides = [
            read_side(words, label, checkpoint=checkpoint, split=split)
            for words, label in ((first, "A"), (other, "B"))
        ]
        _compare(sides, page)
    return 0


def _compare(sides: list[Side], out: Path) -> None:
    for run in (run for side in sides for run in side.runs):
        refuse_inside_data(run.runnable_config(()), out, "--out")
    notes = check_comparable(sides[0], sides[1])
    data, problem = _data_of(sides)
    comparison = compare_sides(*sides, notes=notes, data=data, data_problem=problem)
    replaced = ", in the place of an earlier one" if out.exists() else ""
    write_text(out, comparison_page(comparison))
    numbers = out.with_suffix(".json")
    write_text(numbers, json.dumps(plain(comparison), indent=1, ensure_ascii=False) + "\n")
    print_comparison(comparison)
    print(f"\nPage with ranking lists: {out}{replaced}\nNumbers: {numbers}")


def _data_of(sides: list[Side]) -> tuple[Any | None, str]:
    """Return the data of the first run whose data can be read; else None, and why not."""
    problem = ""
    for run in (run for side in sides for run in side.runs):
        try:
            return evaluation_data(run), ""
        except (OSError, ValueError) as error:
            problem = problem or str(error)
    return None, problem
