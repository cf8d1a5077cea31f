"""Where processes that a launcher started meet before they form a group, on one machine or several.

What the first of them writes, the others read: a run goes on from its checkpoint on every process,
and each evaluates the best epoch. And where one cannot begin, such as for want of its data, the
others would wait for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from crosswalk.run.run_folder import PATIENCE, RunFolder, rank_and_launch, store_of

SIGHT = 20.0
"""Seconds that a network file system may take until it shows a file to another machine."""

LONGEST = 1800.0
"""Seconds that those who are ready wait for the others: as long as a process group would."""

INTERVAL = 0.1
"""Seconds between two looks."""


class Meeting:
    """The processes of one launch, by the store that their group will be made from.

    Args:
        store: Of torch.distributed; all processes have it.
        name: Of the launch, since a store may outlive it.
        rank: Of this process.
        world_size: Number of processes.
    """

    def __init__(self, store: Any, name: str, *, rank: int, world_size: int) -> None:  # noqa: ANN401
        self.store, self.name = store, name
        self.rank, self.world_size = rank, world_size

    def see(self, folder: RunFolder, output_dir: str) -> str:
        """Return the ``output_dir`` of the first process, once all see what it wrote.

        It is the first one's for all: where it is not absolute, each has its own working folder.

        Args:
            folder: Of the run, as this process was told, with the record of this session.
            output_dir: Of this process.

        Raises:
            ValueError: On all processes, if one of them does not see the folder.
            RuntimeError: If one does not come.
        """
        if self.rank == 0:
            self._put("begun", json.dumps([_digest(folder), output_dir, platform.node()]))
            blind = [self._get(f"blind/{rank}", rank) for rank in range(1, self.world_size)]
            self._put("verdict", next(filter(None, blind), ""))
        else:
            digest, output_dir, first = json.loads(self._get("begun", 0))
            end = time.monotonic() + SIGHT
            while not (sees := _digest(folder) == digest) and time.monotonic() < end:
                time.sleep(INTERVAL)
            where = f"process {self.rank} on {platform.node()} does not see the run folder"
            why = (
                f"output_dir={output_dir}: {where} {folder.path} that process 0 has made on "
                f"{first}. Every process reads it, to go on and to evaluate the best epoch: set "
                "output_dir to a folder of a file system that all machines share."
            )
            self._put(f"blind/{self.rank}", "" if sees else why)
        if verdict := self._get("verdict", 0):
            raise ValueError(verdict)
        return output_dir

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """Tell the others if this process cannot begin, else wait until they can.

        Raises:
            RuntimeError: If another one cannot.
        """
        try:
            yield
        except Exception as error:
            self._put("failed", f"process {self.rank} on {platform.node()} cannot begin: {error}")
            raise
        self.store.add(self._key("ready"), 1)
        end = time.monotonic() + LONGEST
        while self.store.add(self._key("ready"), 0) < self.world_size:
            if self.store.check([self._key("failed")]):
                raise RuntimeError(f"{self._get('failed', 0)} So this one ends, too.")
            if time.monotonic() > end:
                raise RuntimeError(
                    f"not all of {self.world_size} processes were ready within {LONGEST:.0f} s. "
                    "The output of the others says why."
                )
            time.sleep(INTERVAL)

    def _key(self, name: str) -> str:
        return f"crosswalk/{self.name}/{name}"

    def _put(self, name: str, value: str) -> None:
        self.store.set(self._key(name), value)

    def _get(self, name: str, rank: int) -> str:
        try:
            return str(self.store.get(self._key(name)).decode())
        except RuntimeError as error:
            raise RuntimeError(
                f"process {rank} did not come within {PATIENCE} s, or is gone. Its own output "
                "says why."
            ) from error


def _digest(folder: RunFolder) -> str:
    """Return a digest of the record, which is of this session alone; nothing where none is."""
    try:
        return hashlib.sha256(folder.record_file.read_bytes()).hexdigest()
    except OSError:
        return ""


def meeting_of(environment: Mapping[str, str]) -> Meeting | None:
    """Return the meeting of the processes that torchrun or Slurm started; None without them."""
    rank, launch = rank_and_launch(environment)
    if launch is None:
        return None
    name = "WORLD_SIZE" if "TORCHELASTIC_RUN_ID" in environment else "SLURM_NTASKS"
    return Meeting(store_of(environment), launch, rank=rank, world_size=int(environment[name]))


@contextmanager
def begun_together(folder: RunFolder, config: dict[str, Any]) -> Iterator[None]:
    """Begin a run on all processes of this launch, or on none.

    Args:
        folder: Of the run, with the record of this session.
        config: The resolved configuration; its ``output_dir`` becomes that of the first process.

    Raises:
        ValueError: If a process does not see the folder.
        RuntimeError: If another process cannot begin.
    """
    meeting = meeting_of(os.environ)
    if meeting is None:
        yield
        return
    config["output_dir"] = meeting.see(folder, config["output_dir"])
    with meeting.beginning():
        yield
