"""Which tests a change needs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from docs.tools.changed_tests import ALWAYS, changed_files, needed_tests

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("file", "tests"),
    [
        (
            "src/crosswalk/metrics/ranking.py",
            ["src/crosswalk/metrics/ranking.py", "tests/unit/metrics"],
        ),
        ("src/crosswalk/files.py", ["src/crosswalk/files.py", "tests/unit/test_files.py"]),
        ("src/crosswalk/metrics/gone.py", ["tests/unit/metrics"]),
        ("configs/method/rde.yaml", ["tests/unit/config", "tests/experiments/test_configs.py"]),
        ("tests/ddp/test_start.py", ["tests/ddp/test_start.py"]),
        ("tests/unit/lab/small_tables.py", ["tests/unit/lab"]),
        ("LICENSE", []),
    ],
)
def test_a_file_needs_its_doctests_and_those_of_its_room(file: str, tests: list[str]) -> None:
    assert needed_tests([file], ROOT) == [ALWAYS, *tests]


def test_changed_are_files_since_the_last_commit_or_those_of_it(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    git("init")
    for name in ("one", "two"):
        (tmp_path / name).touch()
        git("add", ".")
        git("commit", "-m", name)
    before = changed_files(tmp_path)
    (tmp_path / "three").touch()
    (tmp_path / "one").write_text("changed")

    assert before == ["two"]
    assert sorted(changed_files(tmp_path)) == ["one", "three"]
