"""Runs of tables and sweeps: what one is, where it lies, and what state its folder is in.

All runs of all tables lie in one folder, each under a name that ends with digests of its
configuration and its code. Tables share rows: the full method stands in nearly every one. A run
therefore belongs to no table, even if it is named for the row that wanted it first; a finished
folder of the same configuration and code is the run.
"""

from __future__ import annotations

import glob
import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from crosswalk.config.keys import compared
from crosswalk.files import UNFINISHED
from crosswalk.run.code_digest import code_digest
from crosswalk.run.run_folder import RunFolder


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One training that a table or a sweep wants.

    Attributes:
        title: The run in words.
        overrides: Of `crosswalk train`, what repeats it anywhere.
        config: The resolved configuration, plain.
        folder: Where it lies, or will lie.
        place: Further overrides, which put it there.
        defaults: Overrides that are weaker than its own.
        note: What is said when it starts.
    """

    title: str
    overrides: tuple[str, ...]
    config: Mapping[str, Any]
    folder: RunFolder
    place: tuple[str, ...]
    defaults: tuple[str, ...] = ()
    note: str = ""

    @property
    def command(self) -> str:
        """What repeats the run alone."""
        return command_of(last_of_each(self.overrides))

    @property
    def identity(self) -> str:
        """What tells it from other runs, whoever wants it."""
        return self.folder.name

    @property
    def kind(self) -> str:
        """What it has in common with runs that take as long."""
        return self.folder.name

    @property
    def log(self) -> Path:
        """The file that its output goes to."""
        return self.folder.path.parent / "logs" / f"{self.folder.name}.log"

    def arguments(self) -> list[str]:
        """Return the overrides that begin the run, or go on with it."""
        goes_on = ["resume=true"] if self.folder.config_file.exists() else []
        return [*self.defaults, *self.overrides, *self.place, *goes_on]


def command_of(overrides: Iterable[str]) -> str:
    """Return the command of a run as one types it.

    Example:
        >>> command_of(["method=rde", "tags=[a b]"])
        "crosswalk train method=rde 'tags=[a b]'"
    """
    return shlex.join(["crosswalk", "train", *overrides])


def last_of_each(overrides: Sequence[str]) -> list[str]:
    """Return overrides without those whose single value a later one of the same key replaces.

    Example:
        >>> last_of_each(["protocol=official", "seed=1", "protocol=val"])
        ['seed=1', 'protocol=val']
    """
    single = re.compile(r"[\w.]+=(?![{\[])")
    last = {word.partition("=")[0]: place for place, word in enumerate(overrides)}
    return [
        word
        for place, word in enumerate(overrides)
        if not single.match(word) or last[word.partition("=")[0]] == place
    ]


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
    _digests: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def code_of(self, config: Mapping[str, Any]) -> str:
        """Return the digest of the code that the run of a configuration is made with."""
        name = config_digest({**config, "seed": None})
        if name not in self._codes:
            self._codes[name] = self.code(config)
        return self._codes[name]

    def run_name(self, config: Mapping[str, Any]) -> str:
        """Return what the names of the folders of a configuration's run end with."""
        return f"{config_digest(config)}-{self.code_of(config)[:6]}"

    def identity(self, config: Mapping[str, Any]) -> str:
        """Return what tells the run of a configuration from others; folders were called so."""
        return f"{stem(config)}-{self.run_name(config)}"

    def folder(self, config: Mapping[str, Any], words: str = "") -> RunFolder:
        """Return where the run of a configuration lies, under whatever name, or will lie.

        Args:
            config: The resolved configuration, plain.
            words: What is run, for people: part of the name of a new folder.
        """
        pattern = f"{glob.escape(stem(config))}-*{self.run_name(config)}"
        found = [RunFolder(path) for path in sorted(self.path.glob(pattern))]
        if found:
            return min(found, key=lambda each: (not is_whole(each), not each.config_file.exists()))
        spelled = re.sub(r"[^A-Za-z0-9_.+=]+", "-", words).strip("-.")
        parts = [stem(config), *([spelled] if spelled else []), self.run_name(config)]
        return RunFolder(self.path / "-".join(parts))

    def place(self, config: Mapping[str, Any], folder: RunFolder) -> tuple[str, ...]:
        """Return the overrides that put the run of a configuration into its folder."""
        return f"output_dir={self.path}", f"name={folder.name.removeprefix(f'{stem(config)}-')}"

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
        """Return the finished runs of a configuration, whatever code made them, newest first.

        What stands in a folder counts, not its name: releases before named classes otherwise.
        """
        digest = config_digest(config)
        whole = newest_first(self._alike(config))
        return [each for each in whole if self._digest(each) == digest]

    def of_method_and_data(self, config: Mapping[str, Any]) -> list[RunFolder]:
        """Return all finished runs of the same method and data, newest first."""
        return newest_first(self._alike(config))

    def _alike(self, config: Mapping[str, Any]) -> list[RunFolder]:
        name = re.compile(rf"{re.escape(stem(config))}-((.+-)?seed\d+-)?[0-9a-f]{{8}}-[^-]+")
        found = self.path.glob(f"{glob.escape(stem(config))}-*")
        return [RunFolder(path) for path in found if name.fullmatch(path.name)]

    def _digest(self, folder: RunFolder) -> str | None:
        if folder.name not in self._digests:
            try:
                self._digests[folder.name] = config_digest(folder.config())
            except (FileNotFoundError, ValueError):  # no run that could be taken
                return None
        return self._digests[folder.name]


def newest_first(folders: Iterable[RunFolder]) -> list[RunFolder]:
    """Return the finished runs among some, the last that ended first."""
    whole = [folder for folder in folders if is_whole(folder)]
    return sorted(whole, key=lambda folder: str(folder.record().get("ended")), reverse=True)


def is_whole(folder: RunFolder) -> bool:
    """Return whether a run trained and was evaluated to its end, by whatever code.

    One whose record is damaged did not; it says so itself when it is to go on.
    """
    try:
        return folder.is_finished and folder.results_file.exists()
    except ValueError:
        return False


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


def seconds_of(folder: RunFolder) -> float:
    """Return how long a run in a folder has run in all its sessions."""
    sessions = folder.record().get("sessions", ())
    return total_seconds(sessions, [line["time"] for line in folder.metrics()])


def total_seconds(sessions: Sequence[Mapping[str, Any]], logged: Sequence[float] = ()) -> float:
    """Return the duration of all sessions of a run; a killed one lasted until it last logged.

    Args:
        sessions: ``started`` and ``ended`` as ISO times; ``ended`` is None after a kill.
        logged: When something was logged, in seconds since 1970.

    Example:
        >>> begin, end = "2026-01-01T10:00:00+00:00", "2026-01-01T10:02:00+00:00"
        >>> total_seconds([{"started": begin, "ended": end}])
        120.0
    """
    total = 0.0
    starts = [datetime.fromisoformat(session["started"]).timestamp() for session in sessions]
    for number, (session, start) in enumerate(zip(sessions, starts, strict=True)):
        if session.get("ended") is not None:
            total += datetime.fromisoformat(session["ended"]).timestamp() - start
            continue
        following = starts[number + 1] if number + 1 < len(starts) else float("inf")
        within = [time for time in logged if start <= time <= following]
        total += max(within, default=start) - start
    return total


def stem(config: Mapping[str, Any]) -> str:
    """Return what the names of run folders begin with: method and data."""
    choices = config["choices"]
    # a data set in a subfolder of configs/data would have a slash in its name
    return f"{choices['method']}-{choices['data']}"


def _is_unfinished(path: Path) -> bool:
    return path.is_file() and (path.name == ".lock" or path.name.endswith(UNFINISHED))
