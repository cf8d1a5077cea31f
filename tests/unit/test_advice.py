"""Every command and every key that a message advises works."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import crosswalk
from crosswalk.cli import parse
from crosswalk.config.check import check_early
from crosswalk.config.compose import compose

SOURCE = Path(crosswalk.__file__).parent
EXAMPLES = {
    "method=<file>": "method=mar",
    "data=<data set>": "data=own_pairs",
    "<file>": "a.pth",
    "<new folder>": "new.gallery",
    "<name>": "resnet18",
    "<run>": "runs/it",
    "<run folder>": "runs/it",
    "<machines>": "2",
    "<method>": "rde",
    "<command>": "train",
    "RUN": "runs/it",
    "ROOT": "sets",
}
"""What stands in messages for what the user knows; other texts in <> of paths are folders."""

BASES = (
    ("method=rde",),
    ("method=rde", "data=cuhk_pedes"),
    ("method=clip_reid",),
    ("method=cmmt",),
    ("method=cluster_contrast",),
    ("method=cm_moco",),
    ("method=irra",),
    ("method=mar",),
    ("method=mmcl",),
    ("method=mmcl", "data=msmt17"),
    ("method=mmcl", "data=msmt17_to_market1501"),
    ("method=mmcl", "encoder=timm"),
    ("method=supervised",),
)
NO_KEYS = {
    *("axis", "batches", "datamodule", "digits", "pad", "sort_keys", "sync_dist", "target"),
    *("nprobe", "gpus_per_node", "partition", "timeout_min"),  # of faiss and of Slurm
    *("group", "key", "dotted.key"),  # of the help's grammar
    *("backend", "batch", "choices", "hydra.searchpath"),
    # of SQLite and of addresses
    *("cell_size_check", "immutable", "journal_mode", "mode", "synchronous", "trusted_schema"),
    *("token", "url", "write"),
}
"""Words before = that are arguments of Python, options of others, or grammar."""

EXPLAINED = {
    "data.plan=identity_plan": "names the function that is set",
    "method=grid": "of a sweep file",
    "data=synthetic_": "goes on with a name",
    "trainer.accelerator=mps": "named when it is refused",
}


def texts() -> Iterator[tuple[str, str]]:
    """Yield the place and the text of every string of the package that is no docstring."""
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        skipped: set[int] = set()
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and node.body:
                skipped |= {id(each) for each in ast.walk(node.body[0])} & {
                    id(getattr(node.body[0], "value", None))
                }
            if isinstance(node, ast.JoinedStr):
                skipped |= {id(each) for each in ast.walk(node) if each is not node}
        for node in ast.walk(tree):
            if id(node) not in skipped and (text := text_of(node)):
                yield f"{path.relative_to(SOURCE).as_posix()}:{getattr(node, 'lineno', 0)}", text


def text_of(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [each.value if isinstance(each, ast.Constant) else "{}" for each in node.values]
        return "".join(map(str, parts))
    return ""


def commands() -> list[str]:
    found = {each for _, text in texts() for each in re.findall(r"`(crosswalk [^`]+)`", text)}
    return sorted(found - {"crosswalk --version", "crosswalk --help"})


def keys() -> list[str]:
    word = r"(?<![\w.\-{/}<+])(\+*(?:[a-z_]\w*\.)*[a-z_]\w*)=(<[^>]+>|[\w./\[\]-]+)"
    found = {
        (key, value.rstrip(".,"))
        for _, text in texts()
        for key, value in re.findall(word, text)
        if key not in NO_KEYS
    }
    return sorted({f"{key}={value}" for key, value in found if value} - set(EXPLAINED))


def filled(text: str) -> str:
    """Return a text with examples for its placeholders."""
    for placeholder, example in EXAMPLES.items():
        text = re.sub(rf"(?<!\w){re.escape(placeholder)}(?!\w)", example, text)
    return re.sub(r"(root|data)=<[^>]+>", r"\1=sets", text).replace("{}", "it")


@cache
def composed_somewhere(override: str) -> str:
    """Return nothing if a run of some method takes an override, else what the last one says."""
    said = ""
    for base in BASES:
        try:
            check_early(compose([*base, *([] if "encoder=timm" not in base else TIMM), override]))
        except ValueError as error:
            said = str(error)
        else:
            return ""
    return said


TIMM = ("encoder.backbone.name=resnet18",)


@pytest.mark.parametrize("command", commands())
def test_every_advised_command_is_understood(command: str) -> None:
    words = filled(command).replace("data=it", "data=own_pairs")

    assert "<" not in words, f"give EXAMPLES a value for the placeholder of {command}"
    if words.split()[1:] in (["--help"], ["train", "--help"]) or is_name_of_command(words):
        return
    options = parse(shlex.split(words)[1:])
    if options.overrides:
        compose(options.overrides)


def is_name_of_command(words: str) -> bool:
    """Return whether a message only speaks of a command, as of `crosswalk evaluate`."""
    from crosswalk.cli import COMMANDS

    return words.removeprefix("crosswalk ") in COMMANDS


@pytest.mark.parametrize("override", keys())
def test_every_advised_key_is_taken(override: str) -> None:
    given = filled(override)
    if "<" in given:
        given = re.sub(r"<[^>]+>", "2", given)

    assert composed_somewhere(given) == ""
