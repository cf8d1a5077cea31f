"""Tables in documents and beside results are what the kept results say."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from docs.tools.benchmark_tables import wanted_documents
from docs.tools.readme_tables import own_program, wanted_files

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"


def test_tables_in_documents_and_beside_results_are_current() -> None:
    stale = [
        path.relative_to(ROOT).as_posix()
        for path, content in wanted_files(ROOT).items()
        if not path.is_file() or path.read_text(encoding="utf-8") != content
    ]

    assert not stale, "run: make tables"


def test_tables_of_benchmarks_are_those_of_the_kept_results() -> None:
    stale = [
        path.relative_to(ROOT).as_posix()
        for path, content in wanted_documents(ROOT).items()
        if path.read_text(encoding="utf-8") != content
    ]

    assert not stale, "run: make tables"


def test_every_rendered_table_has_results() -> None:
    for path in EXPERIMENTS.glob("*/results/*.md"):
        assert path.with_suffix(".json").is_file(), path


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(EXPERIMENTS.glob("*/results/*.md")) if own_program(path).exists()],
    ids=lambda path: path.stem,
)
def test_tables_by_programs_of_their_own_are_current(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runpy.run_path(str(own_program(path)), run_name="__main__")

    assert capsys.readouterr().out == path.read_text(encoding="utf-8")
