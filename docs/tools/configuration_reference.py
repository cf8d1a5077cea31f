"""Every configuration key with its type, its default and where that is from, as pages.

Made from the files of ``configs/`` (values and comments) and from the constructors that they name
(types, ranges, meanings, arguments that no file sets), so that nothing of it is written twice.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from crosswalk.config.compose import compose
from crosswalk.config.construct import locate
from crosswalk.config.constructors import signature_of
from crosswalk.config.keys import CALLED_ELSEWHERE, TOP
from crosswalk.config.search import config_folder, group_values
from crosswalk.config.trainer_arguments import ARGUMENTS, REFUSED
from crosswalk.config.words import readable

GROUPS = {
    "trainer": "Trainer: devices, precision, length",
    "logger": "Logger",
    "data": "Data",
    "transform": "Transforms: how images become tensors",
    "text": "Text: tokenizers and caption encoders",
    "encoder": "Encoders",
    "method": "Methods",
    "loss": "Losses",
    "division": "Divisions of pairs",
    "labels": "Labels",
    "mlm": "Masked language modelling",
    "classifier": "Classifiers",
    "optim": "Optimizers and schedules",
    "reranking": "Re-ranking",
}
"""Groups of files in the order of the site, with the titles of their pages."""

NO_KEYS = ("defaults", "small")
"""What a file says beside keys of the run."""


class Key(NamedTuple):
    """One line of the reference."""

    name: str
    kind: str
    default: str
    says: str


def file_text(path: Path) -> tuple[str, str]:
    """Return the package that a file writes to, and what its first comments say.

    Example:
        >>> file_text(config_folder() / "loss" / "triplet_alignment.yaml")[0]
        'method.loss'
    """
    group = path.parent.relative_to(config_folder()).as_posix().replace("/", ".")
    package, lines = group.strip("."), []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        word = line.lstrip("# ").rstrip()
        if word.startswith("@package"):
            package = word.split()[1]
        else:
            lines.append(word)
    return "" if package == "_global_" else package, " ".join(lines)


def leaves(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the dotted key, the value as it is written, and the comment of every key of a file.

    Example:
        >>> for leaf in leaves(config_folder() / "loss" / "triplet_alignment.yaml"):
        ...     print(leaf)
        ('method.loss._target_', 'crosswalk.losses.pair_losses.triplet_alignment_of_pairs', '')
        ('method.loss.margin', '0.1', 'RDE, implementation details; cosine units')
        ('method.loss.temperature', '0.015', 'RDE, implementation details; cosine units')
    """
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, MappingNode):
        return
    package, _ = file_text(path)
    yield from _leaves(root, f"{package}." if package else "", text, lines)


def _leaves(
    node: MappingNode, prefix: str, text: str, lines: list[str]
) -> Iterator[tuple[str, str, str]]:
    for key, value in node.value:
        if key.value == "defaults" or (not prefix and key.value in NO_KEYS):
            continue
        name = f"{prefix}{key.value}"
        if isinstance(value, MappingNode) and value.value and not value.flow_style:
            yield from _leaves(value, f"{name}.", text, lines)
        else:
            yield name, _written(value, text), _comment(key, value, lines)


def _written(value: Node, text: str) -> str:
    written = text[value.start_mark.index : value.end_mark.index]
    if isinstance(value, ScalarNode) or value.flow_style:
        return " ".join(written.split())
    items = [" ".join(line.split("#")[0].split()) for line in written.splitlines()]
    return " ".join(filter(None, items))


def _comment(key: Node, value: Node, lines: list[str]) -> str:
    line = key.start_mark.line
    above = []
    while line and re.match(r"\s*#", lines[line - 1]):
        line -= 1
        above.append(lines[line].strip(" #"))
    if line == 0:  # the head of the file, which speaks of all of it
        above = []
    same_line = value.start_mark.line == key.start_mark.line == value.end_mark.line
    place = value.end_mark if same_line else key.end_mark
    beside = lines[place.line][place.column :].partition("#")[2].strip()
    return " ".join([*reversed(above), beside]).strip()


@cache
def meanings(target: str) -> Mapping[str, str]:
    """Return what a docstring of this package says of each argument; nothing of others'.

    Example:
        >>> meanings("crosswalk.methods.rde.RDE")["optim"]
        'Builds the optimizer and its schedule.'
    """
    if not target.startswith("crosswalk."):
        return {}
    text = inspect.getdoc(locate(target, "")) or ""
    found = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)+)", text, re.MULTILINE)
    if found is None:
        return {}
    block = inspect.cleandoc(found[1])
    parts = re.split(r"^(\w+)(?: \([^)]*\))?: ", block, flags=re.MULTILINE)
    return {
        name: " ".join(said.split()) for name, said in zip(parts[1::2], parts[2::2], strict=True)
    }


def targets(config: Any) -> dict[str, str]:  # noqa: ANN401
    """Return the constructor of every node of a configuration by its dotted key.

    Example:
        >>> targets({"a": {"_target_": "x.Y", "b": {"c": 1}}})
        {'a': 'x.Y'}
    """
    found = {}

    def look(node: Any, key: str) -> None:  # noqa: ANN401
        items = node.items() if isinstance(node, Mapping) else ()
        for name, value in items:
            look(value, f"{key}.{name}" if key else str(name))
        if isinstance(node, Mapping) and isinstance(node.get("_target_"), str):
            found[key] = node["_target_"]

    look(config, "")
    return found


@cache
def _composed(*choices: str) -> dict[str, str] | None:
    from omegaconf import OmegaConf

    try:
        return targets(OmegaConf.to_container(compose(choices), resolve=False))
    except ValueError:
        return None


def targets_with(group: str, value: str, keys: list[str]) -> dict[str, str]:
    """Return the constructors of a configuration that uses a file of a group, some method's."""
    methods = [value] if group == "method" else group_values("method")
    best: dict[str, str] = {}
    for method in methods:
        choice = () if group == "method" or value.startswith("_") else (f"{group}={value}",)
        found = _composed(f"method={method}", *choice) or {}
        if _matched(keys, found) > _matched(keys, best):
            best = found
        if _matched(keys, best) == len(keys):
            break
    return best


def _matched(keys: list[str], found: Mapping[str, str]) -> int:
    return sum(_parent(key) in found for key in keys)


def _parent(key: str) -> str:
    return key.rpartition(".")[0]


def keys_of(group: str, path: Path) -> list[Key]:
    """Return the keys that a file of a group sets, and those that its constructors have beside.

    Example:
        >>> [key.name for key in keys_of("loss", config_folder() / "loss/triplet_alignment.yaml")]
        ['method.loss', 'method.loss.margin', 'method.loss.temperature']
    """
    found = list(leaves(path))
    own = {_parent(name): value for name, value, _ in found if name.endswith("._target_")}
    names = [name for name, _, _ in found]
    around = targets_with(group, path.stem, names) | own if group else own
    keys = []
    for name, value, says in found:
        parent, _, last = name.rpartition(".")
        if last == "_partial_":
            continue
        if last == "_target_":
            keys.append(Key(parent, "", f"`{value}`", says))
            continue
        kind, meaning = described(name, around)
        keys.append(
            Key(name, kind, f"`{value}`", " ".join(filter(None, [meaning, says and f"*{says}*"])))
        )
    for parent, target in own.items():
        keys += unset(parent, target, set(names))
    return keys


def described(name: str, around: Mapping[str, str]) -> tuple[str, str]:
    """Return the type of a key in words, and what its constructor's docstring says of it."""
    parent, _, last = name.rpartition(".")
    if parent == "trainer":
        return (readable(ARGUMENTS[last]) if last in ARGUMENTS else "", "")
    if not parent:
        return (readable(TOP[last]) if last in TOP else "", "")
    target = around.get(parent)
    if target is None:
        return "", ""
    takes = signature_of(target, parent)
    kind = readable(takes.annotations[last]) if takes and last in takes.annotations else ""
    return ("" if kind == "Any" else kind), meanings(target).get(last, "")


def unset(parent: str, target: str, set_here: set[str]) -> list[Key]:
    """Return the arguments with plain defaults that no file sets, of this package's constructors.

    Example:
        >>> [key.name for key in unset("m", "crosswalk.methods.rde.RDE", {"m.masking", "m.mlm"})]
        ['m.warmup_epochs', 'm.seed']
    """
    takes = signature_of(target, parent) if target.startswith("crosswalk.") else None
    keys = []
    for name, parameter in (takes.parameters if takes else {}).items():
        default = parameter.default
        is_plain = default is None or isinstance(default, bool | int | float | str)
        if default is inspect.Parameter.empty or not is_plain:
            continue
        key = f"{parent}.{name}"
        if key in set_here or any(each.startswith(f"{key}.") for each in set_here):
            continue
        kind, meaning = described(key, {parent: target})
        shown = {None: "null", True: "true", False: "false"}.get(default, default)
        keys.append(Key(key, kind, f"`{shown}`", f"{meaning} *The constructor's default.*"))
    return keys


def table(keys: list[Key]) -> str:
    """Return keys as a table in Markdown."""
    lines = ["| key | type | default | meaning, *source of the default* |", "|---|---|---|---|"]
    for key in keys:
        cells = (f"`{key.name}`", key.kind, key.default, key.says)
        lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return (
        text.replace("|", "\\|").replace("<", "&lt;")
        if "`" not in text
        else text.replace("|", "\\|")
    )


def group_page(group: str) -> str:
    """Return the page of a group: a section with a table for every file that it may be set to."""
    folder = config_folder() / group
    lines = [f"# {GROUPS[group]}", ""]
    lines += [
        f"`{group}=<file>` chooses one of these files of `configs/{group}/`; further keys override "
        "what it says.",
        "",
    ]
    for path in sorted(folder.glob("*.yaml")):
        _, head = file_text(path)
        is_part = path.stem.startswith("_")
        lines += [
            f"## {'part ' if is_part else ''}`{path.stem if is_part else f'{group}={path.stem}'}`",
            "",
        ]
        lines += [_prose(head), ""] if head else []
        if chosen := choices_of(path):
            lines += ["Chooses " + ", ".join(f"`{each}`" for each in chosen) + ".", ""]
        keys = keys_of(group, path)
        lines += [table(keys), ""] if keys else []
    if group == "trainer":
        lines += _other_trainer_keys(
            {key.name for path in folder.glob("*.yaml") for key in keys_of(group, path)}
        )
    return "\n".join(lines)


def choices_of(path: Path) -> list[str]:
    """Return the files of other groups that a file chooses.

    Example:
        >>> choices_of(config_folder() / "method" / "rde.yaml")[0]
        'encoder=clip_vit_b16'
    """
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    found = []
    for entry in content.get("defaults", ()) if isinstance(content, dict) else ():
        if isinstance(entry, dict):
            group, value = next(iter(entry.items()))
            found.append(f"{group.removeprefix('override ').lstrip('/')}={value}")
        elif entry != "_self_":
            found.append(entry)
    return found


def _other_trainer_keys(known: set[str]) -> list[str]:
    rows = [
        Key(f"trainer.{name}", readable(kind), "Lightning's", "")
        for name, kind in ARGUMENTS.items()
        if f"trainer.{name}" not in known
    ]
    refused = [f"| `trainer.{name}` | {why} |" for name, why in REFUSED.items()]
    return [
        *("## Further arguments of Lightning's Trainer", "", table(rows), ""),
        *("## Refused", "", "| key | why, and what instead |", "|---|---|", *refused, ""),
    ]


def _prose(text: str) -> str:
    return text.replace("<", "&lt;").replace("[", "\\[").replace("*", "\\*")


def first_page() -> str:
    """Return the page of keys that belong to no group, and of what other programs call ours."""
    path = config_folder() / "train.yaml"
    lines = [
        "# Configuration",
        "",
        _prose(file_text(path)[1]),
        "",
        "`crosswalk config show` with the same words as `crosswalk train` prints the result.",
        "A key that no file has, such as one with *the constructor's default*, is added by "
        "`+key=value`.",
        "",
        "## Keys of the run",
        "",
        table(keys_of("", path)),
        "",
        "## Groups",
        "",
        "| group | page |",
        "|---|---|",
        *(f"| `{group}=` | [{title}]({group}.md) |" for group, title in GROUPS.items()),
        "",
        "## What other programs call them",
        "",
        "A key by another program's name is refused, with ours.",
        "",
        "| key | elsewhere |",
        "|---|---|",
    ]
    elsewhere: dict[str, list[str]] = {}
    for name, key in CALLED_ELSEWHERE.items():
        elsewhere.setdefault(key, []).append(f"`{name}`")
    lines += [f"| `{key}` | {', '.join(names)} |" for key, names in elsewhere.items()]
    return "\n".join(lines)


def runs_page() -> str:
    """Return the page of the published and the default runs, ``configs/experiment``."""
    lines = [
        "# Runs by method and data",
        "",
        "`method=` and `data=` together select a file of `configs/experiment/`: the published run, "
        "or the default run on synthetic data. It changes these keys of its groups.",
        "",
    ]
    folder = config_folder() / "experiment"
    for path in sorted(folder.glob("*/*.yaml")):
        method, data = path.parent.name, path.stem
        _, head = file_text(path)
        lines += [f"## {method}, {data}", "", _prose(head), ""]
        lines += ["Chooses " + ", ".join(f"`{each}`" for each in choices_of(path)) + ".", ""]
        found = [
            f"| `{name}` | {_cell(f'`{value}`')} | {_cell(says)} |"
            for name, value, says in leaves(path)
        ]
        if found:
            lines += ["| key | value | source |", "|---|---|---|", *found, ""]
    return "\n".join(lines)
