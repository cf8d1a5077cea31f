"""Where the files of configurations are: the package's, and those of others beside them.

A method, a reader or a table of one's own needs no clone: its files lie in a folder of groups that
``--config-dir`` or ``CROSSWALK_CONFIG_PATH`` names, in ``configs/`` of the working folder, or in an
installed package with an entry point ``crosswalk.configs``. They add to the package's files; a
file of a name that is taken is refused, so that a name means the same everywhere.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from crosswalk.files import load_yaml

PATH_VARIABLE = "CROSSWALK_CONFIG_PATH"
"""Folders of configurations, separated as in PATH; ``--config-dir`` sets it for all processes."""

ENTRY_POINTS = "crosswalk.configs"
"""Entry points of installed packages: the value is a package or a folder of a package."""

PRIMARY = "train.yaml"


def config_folder() -> Path:
    """Return the package's own folder of YAML files: inside it, or beside ``src/`` in a clone.

    Example:
        >>> (config_folder() / "train.yaml").is_file()
        True
    """
    package = Path(__file__).parents[1]
    for folder in (package / "configs", package.parents[1] / "configs"):
        if (folder / PRIMARY).is_file():
            return folder
    raise FileNotFoundError(
        f"no configs/train.yaml inside {package} or beside its src folder. The installation is "
        "incomplete: install crosswalk again, from a wheel or a whole clone."
    )


def config_folders() -> tuple[Path, ...]:
    """Return all folders of configurations, the package's own first.

    Raises:
        FileNotFoundError: If a folder that was named does not exist.
        ValueError: If a folder has a file of the name of another one's.

    Example:
        >>> config_folders()[0] == config_folder()
        True
    """
    if _only_own.get():
        return (config_folder(),)
    return _config_folders(os.environ.get(PATH_VARIABLE, ""), Path.cwd())


_only_own: ContextVar[bool] = ContextVar("_only_own", default=False)


@contextmanager
def only_own_folder() -> Iterator[None]:
    """Compose of the package's files alone: what was published is the same in every folder.

    Example:
        >>> with only_own_folder():
        ...     config_folders() == (config_folder(),)
        True
    """
    token = _only_own.set(True)
    try:
        yield
    finally:
        _only_own.reset(token)


@cache
def _config_folders(named: str, working_folder: Path) -> tuple[Path, ...]:
    folders = [config_folder(), *_given(named)]
    beside = working_folder / "configs"
    # with a train.yaml of its own it is a clone's, or another program's
    if beside.is_dir() and not (beside / PRIMARY).exists():
        folders.append(beside)
    folders += [_folder_of(entry) for entry in installed()]
    different = tuple(dict.fromkeys(folder.resolve() for folder in folders))
    owners: dict[Path, Path] = {}
    for folder in different:
        for path in folder.rglob("*.yaml"):
            name = path.relative_to(folder)
            if name in owners:
                raise ValueError(
                    f"{path} and {owners[name] / name} have one name: {name.parent}="
                    f"{name.stem} would mean either. Rename the first."
                )
            owners[name] = folder
    return different


def named_folders() -> tuple[Path, ...]:
    """Return the folders of configurations without ``configs/`` of the working folder.

    That one may have come with what is opened there; nobody named it.

    Example:
        >>> named_folders()[0] == config_folder()
        True
    """
    given = _given(os.environ.get(PATH_VARIABLE, ""))
    return (config_folder(), *given, *map(_folder_of, installed()))


def installed() -> tuple[EntryPoint, ...]:
    """Return the entry points of installed packages that bring configurations.

    To look for them opens a file of every installed package, so it is done once for a search path.

    Example:
        >>> all(entry.group == "crosswalk.configs" for entry in installed())
        True
    """
    return _installed(tuple(sys.path))


@cache
def _installed(search_path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=ENTRY_POINTS))


def _given(named: str) -> list[Path]:
    folders = [Path(given).expanduser().absolute() for given in named.split(os.pathsep) if given]
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder} does not exist: --config-dir and {PATH_VARIABLE} name folders with "
                "groups in them, such as method/ and experiment/."
            )
    return folders


def _folder_of(entry: EntryPoint) -> Path:
    parent, _, name = entry.value.replace(":", ".").rpartition(".")
    for module, rest in ((entry.value, ""), (parent, name)):
        try:
            spec = importlib.util.find_spec(module) if module else None
        except ModuleNotFoundError:
            continue
        for place in spec.submodule_search_locations or () if spec else ():
            if (Path(place) / rest).is_dir():
                return Path(place) / rest
    raise FileNotFoundError(
        f"the entry point {entry.name} = {entry.value} ({ENTRY_POINTS}) names no folder of an "
        "installed package. Install that package again, or remove it."
    )


def group_folders(group: str) -> list[Path]:
    """Return the existing folders of a group's files."""
    return [folder / group for folder in config_folders() if (folder / group).is_dir()]


def groups() -> list[str]:
    """Return the names of all groups of files that a run is composed of.

    Example:
        >>> "method" in groups(), "sweep" in groups()
        (True, False)
    """
    names = {path.name for folder in config_folders() for path in folder.iterdir() if path.is_dir()}
    return sorted(names - {"sweep"})  # files of W&B, not parts of a run


def group_values(group: str) -> list[str]:
    """Return what ``<group>=`` may be set to; files that begin with ``_`` are parts of others.

    Example:
        >>> "rde" in group_values("method")
        True
    """
    return sorted(
        str(path.relative_to(folder).with_suffix(""))
        for folder in group_folders(group)
        for path in folder.rglob("*.yaml")
        if not path.name.startswith("_")
    )


def read_group_file(group: str, value: str) -> dict[str, Any]:
    """Return one file of a group as it stands, nothing composed.

    Example:
        >>> read_group_file("method", "rde")["method"]["warmup_epochs"]
        0
    """
    for folder in group_folders(group):
        path = folder / f"{value}.yaml"
        if path.is_file():
            content: dict[str, Any] = load_yaml(path.read_text(encoding="utf-8")) or {}
            return content
    folders = ", ".join(map(str, config_folders()))
    raise FileNotFoundError(f"{group}={value} has no file {group}/{value}.yaml in {folders}.")


def file_beside_configs(path: Path) -> Path:
    """Return a file as it is named, or else below the parent of a folder of configurations.

    So ``experiments/<method>/<table>.yaml`` is found in a clone, an installed wheel and packages
    that bring tables of their own.

    Example:
        >>> file_beside_configs(Path("experiments/rde/table2.yaml")).is_file()
        True
        >>> file_beside_configs(Path("nowhere.yaml")).as_posix()
        'nowhere.yaml'
    """
    return next((place for place in beside_configs(path) if place.is_file()), path)


def beside_configs(path: Path) -> list[Path]:
    """Return where a path may lie: as it is named, or below a parent of `config_folders`.

    Example:
        >>> any(place.is_dir() for place in beside_configs(Path("experiments")))
        True
    """
    return [path, *(folder.parent / path for folder in config_folders())]


def default_method() -> str:
    """Return the method that is trained unless one is named.

    Example:
        >>> default_method()
        'rde'
    """
    primary = load_yaml((config_folder() / PRIMARY).read_text(encoding="utf-8"))
    chosen: dict[str, str] = {}
    for entry in primary["defaults"]:
        chosen |= entry if isinstance(entry, dict) else {}
    return chosen["method"]


def small_overrides(method: str) -> list[str]:
    """Return the overrides that make a run of this method take seconds, for tests.

    Example:
        >>> small_overrides("rde")[0]
        'trainer.max_epochs=2'
    """
    return list(read_group_file("method", method).get("small", []))
