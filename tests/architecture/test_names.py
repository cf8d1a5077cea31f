"""A method's parts bear its name, and nothing but its parts knows it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from crosswalk.config.search import group_values, read_group_file

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "crosswalk"
METHODS = tuple(group_values("method"))
WITHOUT_ORIGINAL = {"supervised"}
"""What other methods start from: nobody published tables, outputs or weights of it."""

PARTS = (
    "src/crosswalk/methods/{}.py",
    "tests/unit/methods/test_{}.py",
    "configs/sweep/{}.yaml",
    "docs/methods/{}.md",
)
PARTS_OF_PUBLISHED = (
    "experiments/{}/*.yaml",
    "tests/golden/adapters/{}/*.py",
    "tests/golden/data/{}/*.npz",
    "src/crosswalk/importers/{}.py",
)

ROOMS_OF_METHODS = (
    *("methods", "importers", "diagnostics"),
    # the science, whose sources are methods
    *("losses", "labels", "memory", "encoders", "metrics"),
)
FRAME = [
    path
    for path in sorted(SOURCE.rglob("*.py"))
    if path.relative_to(SOURCE).parts[0] not in ROOMS_OF_METHODS
]
KNOWN = re.compile(
    rf"(?<![a-z])({'|'.join(name.replace('_', '[-_]?') for name in METHODS)})(?![a-z])",
    re.IGNORECASE,
)
EXAMPLE = re.compile(r"^  crosswalk .*$", re.MULTILINE)
"""Lines of `--help` that a reader copies: they have to name some method."""


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").as_posix()


@pytest.mark.parametrize("method", METHODS)
def test_every_part_of_a_method_is_there_under_its_name(method: str) -> None:
    parts = PARTS if method in WITHOUT_ORIGINAL else (*PARTS, *PARTS_OF_PUBLISHED)

    missing = [part.format(method) for part in parts if not any(ROOT.glob(part.format(method)))]

    assert not missing
    target = read_group_file("method", method)["method"]["_target_"]
    assert target.rpartition(".")[0] == f"crosswalk.methods.{method}"


@pytest.mark.parametrize("part", [*PARTS, *PARTS_OF_PUBLISHED])
def test_every_part_is_one_of_a_method(part: str) -> None:
    before, after = part.split("{}")
    place = len(Path(before).parts) - (not before.endswith("/"))
    names = {path.relative_to(ROOT).parts[place] for path in ROOT.glob(part.replace("{}", "[!_]*"))}
    ending = after.partition("/")[0]
    prefix = "" if before.endswith("/") else Path(before).name

    found = {name.removeprefix(prefix).removesuffix(ending) for name in names}

    assert found <= {*METHODS, "base"}


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield strings and identifiers with their lines; docstrings are none of the code."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(node.value)
        for body in (getattr(each, "body", None) for each in ast.walk(tree))
        for node in (body if isinstance(body, list) else [])
        if isinstance(node, ast.Expr)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield node.lineno, EXAMPLE.sub("", node.value)
        for field in ("id", "attr", "name", "arg", "module"):
            if isinstance(value := getattr(node, field, None), str):
                yield getattr(node, "lineno", 0), value


@pytest.mark.parametrize("path", FRAME, ids=name_of)
def test_the_frame_names_no_method(path: Path) -> None:
    found = [f"{path}:{line}: {text}" for line, text in texts_of(path) if KNOWN.search(text)]

    assert not found
