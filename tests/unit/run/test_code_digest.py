from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

import crosswalk
from crosswalk.run.code_digest import LOOKS_ONLY, code_digest

PACKAGE = Path(crosswalk.__file__).parent

LOSS = '''\
"""Losses."""

MARGIN = 0.2
"""Least lead of the positive."""


class Loss:
    """A loss."""

    def __call__(self, x: float) -> float:
        """Return the loss."""
        return max(0.0, MARGIN - x)


async def slow() -> str:
    """Return a word."""
    return "word"
'''
FILES = {"losses/loss.py": LOSS, "train.py": "import crosswalk\n", "__init__.py": ""}


def digest(folder: Path, files: Mapping[str, str]) -> str:
    """Return the digest of a package with these files."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    found: str = code_digest.__wrapped__(folder)
    return found


def test_a_digest_is_twelve_hex_digits_and_the_same_again() -> None:
    assert re.fullmatch("[0-9a-f]{12}", code_digest())
    assert code_digest.__wrapped__() == code_digest()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"""Losses."""\n', '"""Losses of pairs."""\n'),
        ('"""Losses."""\n', ""),
        ('    """A loss."""\n', '    """A loss of pairs."""\n'),
        ('        """Return the loss."""\n', ""),
        ('    """Return a word."""\n', '    """Return one word."""\n'),
        ('"""Least lead of the positive."""\n', ""),
        ("MARGIN = 0.2\n", "MARGIN = 0.2  # ours\n"),
        ("MARGIN = 0.2\n", "MARGIN = (\n    0.20\n)\n"),
        ('return "word"', "return 'word'"),
    ],
)
def test_words_about_the_code_do_not_count(tmp_path: Path, before: str, after: str) -> None:
    assert before in LOSS
    reworded = FILES | {"losses/loss.py": LOSS.replace(before, after)}

    assert digest(tmp_path / "package", FILES) == digest(tmp_path / "package", reworded)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("MARGIN = 0.2", "MARGIN = 0.3"),
        ("MARGIN = 0.2\n", ""),
        ("MARGIN - x", "MARGIN + x"),
        ("max(0.0", "max(0"),
        ('return "word"', 'return "Word"'),
        ("self, x: float", "self, x: float = 1.0"),
        ("class Loss", "class Losses"),
    ],
)
def test_code_counts(tmp_path: Path, before: str, after: str) -> None:
    assert before in LOSS
    changed = FILES | {"losses/loss.py": LOSS.replace(before, after)}

    assert digest(tmp_path / "package", FILES) != digest(tmp_path / "package", changed)


def test_names_of_files_count(tmp_path: Path) -> None:
    moved = {name.replace("loss.py", "pair_loss.py"): text for name, text in FILES.items()}
    added = FILES | {"losses/__init__.py": ""}

    digests = {digest(tmp_path / "package", files) for files in (FILES, moved, added)}

    assert len(digests) == 3


def test_where_the_package_lies_does_not_count(tmp_path: Path) -> None:
    assert digest(tmp_path / "one", FILES) == digest(tmp_path / "two" / "deep", FILES)


@pytest.mark.parametrize(
    "name",
    [
        "lab/compare/compare.py",
        "diagnostics/division.py",
        "cli.py",
        "run/callbacks/progress.py",
        "notes.txt",
    ],
)
def test_what_only_looks_at_runs_does_not_count(tmp_path: Path, name: str) -> None:
    looked_at = FILES | {name: "x = 1\n"}

    assert digest(tmp_path / "package", FILES) == digest(tmp_path / "package", looked_at)


def test_weights_that_come_with_the_package_count(tmp_path: Path) -> None:
    weights = FILES | {"assets/tiny.safetensors": "0.5"}
    other_weights = FILES | {"assets/tiny.safetensors": "0.25"}

    digests = {digest(tmp_path / "package", files) for files in (FILES, weights, other_weights)}

    assert len(digests) == 3


@pytest.mark.parametrize("name", ["labels.py", "losses/cli.py", "callbacks/sweep.py"])
def test_what_is_only_named_like_it_counts(tmp_path: Path, name: str) -> None:
    more = FILES | {name: "x = 1\n"}

    assert digest(tmp_path / "package", FILES) != digest(tmp_path / "package", more)


def test_code_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SyntaxError):
        digest(tmp_path / "package", FILES | {"train.py": "def broken(:\n"})


def test_what_does_not_count_exists() -> None:
    missing = [name for name in LOOKS_ONLY if not (PACKAGE / name).exists()]

    assert missing == []
