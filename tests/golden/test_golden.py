"""Runs every committed golden file."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.golden.harness import DATA, golden_files, load_adapters, run_case

METHODS = sorted(path.name for path in DATA.iterdir() if path.is_dir())
PROBLEMS = load_adapters(METHODS)
FILES = [(method, path) for method in METHODS for path in golden_files(DATA, method)]


def test_all_adapters_can_be_imported() -> None:
    assert PROBLEMS == []


@pytest.mark.parametrize(
    ("method", "path"), FILES, ids=[f"{method}/{path.stem}" for method, path in FILES]
)
def test_the_outputs_are_those_of_the_published_implementation(method: str, path: Path) -> None:
    result = run_case(path, method)

    assert (result.outcome, result.reason) == ("passed", "")
