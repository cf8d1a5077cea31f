"""The tests that a change needs most: what ``make test-fast`` runs.

Of each changed file: its own doctests, the unit tests of its room (``tests/unit/<room>`` of
``src/crosswalk/<room>``, ``tests/unit/test_<file>.py`` of a file in no room), a changed test by
itself, and for configurations the tests that compose all of them; and always those of
``tests/architecture``. Changed are the files that differ from the last commit, or those of the last
commit where none does.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

ALWAYS = "tests/architecture"
OF_FOLDERS = {
    "configs": ("tests/unit/config", "tests/experiments/test_configs.py"),
    "experiments": ("tests/experiments",),
    "benchmarks": ("tests/unit/benchmarks",),
    "docs": ("tests/experiments/test_tables_are_current.py",),
    "README.md": ("tests/experiments/test_tables_are_current.py",),
    "Makefile": ("tests/unit/test_makefile.py",),
}
"""What a changed file below a folder needs, beside a room of the package."""


def changed_files(root: Path) -> list[str]:
    """Return the changed files below ``root``, relative to it."""

    def git(*words: str) -> list[str]:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    here = git("diff", "--name-only", "HEAD")
    here += git("ls-files", "--others", "--exclude-standard")
    return here or git("diff", "--name-only", "HEAD~1", "HEAD")


def needed_tests(files: Iterable[str], root: Path) -> list[str]:
    """Return what pytest is given for changed files, each once; what does not exist is left out.

    Args:
        files: Relative to ``root``.
        root: Folder of the repository.
    """
    wanted = {ALWAYS: None}
    for file in files:
        path = PurePosixPath(file)
        found: tuple[str, ...]
        match path.parts:
            case ("src", "crosswalk", _):
                found = (file, f"tests/unit/test_{path.stem}.py")
            case ("src", "crosswalk", room, *_):
                found = (file, f"tests/unit/{room}") if path.suffix == ".py" else ()
            case ("tests", *_) if path.name.startswith("test_"):
                found = (file,)
            case ("tests", "unit", room, _):
                found = (f"tests/unit/{room}",)
            case (first, *_):
                own = (file,) if path.suffix == ".py" and first == "docs" else ()
                found = (*own, *OF_FOLDERS.get(first, ()))
            case _:
                found = ()
        wanted |= dict.fromkeys(each for each in found if (root / each).exists())
    return list(wanted)


if __name__ == "__main__":
    folder = Path(__file__).parents[2]
    print(*needed_tests(sys.argv[1:] or changed_files(folder), folder))
