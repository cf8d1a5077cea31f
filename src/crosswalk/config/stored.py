"""What somebody else may have written: read as plain data, and refused where it names other code.

A configuration describes objects by ``_target_``, so building one runs what it names. Of files that
are only opened, the folder of a run, a table, a sweep file, only known names are built.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from crosswalk.config.construct import locate
from crosswalk.config.keys import flatten
from crosswalk.config.search import config_folder, installed, named_folders
from crosswalk.files import load_yaml, read_text
from crosswalk.words import kind_of

LARGEST = 300_000
"""Bytes of a YAML file, and values in it once its aliases are written out."""

DEEPEST = 40
"""Levels of a YAML file; a configuration has about eight."""

LIBRARIES = {
    "torch.nn": ("torch.nn.Module",),
    "torch.optim": ("torch.optim.Optimizer", "torch.optim.lr_scheduler.LRScheduler"),
    "timm.layers": ("torch.nn.Module",),
    "open_clip.transformer": ("torch.nn.Module",),
    "lightning.pytorch.strategies": ("lightning.pytorch.strategies.Strategy",),
    "lightning.pytorch.plugins": ("lightning.pytorch.plugins.Precision",),
}
"""Kinds of classes that may be named, by the part of the library that has to define them."""

FUNCTIONS = (
    "crosswalk.encoders.word_table.file_word_table",
    "crosswalk.encoders.word_table.joined_word_tables",
    "crosswalk.encoders.word_table.missing_word_table",
)
"""Functions that no configuration of ours names, and that yours may."""

KINDS = (
    "torch.nn.Module",  # methods are of this kind, too
    "lightning.pytorch.LightningDataModule",
    "crosswalk.diagnostics.base.Diagnostic",
)
"""Kinds of classes that crosswalk, or a package with configurations, may define to be named."""

NAMED = re.compile(r"""_target_['"]?\s*[:=]\s*['"]?([\w.]+)""")
RESOLVER = re.compile(r"\$\{[^}]*:")
SETTABLE = re.compile(r"\+{0,2}\w+(\.\w+)*")  # Hydra reads more into others: a package behind @

SEQUENCES = (list, tuple, set, frozenset)

_trusts_all: ContextVar[bool] = ContextVar("_trusts_all", default=False)
_trusted: ContextVar[frozenset[str]] = ContextVar("_trusted", default=frozenset())


@contextmanager
def trusting(targets: Iterable[str] | None = None) -> Iterator[None]:
    """Let stored configurations name these targets as well, or any without ``targets``.

    Example:
        >>> with trusting():
        ...     check_stored({"optim": {"_target_": "os.getcwd"}}, "config.yaml")
    """
    named = _trusted.get() | frozenset(targets or ())
    tokens = (_trusts_all.set(_trusts_all.get() or targets is None), _trusted.set(named))
    try:
        yield
    finally:
        _trusts_all.reset(tokens[0])
        _trusted.reset(tokens[1])


def trusts_all() -> bool:
    """Return whether the user trusts whatever is opened, `trusting` without targets."""
    return _trusts_all.get()


def read_yaml(path: Path) -> Any:  # noqa: ANN401
    """Return what a YAML file holds: plain containers and values, nothing looked up or run.

    Raises:
        ValueError: If it is no YAML, too large, too deep, or larger with its aliases written out;
            or if it holds other kinds of values than a configuration, such as sets.

    Example:
        >>> read_yaml(config_folder() / "train.yaml")["seed"]
        1
    """
    text = read_text(path, limit=LARGEST)
    try:
        content = load_yaml(text, before=_check_size)
        _check_plain(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    return content


def check_plain(node: Any, place: str | Path) -> None:  # noqa: ANN401
    """Refuse what a file holds beside tensors unless it is like a configuration.

    YAML and JSON files are refused by their size; objects of a checkpoint may hold each other.

    Args:
        node: Containers and values.
        place: The file, for messages.

    Raises:
        ValueError: If it has other values than text, numbers and truth values, is nested deeper
            than `DEEPEST` levels, or has more than `LARGEST` values once all is written out.

    Example:
        >>> endless = {}
        >>> endless["self"] = endless
        >>> check_plain(endless, "best.ckpt")
        Traceback (most recent call last):
            ...
        ValueError: best.ckpt: what it says of its model is nested deeper than 40 levels.
    """
    begin = f"{place}: what it says of its model"
    waiting, number = [(node, 0)], 0
    while waiting:
        each, depth = waiting.pop()
        number += 1
        if depth > DEEPEST:
            raise ValueError(f"{begin} is nested deeper than {DEEPEST} levels.")
        if number > LARGEST:
            raise ValueError(f"{begin} makes more than {LARGEST} values.")
        if isinstance(each, dict):
            strange = [name for name in each if not isinstance(name, str)]
            if strange:
                raise ValueError(f"{begin} has the name {strange[0]!r:.80}, no text.")
            waiting += [(value, depth + 1) for value in each.values()]
        elif isinstance(each, (list, tuple)):
            waiting += [(value, depth + 1) for value in each]
        elif each is not None and not isinstance(each, (str, int, float)):
            raise ValueError(f"{begin} holds {kind_of(each)}, no plain value.")


def _check_plain(node: Any) -> None:  # noqa: ANN401
    if isinstance(node, (dict, list)):
        for value in [*node, *node.values()] if isinstance(node, dict) else node:
            _check_plain(value)
    elif node is not None and not isinstance(node, (str, int, float, date)):
        raise ValueError(f"{node!r:.80} is {kind_of(node)}; write a list or entries by name")


def _check_size(text: str, loader: Any) -> None:  # noqa: ANN401
    """Refuse what would take long to load, from the events of the parser, without recursion."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, Loader=loader):
        size = 1
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"*{event.anchor} is no value, or holds itself")
            size = sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, 0))
            if len(open_nodes) > DEEPEST:
                raise ValueError(f"it is nested deeper than {DEEPEST} levels")
            continue
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop()
            size += 1
            if anchor is not None:
                sizes[anchor] = size
        elif isinstance(event, yaml.ScalarEvent):
            if event.anchor is not None:
                sizes[event.anchor] = 1
        else:
            continue
        anchor, before = open_nodes.pop()
        open_nodes.append((anchor, before + size))
        if before + size > LARGEST:
            raise ValueError(f"its aliases make more than {LARGEST} values of it")


def targets_of(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Return the dotted key and the value of every ``_target_``.

    Example:
        >>> list(targets_of({"optim": {"rules": [{"_target_": "os.system"}]}}))
        [('optim.rules.0._target_', 'os.system')]
    """
    pairs: Iterable[tuple[Any, Any]] = ()
    if isinstance(node, Mapping):
        pairs = node.items()
    elif isinstance(node, SEQUENCES):
        pairs = enumerate(node)
    for name, value in pairs:
        inner = f"{key}.{name}" if key else f"{name}"
        if inner.rpartition(".")[2].lstrip("+~") == "_target_":
            yield inner, value
        yield from targets_of(value, inner)


def check_stored(config: Mapping[str, Any], place: str | Path) -> None:
    """Refuse a stored configuration that names code beyond what is known, or that is not plain.

    Known are classes and functions that the configurations of crosswalk, of installed packages
    (entry point ``crosswalk.configs``) and of folders named by ``--config-dir`` name; methods,
    data, modules and diagnostics that crosswalk and those packages define; and listed kinds of
    classes of torch, timm, open_clip and lightning.

    Args:
        config: Plain containers.
        place: The file, for messages.

    Raises:
        ValueError: What is refused; the message names its key.

    Example:
        >>> check_stored({"loss": {"_target_": "os.system"}}, "runs/x/config.yaml")
        Traceback (most recent call last):
            ...
        ValueError: runs/x/config.yaml: loss._target_='os.system' is none of the classes and \
        functions that a stored configuration may name, so nothing was run. Look at the file; if \
        you trust it, repeat the command with --trust (in Python: the argument `trust`).
    """
    if _trusts_all.get():
        return
    for key, value in _texts(config):
        if "${" in value:
            raise ValueError(
                f"{place}: {key}={value!r} holds an interpolation; stored configurations are "
                "plain. Write the value itself."
            )
        _check_not_fetched(key, value, place)
    for key, target in targets_of(config):
        _check_target(key, target, place)
    _check_stage_keys(config, place)


def _check_not_fetched(key: str, value: str, place: str | Path) -> None:
    """Refuse weights of the hub: to look at a stored configuration reaches no network."""
    if key.rpartition(".")[2].lstrip("+") == "checkpoint" and value.startswith("hf:"):
        raise ValueError(
            f"{place}: {key}={value} would be fetched; name its folder, or repeat the command with "
            "--trust."
        )


def _check_stage_keys(config: Mapping[str, Any], place: str | Path) -> None:
    """Refuse keys of ``stage.overrides`` that are more than keys where the stage is composed."""
    for key in flatten(config):
        name = key.lstrip("+").partition("stage.overrides.")
        if name[1] and not name[0] and not SETTABLE.fullmatch(name[2]):
            raise ValueError(f"{place}: {key} is no key of a stage: names joined by dots.")


def _check_target(key: str, target: object, place: str | Path) -> None:
    if not (isinstance(target, str) and _is_known(target)):
        raise ValueError(
            f"{place}: {key}={target!r} is none of the classes and functions that a stored "
            "configuration may name, so nothing was run. Look at the file; if you trust it, "
            "repeat the command with --trust (in Python: the argument `trust`)."
        )


def check_overrides(overrides: Iterable[Any], place: str | Path) -> None:
    """Refuse overrides of a table or a sweep file that name code beyond what is known.

    Args:
        overrides: Parsed by Hydra.
        place: The file, for messages.

    Raises:
        ValueError: As `check_stored`.
    """
    if _trusts_all.get():
        return
    for override in overrides:
        if override.is_delete():
            continue
        given = {override.key_or_group: override.value()}
        for key, value in _texts(given):
            if RESOLVER.search(value):
                raise ValueError(
                    f"{place}: {key}={value!r} looks something up; write the value itself, or "
                    "repeat the command with --trust."
                )
            _check_not_fetched(key, value, place)
        for key, target in targets_of(given):
            _check_target(key, target, place)
        _check_stage_keys(given, place)


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:  # noqa: ANN401
    if isinstance(node, str):
        yield key, node
    elif isinstance(node, (Mapping, *SEQUENCES)):
        for name, value in node.items() if isinstance(node, Mapping) else enumerate(node):
            yield from _texts(value, f"{key}.{name}" if key else f"{name}")


def _is_known(target: str) -> bool:
    packages = {"crosswalk", *(_top(entry.value) for entry in installed())}
    if target in (*_trusted.get(), *FUNCTIONS) or target in _named(named_folders()):
        return True
    for part, kinds in LIBRARIES.items():
        if target.startswith(f"{part}."):
            return _is_of_kind(target, part, kinds)
    if _top(target) in packages and "__main__" not in target:
        return _is_of_kind(target, _top(target), KINDS, by_its_name=True)
    return False


def _top(name: str) -> str:
    return re.split(r"[.:]", name)[0]


@cache
def _named(folders: tuple[Path, ...]) -> frozenset[str]:
    """Return all targets in the files of these folders, and in the tables of the package."""
    places = [*folders, config_folder().parent / "experiments"]
    files = [path for place in places for path in place.rglob("*.yaml")]
    return frozenset(name for path in files for name in NAMED.findall(path.read_text("utf-8")))


def _is_of_kind(target: str, part: str, kinds: Iterable[str], *, by_its_name: bool = False) -> bool:
    """Return whether a target is a class of these kinds that ``part`` of a package defines.

    Args:
        target: Its dotted path.
        part: Where it has to be defined: what a module only imports does not count.
        kinds: Dotted paths of base classes.
        by_its_name: Whether the path must be the one that the class itself says.
    """
    try:
        found: Any = locate(target, "")
    except (ValueError, ImportError):
        return False
    if not isinstance(found, type) or not f"{found.__module__}.".startswith(f"{part}."):
        return False
    if by_its_name and f"{found.__module__}.{found.__qualname__}" != target:
        return False
    return any(issubclass(found, locate(kind, "")) for kind in kinds)  # type: ignore[arg-type]
