"""The notebooks of the examples, executed on tiny data by a kernel of their own."""

from __future__ import annotations

import re
from pathlib import Path

from crosswalk.config.search import small_overrides
from docs.tools.notebooks import FOLDER, executed

ROOT = Path(__file__).parents[2]
SMALL = {
    "compare_two_losses": {
        "SETTINGS": " ".join([*small_overrides("rde"), "trainer.max_epochs=1", "seed=1"]),
    },
    "search_your_photos": {"PEOPLE": "tiny"},
}
"""What makes each of them take seconds."""


def test_every_notebook_is_executed() -> None:
    assert {path.stem for path in (ROOT / FOLDER).glob("*.ipynb")} == set(SMALL)


def test_two_losses_are_trained_compared_and_used() -> None:
    name = "compare_two_losses"

    notebook = executed(ROOT / FOLDER / f"{name}.ipynb", SMALL[name])

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    assert re.search(r"^RDE +test R@1 \d+\.\d, mAP \d+\.\d$", said, re.MULTILINE)
    assert re.search(r"^InfoNCE, all pairs +test R@1 \d+\.\d, mAP \d+\.\d$", said, re.MULTILINE)
    numbers = [int(n) for n in re.findall(r"^f\D+ alone: (\d+) queries$", said, re.MULTILINE)]
    assert len(numbers) == 2
    assert "Numbers: " in said
    tables = [
        output.data["text/plain"] for output in outputs if "text/html" in output.get("data", {})
    ]
    assert len(tables) >= 3  # a table of each run, and the comparison
    assert all("R@1" in table for table in tables[:2])
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2


def test_pictures_are_indexed_asked_for_and_measured() -> None:
    name = "search_your_photos"

    notebook = executed(ROOT / FOLDER / f"{name}.ipynb", SMALL[name])

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    assert re.search(r"^Gallery\(people.gallery: (\d+) pictures\) - \1 new$", said, re.MULTILINE)
    assert re.search(r"^\d+ unchanged$", said, re.MULTILINE)
    assert re.search(r"^nobody at all: score -?0\.\d{3}; ", said, re.MULTILINE)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
