"""Tables in documents and beside results are what the kept results say."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from crosswalk.lab.tables.readme_tables import OTHER_RENDERERS, wanted_files

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"


def test_tables_in_documents_and_beside_results_are_current() -> None:
    stale = [
        path.relative_to(ROOT).as_posix()
        for path, content in wanted_files(ROOT).items()
        if not path.is_file() or path.read_text(encoding="utf-8") != content
    ]

    assert not stale, "run: make tables"


def test_every_rendered_table_has_results() -> None:
    for path in EXPERIMENTS.glob("*/results/*.md"):
        assert path.with_suffix(".json").is_file(), path


@pytest.mark.parametrize("name", OTHER_RENDERERS)
def test_tables_by_programs_of_their_own_are_current(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runpy.run_path(str(ROOT / OTHER_RENDERERS[name]), run_name="__main__")

    content = (EXPERIMENTS / name).read_text(encoding="utf-8")
    assert capsys.readouterr().out == content, f"run: python {OTHER_RENDERERS[name]}"
