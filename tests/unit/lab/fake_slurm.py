"""Stands for Slurm's commands as submitit uses them; jobs are processes of this machine.

``$FAKE_SLURM`` is a folder with a file for each job: ``<id>.json`` with what sbatch was asked for,
``<id>.end`` with its exit status.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

STATE = Path(os.environ.get("FAKE_SLURM", "."))
COMMANDS = ("sbatch", "srun", "sacct", "squeue")


def install(folder: Path) -> dict[str, str]:
    """Return the environment in which the commands are found.

    submitit remembers how a job of a number ended, for a process as a whole; here numbers begin
    again with each folder.
    """
    if (submitit := sys.modules.get("submitit")) is not None:
        submitit.SlurmJob.watcher.clear()
    (folder / "bin").mkdir(parents=True)
    for name in COMMANDS:
        path = folder / "bin" / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} "$@"\n')
        path.chmod(0o755)
    (folder / "jobs").mkdir()
    return {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "FAKE_SLURM": str(folder / "jobs"),
    }


def sbatch(file: str) -> None:
    flags = re.findall(r"^#SBATCH --([\w-]+)=(.*)$", Path(file).read_text(), re.MULTILINE)
    asked = dict(flags)
    job = str(1 + len(list(STATE.glob("*.json"))))
    (STATE / f"{job}.json").write_text(json.dumps(asked))
    nodes, tasks = int(asked.get("nodes", 1)), int(asked.get("ntasks-per-node", 1))
    shape = {"SLURM_JOB_ID": job, "SLURM_JOB_NUM_NODES": str(nodes)}
    shape |= {"SLURM_NTASKS": str(nodes * tasks), "SLURM_NTASKS_PER_NODE": str(tasks)}
    shape |= {"SLURM_JOB_NAME": asked["job-name"]}
    subprocess.Popen(
        [sys.executable, __file__, "batch", job, file],
        env={**os.environ, **shape},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    print(f"Submitted batch job {job}")


def batch(job: str, file: str) -> None:
    (STATE / f"{job}.end").write_text(str(subprocess.call(["bash", file])))


def srun(*words: str) -> None:
    rest = list(words)
    output = ""
    while rest[0].startswith("--"):
        flag = rest.pop(0)
        if flag == "--output":
            output = rest.pop(0)
    per_node = int(os.environ["SLURM_NTASKS_PER_NODE"])
    tasks = []
    for rank in range(int(os.environ["SLURM_NTASKS"])):
        place = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank % per_node)}
        place |= {"SLURM_NODEID": str(rank // per_node)}
        log = output.replace("%j", os.environ["SLURM_JOB_ID"]).replace("%t", str(rank))
        with open(log, "a") as file:
            tasks.append(
                subprocess.Popen(rest, env={**os.environ, **place}, stdout=file, stderr=file)
            )
    sys.exit(max(task.wait() != 0 for task in tasks))


def state_of(job: str) -> str:
    end = STATE / f"{job}.end"
    if not end.exists():
        return "RUNNING"
    return "COMPLETED" if end.read_text() == "0" else "FAILED"


def sacct(*words: str) -> None:
    print("JobID|State|NodeList")
    for job in [word for before, word in pairwise(words) if before == "-j"]:
        print(f"{job}|{state_of(job)}|here")


def squeue(*words: str) -> None:
    job = words[-1].partition("=")[2]
    if state_of(job) == "RUNNING":
        print("RUNNING")


if __name__ == "__main__":
    {each.__name__: each for each in (sbatch, batch, srun, sacct, squeue)}[sys.argv[1]](
        *sys.argv[2:]
    )
