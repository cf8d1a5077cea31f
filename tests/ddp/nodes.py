"""Two machines made of this one: network namespaces with names of their own, joined by a cable."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ddp.processes import REPOSITORY

CABLE = "cable"
ADDRESSES = {"node-1": "10.213.7.1", "node-2": "10.213.7.2"}
PATIENCE = 280
"""Seconds after which a command has failed."""

HOLD = "read -r pid rest < /proc/self/stat; echo $pid; exec cat"
"""Says its process id outside, and ends with the pipe that it reads: nothing outlives a test."""


@dataclass(frozen=True)
class Running:
    """A command on a node, and where what it says goes."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        """Return what it has said so far."""
        return f"{self.log.name}, status {self.process.poll()}:\n{self.log.read_text()}"


@dataclass(frozen=True)
class Node:
    """One of two machines: a network, a host name, mounts and processes of its own."""

    name: str
    pid: str
    holder: subprocess.Popen[str]
    enter: tuple[str, ...]
    environment: Mapping[str, str]

    def call(self, *words: str) -> None:
        """Run a command there; one that fails is an error."""
        _call(*self.enter, *words)

    def start(
        self,
        words: Sequence[str],
        log: Path,
        *,
        folder: Path = REPOSITORY,
        **environment: str,
    ) -> Running:
        """Start a command there, in ``folder``; what it says is appended to ``log``."""
        place = {
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)]),
            "GLOO_SOCKET_IFNAME": CABLE,
            **{"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        }
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*self.enter, "env", "-C", str(folder), *words],
                env={**os.environ, **place, **self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        return Running(process, log)

    def kill(self) -> None:
        """Kill every process there at once."""
        self.holder.kill()
        self.holder.wait()


def torchrun(*words: str) -> list[str]:
    """Return the command that is given on each of two nodes, for one process on each."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", "node-1:29500", "--rdzv-id", "it", *words),
    ]


def start_on(nodes: Sequence[Node], words: Sequence[str], folder: Path) -> list[Running]:
    """Start a command on each node; what it says goes to a file of ``folder``."""
    return [node.start(words, folder / f"{node.name}.log") for node in nodes]


def srun(nodes: Sequence[Node], words: Sequence[str], folder: Path) -> list[Running]:
    """Start a command as Slurm's does, one task on each node, told its place by the environment.

    Each node has a working folder of its own below ``folder``, and its cache in it.
    """
    number = str(len(nodes))
    job = {"SLURM_JOB_ID": "4213", "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "train"}
    job |= {"SLURM_NTASKS": number, "SLURM_NTASKS_PER_NODE": "1", "SLURM_NODELIST": "node-[1-2]"}
    job |= {"SLURM_NNODES": number, "SLURM_JOB_NUM_NODES": number}
    running = []
    for rank, node in enumerate(nodes):
        place = {"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank), "SLURM_LOCALID": "0"}
        own = folder / node.name
        own.mkdir()
        place |= {"CROSSWALK_CACHE": str(own / "cache")}
        log = folder / f"{node.name}.log"
        running.append(node.start(words, log, folder=own, **job, **place))
    return running


def end_well(running: Sequence[Running]) -> None:
    """Wait for what was started.

    Raises:
        RuntimeError: With what all said, if one does not end well.
    """
    if any([each.process.wait(PATIENCE) for each in running]):
        raise RuntimeError("\n".join(each.said() for each in running))


def wait_for(file: Path, running: Sequence[Running]) -> None:
    """Wait until a process has made a file.

    Raises:
        RuntimeError: With what all said, if one ends before.
    """
    while not file.exists():
        if any(each.process.poll() is not None for each in running):
            raise RuntimeError("\n".join(each.said() for each in running))
        time.sleep(0.1)


@contextmanager
def two_nodes(folder: Path, **environment: str) -> Iterator[list[Node]]:
    """Return two nodes, or skip the test where the system makes none.

    Args:
        folder: Where their table of names is kept.
        environment: Of what is started there, beside the test's.
    """
    missing = [each for each in ("ip", "unshare", "nsenter") if shutil.which(each) is None]
    if missing:
        pytest.skip(f"two nodes need {missing[0]}, which is not installed")
    hosts = folder / "hosts"
    names = [f"{address} {name}\n" for name, address in ADDRESSES.items()]
    hosts.write_text("127.0.0.1 localhost\n" + "".join(names))
    with ExitStack() as ends:
        try:
            _, outside = _held(ends, "unshare", "--map-root-user", "--net")
            nodes = []
            for name in ADDRESSES:
                apart = ("--net", "--uts", "--mount", "--pid", "--fork", "--kill-child")
                holder, pid = _held(ends, *_entering(outside, "-U", "-n"), "unshare", *apart)
                enter = _entering(pid, "-U", "-n", "-u", "-m", "-p")
                nodes.append(Node(name, pid, holder, enter, environment))
            _connect(nodes, _entering(outside, "-U", "-n"), hosts)
        except (OSError, subprocess.CalledProcessError) as error:
            said = str(getattr(error, "stderr", None) or error).strip()
            pytest.skip(f"no network namespaces can be made here: {said}")
        yield nodes


def _held(ends: ExitStack, *words: str) -> tuple[subprocess.Popen[str], str]:
    """Start what holds namespaces; return it, and the id of the process that is in them."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    holder = ends.enter_context(subprocess.Popen([*words, "sh", "-c", HOLD], text=True, **pipes))
    ends.callback(holder.kill)
    pid = holder.stdout.readline().strip()
    if not pid:
        raise OSError(holder.stderr.read())
    return holder, pid


def _entering(pid: str, *namespaces: str) -> tuple[str, ...]:
    return ("nsenter", "--preserve-credentials", "--target", pid, *namespaces)


def _connect(nodes: Sequence[Node], switch: Sequence[str], hosts: Path) -> None:
    """Join the nodes by a switch: one that is gone takes no other's network along."""
    _call(*switch, "ip", "link", "add", "switch", "up", "type", "bridge")
    for node in nodes:
        ends = ("name", CABLE, "netns", node.pid, "type", "veth", "peer", "name", node.name)
        _call(*switch, "ip", "link", "add", *ends)
        _call(*switch, "ip", "link", "set", node.name, "up", "master", "switch")
        node.call("hostname", node.name)
        node.call("mount", "-t", "proc", "proc", "/proc")
        node.call("mount", "--bind", str(hosts), "/etc/hosts")
        node.call("ip", "address", "add", f"{ADDRESSES[node.name]}/24", "dev", CABLE)
        for each in (CABLE, "lo"):
            node.call("ip", "link", "set", each, "up")


def _call(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)
