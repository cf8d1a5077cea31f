"""The import directions of the design, read from the source."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "crosswalk"
MODULES = sorted(SOURCE.rglob("*.py"))

# The rooms of the house, from the ground up: a room imports from rooms further down, never upward.
STOREYS = (
    ("ranges", "words", "types", "host", "compiled"),
    (
        "files",
        "image_files",
        "distributed",
        "nearest",
        "draws",
        "byte_pairs",
        "progress",
        "terminal",
        "optim",
    ),
    ("weight_files", "cache_folder", "network", "pages", "neighbours"),
    ("losses", "labels", "memory", "encoders", "metrics", "synthetic", "importers"),
    ("methods", "data", "config"),
    ("run",),
    ("diagnostics",),
    ("doctor", "lab", "use"),
    ("gallery",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
STOREY = {room: number for number, rooms in enumerate(STOREYS) for room in rooms}
ALONE = {"synthetic": (), "importers": ("weight_files",)}
"""Rooms that import nothing of the rest, but for these."""
PURE = (
    *("losses", "labels", "nearest", "neighbours", "memory"),
    *("metrics/ranking", "metrics/counting", "metrics/reranking"),
)
ONLY_IN = {
    "torch.distributed": ("distributed",),
    "omegaconf": ("config",),
    "hydra": ("config",),
    "wandb": ("run/tracking", "run/callbacks/ranking_lists", "lab/sweeps/server"),
    "torchmetrics": ("metrics/retrieval",),
    "lightning": (*("run", "diagnostics", "methods", "data", "optim", "config"),),
}
LOOKS_AT_RUNS = (
    *("lab/report", "lab/compare", "diagnostics", "config", "data/readers", "data/contents"),
    *("run/run_folder", "run/results", "run/ranking_lists"),
)
"""What reads finished runs and configurations: it waits for no library that only a run needs."""
SLOW = (
    "torch",
    "torchvision",
    "torchmetrics",
    "lightning",
    "sklearn",
    "scipy",
    "timm",
    "open_clip",
)


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").as_posix()


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def imports_at_once(path: Path) -> Iterator[str]:
    """Yield what is imported with a module: not within functions, nor for type checkers alone."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)


def names_of(expressions: list[ast.expr]) -> set[str]:
    return {
        node.id for each in expressions for node in ast.walk(each) if isinstance(node, ast.Name)
    }


def is_within(name: str, folders: tuple[str, ...]) -> bool:
    return any(name == folder or name.startswith(f"{folder}/") for folder in folders)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_rooms_below_its_own(path: Path) -> None:
    room = name_of(path).split("/")[0]
    if room == "__init__":
        return
    assert room in STOREY, f"give {room} a storey"

    for line, module in imports_of(path):
        target = module.split(".")[1] if module.startswith("crosswalk.") else room
        if target in (room, "__version__"):
            continue
        alone = room in ALONE and target not in ALONE[room]
        assert not alone, f"{path}:{line}: {room} stands alone and imports {module}"
        assert STOREY[target] < STOREY[room], f"{path}:{line}: {room} imports {module}"


def test_modules_import_each_other_in_no_circle() -> None:
    names = {name_of(path).replace("/", "."): path for path in MODULES}
    imports: dict[str, set[str]] = {
        name: {
            known
            for _, module in imports_of(path)
            for known in (module.removeprefix("crosswalk."), module[10:].rpartition(".")[0])
            if module.startswith("crosswalk.") and known in names and known != name
        }
        for name, path in names.items()
    }

    order = TopologicalSorter(imports).static_order()

    assert len(list(order)) == len(names)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_library_is_imported_only_where_it_belongs(path: Path) -> None:
    for line, module in imports_of(path):
        for library, folders in ONLY_IN.items():
            if module == library or module.startswith(f"{library}."):
                assert is_within(name_of(path), folders), f"{path}:{line}: imports {module}"


def test_what_looks_at_finished_runs_imports_nothing_slow_at_once() -> None:
    files = {f"crosswalk.{name_of(path).replace('/', '.')}": path for path in MODULES}
    waiting = [(name,) for name, path in files.items() if is_within(name_of(path), LOOKS_AT_RUNS)]
    seen: set[str] = set()
    slow = []

    while waiting:
        chain = waiting.pop()
        if chain[-1] not in files:
            slow += [" -> ".join(chain)] * (chain[-1].split(".")[0] in SLOW)
        elif chain[-1] not in seen:
            seen.add(chain[-1])
            for name in imports_at_once(files[chain[-1]]):
                module = name if name in files else name.rpartition(".")[0]
                waiting.append((*chain, module if module in files else name))

    assert seen
    assert not slow


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_pure_layers_know_no_framework_and_no_processes(path: Path) -> None:
    if not is_within(name_of(path), PURE):
        return
    for line, module in imports_of(path):
        forbidden = module.startswith(("lightning", "crosswalk.distributed", "torchmetrics"))
        assert not forbidden, f"{path}:{line}: imports {module}"


def test_methods_do_not_import_each_other() -> None:
    for path in (SOURCE / "methods").glob("*.py"):
        for line, module in imports_of(path):
            if module.startswith("crosswalk.methods."):
                assert module.startswith("crosswalk.methods.base."), f"{path}:{line}: {module}"


def test_encoders_use_distribution_only_for_batch_statistics() -> None:
    users = {
        path.stem
        for path in (SOURCE / "encoders").glob("*.py")
        for _, module in imports_of(path)
        if module.startswith("crosswalk.distributed")
    }

    assert users <= {"batch_norm", "shared_statistics"}


def test_readers_do_not_import_torch() -> None:
    for path in (SOURCE / "data" / "readers").glob("*.py"):
        for line, module in imports_of(path):
            assert not module.startswith(("torch", "numpy", "PIL")), f"{path}:{line}: {module}"


def test_packages_do_not_reexport() -> None:
    for path in SOURCE.rglob("*/__init__.py"):
        assert not list(imports_of(path)), f"{path} imports; one name has one import path"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_public_function_of_a_pure_layer_has_an_example(path: Path) -> None:
    if not is_within(name_of(path), PURE):
        return
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        if isinstance(node, ast.ClassDef) and names_of(node.bases) & {"Protocol", "NamedTuple"}:
            continue
        docstring = ast.get_docstring(node) or ""
        assert ">>>" in docstring, f"{path}:{node.lineno}: {node.name} has no doctested Example"


def test_no_committed_file_names_a_folder_of_one_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("this is no git clone, so there is no list of committed files")
    machine_path = re.compile(
        r"(?<![\w./~-])/(?:home|root|Users|work|mnt)/(?!me\b)\w+|[A-Z]:\\Users"
    )

    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".npz", ".png", ".jpg", ".gz"} or not path.is_file():
            continue
        if path == Path(__file__):
            continue
        found = machine_path.search(path.read_text(encoding="utf-8", errors="replace"))
        assert found is None, f"{name}: {found.group() if found else ''}"
