"""Counts what gloo sends for a sum and for gathering, beside rings: `sums` of ``processes.py``.

``unshare --map-root-user --net python benchmarks/wire.py`` gives it a loopback device of its own,
whose counter the system keeps, with headers; nothing else may use it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from processes import sums
from rows import report

CASES = (("reduced", 1_200_000), ("gathered", 15_000), ("gathered", 150_000))
"""What is handed over, in bytes, as by the steps of the synthetic recipes."""


def bytes_sent() -> int:
    """Return what this machine has sent to itself."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    (loopback,) = [line.partition(":")[2] for line in lines if line.strip().startswith("lo:")]
    return int(loopback.split()[8])


def be(rank: int, world_size: int, port: int, repeats: int) -> None:
    """Be one of the processes; the first prints."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    for kind, size in CASES:
        own = torch.zeros(size // 4)
        gathered = torch.zeros(world_size * len(own))
        counts = []
        for count in (0, repeats):
            for _ in range(count):
                if kind == "reduced":
                    dist.all_reduce(own)
                else:
                    dist.all_gather_into_tensor(gathered, own)
            dist.barrier()
            counts.append(bytes_sent())
            dist.barrier()
        handed = dict.fromkeys(("gradients", "reduced", "gathered", "other"), 0.0) | {kind: size}
        found, rings = (
            (counts[1] - counts[0]) / world_size / repeats,
            sums(handed, world_size)["sent"],
        )
        if rank == 0:
            ratio = f"{found / rings:>7.3f}"
            print(f"{world_size:>9}{kind:>10}{size:>10}{found:>12.0f}{rings:>10.0f}{ratio}")
            name = f"bytes that {world_size} processes send for {size} {kind}"
            report(name, found, rings, against="rings", unit="B", at_most=1.1)
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description="Count what gloo sends.")
    parser.add_argument("--processes", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--repeats", type=int, default=50)
    options = parser.parse_args()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    print(f"{'processes':>9}{'':>10}{'bytes':>10}{'sent':>12}{'rings':>10}{'ratio':>7}")
    for place, world_size in enumerate(options.processes):
        args = (world_size, 29600 + place, options.repeats)
        processes.spawn(be, args, world_size)


if __name__ == "__main__":
    main()
