"""How a command refuses: one message that names the thing, no traceback, nothing written."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from crosswalk.cli import main

LONGEST = 1500
"""Letters of a message, paths included."""


def contents(folders: Iterable[Path]) -> dict[str, tuple[int, int]]:
    """Return size and time of every file."""
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if not path.is_dir() or path.is_symlink()
    }


def message_of(
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    *,
    untouched: Iterable[Path] = (),
    status: tuple[int, ...] = (2,),
) -> str:
    """Run a command that is to be refused, and return what it said.

    Args:
        words: The command.
        capsys: Of the test.
        untouched: Folders in which nothing may change.
        status: What it may end with: 2, or 1 where a report on the standard output says it.
    """
    untouched = tuple(untouched)
    before = contents(untouched)
    capsys.readouterr()
    try:
        found = main(words)
    except SystemExit as exit:  # of argparse
        found = int(str(exit.code))
    said = capsys.readouterr()
    assert found in status, (found, said.err[-2000:], said.out[-500:])
    assert "Traceback" not in said.err, said.err
    message = said.err[said.err.rfind("crosswalk: ") :] if "crosswalk: " in said.err else said.out
    assert message is said.out or len(message) < LONGEST, message
    assert "weights_only" not in message
    assert not Path("exploited.txt").exists()
    assert contents(untouched) == before
    return re.sub(r"\s+", " ", message)
