"""All runs of all tables in one folder, each under a name made of its configuration and its code.

Tables share rows: the full method stands in nearly every one. A run therefore belongs to no table;
a finished folder of the same configuration and code is the run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from crosswalk.config.keys import compared
from crosswalk.files import UNFINISHED, lock
from crosswalk.run.code_digest import code_digest
from crosswalk.run.run_folder import RunFolder


def config_digest(config: Mapping[str, Any]) -> str:
    """Return 8 hex digits that change with everything a run's numbers may depend on.

    Args:
        config: The resolved configuration, plain.

    Example:
        >>> run = {"seed": 1, "name": None, "choices": {"logger": "csv"}}
        >>> config_digest(run) == config_digest(run | {"name": "it", "choices": {"logger": "all"}})
        True
        >>> config_digest(run) == config_digest(run | {"seed": 2})
        False
    """
    text = json.dumps(compared(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Pool:
    """The folder of all runs of tables, as seen by the code that it was first asked with.

    Attributes:
        path: ``<output_dir>/ablations``.
        code: Tells the digest of the code that the run of a configuration is made with.

    Example:
        >>> pool = Pool(Path("runs/ablations"), code=lambda config: "0123456789ab")
        >>> config = {"seed": 1, "choices": {"method": "rde", "data": "toy"}}
        >>> pool.folder(config).path.as_posix()
        'runs/ablations/rde-toy-3cfb3e0e-012345'
    """

    path: Path
    code: Callable[[Mapping[str, Any]], str] = code_digest
    _codes: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def code_of(self, config: Mapping[str, Any]) -> str:
        """Return the digest of the code that the run of a configuration is made with."""
        name = config_digest({**config, "seed": None})
        if name not in self._codes:
            self._codes[name] = self.code(config)
        return self._codes[name]

    def run_name(self, config: Mapping[str, Any]) -> str:
        """Return ``name=`` of the run of a configuration."""
        return f"{config_digest(config)}-{self.code_of(config)[:6]}"

    def folder(self, config: Mapping[str, Any]) -> RunFolder:
        """Return where the run of a configuration lies, or will lie."""
        return RunFolder(self.path / f"{_stem(config)}-{self.run_name(config)}")

    def log(self, folder: RunFolder) -> Path:
        """Return the file that a run's output goes to."""
        return self.path / "logs" / f"{folder.name}.log"

    def lock(self, folder: RunFolder) -> FileLock:
        """Return the lock of whoever runs what belongs into ``folder``."""
        return lock(self.path / ".locks" / f"{folder.name}.lock")

    def is_done(self, config: Mapping[str, Any]) -> bool:
        """Return whether the run of a configuration is finished, by this code."""
        folder = self.folder(config)
        return is_whole(folder) and folder.record().get("code") == self.code_of(config)

    def finished(self, config: Mapping[str, Any], *, any_code: bool = False) -> RunFolder | None:
        """Return the finished run of a configuration; None if there is none.

        Args:
            config: The resolved configuration, plain.
            any_code: Whether runs of other code count as well, the newest first.
        """
        if self.is_done(config):
            return self.folder(config)
        return next(iter(self.of_any_code(config)), None) if any_code else None

    def of_any_code(self, config: Mapping[str, Any]) -> list[RunFolder]:
        """Return the finished runs of a configuration, whatever code made them, newest first."""
        paths = self.path.glob(f"{_stem(config)}-{config_digest(config)}-*")
        return newest_first(RunFolder(path) for path in paths)

    def of_method_and_data(self, config: Mapping[str, Any]) -> list[RunFolder]:
        """Return all finished runs of the same method and data, newest first."""
        pattern = f"{_stem(config)}-{'[0-9a-f]' * 8}-*"
        return newest_first(RunFolder(path) for path in self.path.glob(pattern))


def newest_first(folders: Iterable[RunFolder]) -> list[RunFolder]:
    """Return the finished runs among some, the last that ended first."""
    whole = [folder for folder in folders if is_whole(folder)]
    return sorted(whole, key=lambda folder: str(folder.record().get("ended")), reverse=True)


def is_whole(folder: RunFolder) -> bool:
    """Return whether a run trained and was evaluated to its end, by whatever code."""
    return folder.is_finished and folder.results_file.exists()


def remove_half_made(folder: RunFolder) -> None:
    """Remove the folder of a run that was killed before its configuration was in it.

    Raises:
        ValueError: If it holds something else: then it is no such folder.
    """
    if folder.config_file.exists() or not folder.path.exists():
        return
    strange = [path.name for path in folder.path.iterdir() if not _is_unfinished(path)]
    if strange:
        raise ValueError(
            f"{folder.path} holds {', '.join(sorted(strange)[:3])} and no config.yaml, so it is no "
            "run that can go on. Move or delete it and start again."
        )
    shutil.rmtree(folder.path)


def _stem(config: Mapping[str, Any]) -> str:
    choices = config["choices"]
    # a data set in a subfolder of configs/data would have a slash in its name
    return f"{choices['method']}-{choices['data']}"


def _is_unfinished(path: Path) -> bool:
    return path.is_file() and path.name.endswith(UNFINISHED)
