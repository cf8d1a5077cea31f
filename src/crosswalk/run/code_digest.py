"""Which code a run was made by: of all code, what the run's numbers may depend on.

That is what is reached by imports, static ones within functions included, from the classes and
functions that the configuration names and from `crosswalk.run.train`. What only looks at runs is
left out, and so is what does not change a number: comments, docstrings, messages. So a new
module, a reworded error or another report leaves finished runs finished, and a changed loss does
not.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from crosswalk.config.keys import compared, has_effect
from crosswalk.config.stage import stage_config

PACKAGE = Path(__file__).parents[1]
TRAINING = ("crosswalk.run.train", "crosswalk.config.trainer_arguments")
"""Where every training begins; the second is reached through the check alone."""
LOOKS_ONLY = (
    *("lab", "diagnostics", "doctor", "importers", "cli", "pages", "use"),
    *("files", "cache_folder"),
    *("config.brought", "config.check", "config.choices", "config.compose", "config.constructors"),
    *("config.data_kinds", "config.encoder_kinds", "config.keys", "config.limits"),
    *("config.moved", "config.overrides", "config.paths", "config.plain", "config.search"),
    *("config.starting_weights", "config.values", "config.words"),
    *("config.stage", "run.allocator", "run.code_digest", "run.processes", "run.results"),
    *("run.ranking_lists", "run.run_folder", "run.tracking", "run.wandb_server"),
    *("run.callbacks.progress", "run.callbacks.ranking_lists", "run.callbacks.run_record"),
)
"""Parts of the package that no number of a run depends on, beside its configuration: whatever
composes, checks or compares that, keeps files, or shows something."""

LIBRARIES = frozenset(sys.stdlib_module_names) | {
    *("torch", "torchvision", "lightning", "torchmetrics", "timm", "open_clip", "transformers"),
    *("numpy", "scipy", "sklearn", "PIL", "faiss", "hydra", "omegaconf", "wandb"),
}
"""Packages that are told apart by their versions, which stand in ``run.json``."""

SAYING = ("print", "warn", "warning", "info", "debug")
"""Functions and methods that say something and do nothing else."""


def code_digest(config: Mapping[str, Any], *, package: Path = PACKAGE) -> str:
    """Return 12 hex digits that change when code changes that a run's numbers may depend on.

    The syntax trees of the run's modules are hashed, with the files that these or the
    configuration name: weights in ``assets/``, tables beside a module. The code is read as it is
    on the disk now. Configurations are compared by themselves.

    Args:
        config: The resolved configuration, plain; that of its stage is made from it.
        package: Folder of crosswalk.

    Raises:
        SyntaxError: If a module is in the middle of a change.
    """
    digest = hashlib.sha256()
    for name, content in sorted(_contents(config, package)):
        digest.update(f"{name}\n{content}\n".encode())
    return digest.hexdigest()[:12]


def modules_of(config: Mapping[str, Any], *, package: Path = PACKAGE) -> dict[str, Path]:
    """Return the files of the modules that a run's numbers may depend on, by their names.

    Args:
        config: The resolved configuration, plain.
        package: Folder of crosswalk.
    """
    configs = list(_with_stages(config))
    targets = {target for each in configs for target in _targets(each)}
    folders = {"crosswalk": package} | {
        top: folder
        for top in {target.partition(".")[0] for target in targets} - {"crosswalk"} - LIBRARIES
        if (folder := _folder_of(top)) is not None
    }
    left_out = [f"crosswalk.{part}" for part in LOOKS_ONLY]
    if not any(_generates(each) for each in configs):
        left_out.append("crosswalk.synthetic")
    found: dict[str, Path] = {}
    waiting = {*TRAINING, *targets}
    seen: set[str] = set()
    while waiting:
        seen.add(wanted := waiting.pop())
        for name, path in _chain(wanted, folders):
            if name in found or any(f"{name}.".startswith(f"{part}.") for part in left_out):
                continue
            found[name] = path
            is_package = path.name == "__init__.py"
            module = _module(path, *_state(path))
            waiting |= {*module.imports(name if is_package else name.rpartition(".")[0])} - seen
    return found


class _Module(NamedTuple):
    """What is kept of a file: a digest of its code, the texts in it, and what it imports."""

    digest: str
    texts: frozenset[str]
    absolute: tuple[str, ...]
    relative: tuple[tuple[int, str], ...]

    def imports(self, folder: str) -> list[str]:
        """Return the names of what is imported by the module, which lies in package ``folder``."""
        found = list(self.absolute)
        for level, name in self.relative:
            parts = folder.split(".")
            found.append(".".join([*parts[: len(parts) - level + 1], name]))
        return found


def _contents(config: Mapping[str, Any], package: Path) -> Iterator[tuple[str, str]]:
    """Return every module and every named file of a run with a digest of what is in it."""
    modules = modules_of(config, package=package)
    texts = {
        str(value)
        for each in _with_stages(config)
        for value in _leaves(list(compared(each).values()))
    }
    for name, path in modules.items():
        module = _module(path, *_state(path))
        texts |= module.texts
        yield name, module.digest
    folders = {path.parent for path in modules.values() if path.name == "__init__.py"}
    for folder in folders | {package / "assets"}:
        for path in folder.glob("*"):
            if path.suffix != ".py" and path.is_file() and texts & {path.name, path.stem}:
                yield path.name, _digest_of_file(path, *_state(path))


def _with_stages(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Return a configuration, that of its stage, that of the stage of this, and so on."""
    yield config
    if config.get("stage") is not None and config.get("checkpoint") is None:
        wanted = {"stage": config["stage"], "trainer": config["trainer"]}
        yield from _with_stages(_composed(json.dumps(wanted, sort_keys=True)))


@cache
def _composed(config: str) -> dict[str, Any]:
    return stage_config(json.loads(config))


def _targets(node: Any, key: str = "") -> Iterator[str]:  # noqa: ANN401
    if isinstance(node, Mapping):
        for name, value in node.items():
            if name == "_target_":
                yield str(value)
            elif has_effect(f"{key}{name}") and f"{key}{name}" != "stage":
                yield from _targets(value, f"{key}{name}.")
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value, key)


def _leaves(node: Any) -> Iterator[Any]:  # noqa: ANN401
    if isinstance(node, (Mapping, list)):
        for value in node.values() if isinstance(node, Mapping) else node:
            yield from _leaves(value)
    else:
        yield node


def _generates(node: Any) -> bool:  # noqa: ANN401
    """Return whether a run's data are generated."""
    if isinstance(node, list):
        return any(map(_generates, node))
    if not isinstance(node, Mapping):
        return False
    return node.get("synthetic") is not None or any(map(_generates, node.values()))


@cache
def _folder_of(top: str) -> Path | None:
    """Return the folder of a package, or the file of a module that is no package."""
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # of a program that is no module
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.origin else None


def _chain(name: str, folders: Mapping[str, Path]) -> list[tuple[str, Path]]:
    """Return the module of a dotted name, if it is one of ours, and the packages that it is in."""
    top, *parts = name.split(".")
    place = folders.get(top)
    if place is None:
        return []
    if place.is_file():
        return [(top, place)]
    found = [(top, place / "__init__.py")]
    for number, part in enumerate(parts, 1):
        place = place / part
        dotted = ".".join([top, *parts[:number]])
        if place.is_dir():
            found.append((dotted, place / "__init__.py"))
            continue
        if place.with_suffix(".py").is_file():
            found.append((dotted, place.with_suffix(".py")))
        break
    return [(dotted, path) for dotted, path in found if path.is_file()]


def _state(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_mtime_ns, state.st_size


@cache
def _digest_of_file(path: Path, changed: int, size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def _module(path: Path, changed: int, size: int) -> _Module:
    tree = _WithoutWords().visit(ast.parse(path.read_bytes()))
    absolute: list[str] = []
    relative: list[tuple[int, str]] = []
    texts = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            absolute += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # what is imported from a package may be a module of it
            for each in _names_of(node):
                if node.level:
                    relative.append((node.level, each))
                else:
                    absolute.append(each)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.add(node.value)
    digest = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    return _Module(digest, frozenset(texts), tuple(absolute), tuple(relative))


def _names_of(node: ast.ImportFrom) -> Iterable[str]:
    return (f"{node.module}.{alias.name}" if node.module else alias.name for alias in node.names)


class _WithoutWords(ast.NodeTransformer):
    """Takes out what changes no number: docstrings, messages, imports for types, the release."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """Drop docstrings."""
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> Any:  # noqa: ANN401
        """Drop what only type checkers read."""
        if "TYPE_CHECKING" in (getattr(node.test, "id", ""), getattr(node.test, "attr", "")):
            return [self.visit(each) for each in node.orelse]
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        """Drop the number of the release."""
        names = [getattr(target, "id", "") for target in node.targets]
        return None if names == ["__version__"] else self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        """Drop the message."""
        node.msg = None
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> Any:  # noqa: ANN401
        """Drop the words of an error; that there is one stays."""
        return _Silent().visit(node)

    def visit_Call(self, node: ast.Call) -> Any:  # noqa: ANN401
        """Drop what is printed."""
        name = getattr(node.func, "id", "") or getattr(node.func, "attr", "")
        return _Silent().visit(node) if name in SAYING else self.generic_visit(node)


class _Silent(ast.NodeTransformer):
    """Makes every text empty."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        """Empty a text."""
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        """Empty a text with values in it."""
        return ast.Constant("")
