"""Runs a function on several gloo processes of this machine."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import pickle
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

REPOSITORY = Path(__file__).resolve().parents[2]

PRELOADED = ("lightning.pytorch", "torchmetrics", "open_clip", "tests.end_to_end.prepared")
"""Seconds to import; processes are forked from one that has."""


def _be_one_process(
    rank: int,
    world_size: int,
    folder: str,
    port: int,
    timeout: float,
    function: Callable[..., Any],
    args: bytes,
) -> None:
    traces = Path(folder, f"{rank}.traces").open("w")  # noqa: SIM115  # open to the end
    faulthandler.dump_traceback_later(0.9 * timeout, file=traces)  # tells where it hangs
    torch.set_num_threads(1)
    # workers of data loaders: from a fork server of this process they would take seconds each
    multiprocessing.set_start_method("fork", force=True)
    # Lightning reads these: with LOCAL_RANK set, Trainer(devices=world_size, strategy="ddp")
    # joins the group below instead of starting processes of its own.
    os.environ |= {
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=180),
    )
    try:
        outcome = (True, function(*pickle.loads(args)))
    except BaseException:
        outcome = (False, traceback.format_exc())
    unfinished = Path(folder, f"{rank}.unfinished")
    torch.save(outcome, unfinished)
    unfinished.rename(Path(folder, f"{rank}.pt"))
    if outcome[0]:
        torch.distributed.destroy_process_group()


def run_on_processes(
    function: Callable[..., Any], world_size: int, *args: object, timeout: float = 240.0
) -> list[Any]:
    """Return what ``function(*args)`` returns on each of ``world_size`` processes, in rank order.

    Every call gets new processes, forked from a server that has imported what takes seconds, so a
    call costs a fraction of a second after the first. They form one gloo group.

    Args:
        function: Defined at the top level of a module; it is imported anew in each process.
        world_size: Number of processes.
        args: Picklable; tensors are copied.
        timeout: Seconds after which all processes are ended and the test fails.

    Raises:
        RuntimeError: With the traceback of every process that failed.
    """
    if str(REPOSITORY) not in sys.path:
        sys.path.insert(0, str(REPOSITORY))  # the processes import the test's module by its name
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED])
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        processes = [
            context.Process(
                target=_be_one_process,
                args=(rank, world_size, folder, port, timeout, function, pickle.dumps(args)),
            )
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        end = time.monotonic() + timeout
        try:
            for process in processes:
                process.join(max(0.0, end - time.monotonic()))
        finally:  # they may have children of their own, so they are no daemons
            for process in processes:
                if process.is_alive():
                    process.kill()
                    process.join()
        outcomes = [
            torch.load(path, weights_only=False)
            if (path := Path(folder, f"{rank}.pt")).exists()
            else (
                False,
                f"no result within {timeout} s; exit code {process.exitcode}\n"
                + Path(folder, f"{rank}.traces").read_text(),
            )
            for rank, process in enumerate(processes)
        ]
    failures = [f"process {rank}: {what}" for rank, (fine, what) in enumerate(outcomes) if not fine]
    if failures:
        raise RuntimeError("\n".join(failures))
    return [result for _, result in outcomes]
