"""Stands for `crosswalk train` where only starting and ending matter; the row says what to do.

``+do=finish`` leaves a finished run, ``fail`` ends with a message, ``die`` kills itself, ``hang``
goes on until it is stopped, ``stumble`` is killed half-way and finishes when it goes on,
``nothing`` ends well and leaves no results, ``other`` is finished by other code, ``wait`` finishes
when there is a file ``go`` in the pool.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from crosswalk.files import lock
from crosswalk.run.processes import end_with_parent

NOW = "2026-01-01T10:00:00+00:00"


def config_of(seed: int, **more: object) -> dict:
    return {
        "seed": seed,
        "choices": {"method": "rde", "data": "toy", "logger": "csv"},
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "devices": 1, "num_nodes": 1},
        "logger": {"wandb": None},
        "tags": [],
        "stage": None,
        **more,
    }


def main() -> None:
    end_with_parent()
    words = dict(word.lstrip("+").split("=", 1) for word in sys.argv[1:])
    do, pool = words["do"], Path(words["output_dir"])
    folder = pool / f"rde-toy-{words['name']}"
    resumes = words.get("resume") == "true"
    with (pool / "calls.yaml").open("a") as file:
        called = {"row": int(words["row"]), "seed": int(words["seed"]), "resumes": resumes}
        called |= {"pid": os.getpid(), "threads": os.environ.get("OMP_NUM_THREADS")}
        called |= {"devices": os.environ.get("CUDA_VISIBLE_DEVICES")}
        called |= {"rank": os.environ.get("SLURM_PROCID")}
        file.write(f"---\n{json.dumps(called)}\n")
    if os.environ.get("SLURM_PROCID", "0") != "0":
        return
    num_tasks = int(os.environ.get("SLURM_NTASKS", "1"))
    while num_tasks > 1 and (pool / "calls.yaml").read_text().count("---") < num_tasks:
        time.sleep(0.01)  # the tasks of a run wait for each other
    folder.mkdir(exist_ok=resumes)
    config = config_of(int(words["seed"]), do=do, row=int(words["row"]))
    (folder / "config.yaml").write_text(json.dumps(config))
    held = lock(folder / ".lock")
    held.acquire(timeout=1)
    print("training", flush=True)
    if do == "fail":
        print("a warning\n\ncrosswalk: there are no images", file=sys.stderr)
        sys.exit(2)
    if do == "die" or (do == "stumble" and not resumes):
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "hang":
        time.sleep(600)
    while do == "wait" and not (pool / "go").exists():
        time.sleep(0.01)
    if do == "nothing":
        return
    record = {
        "status": "finished",
        "code": "0ther" if do == "other" else words["code"],
        "commit": None,
        "versions": {},
        "hardware": {},
        "ended": NOW,
        "sessions": [{"started": NOW, "ended": NOW}],
    }
    (folder / "results.json").write_text(json.dumps({"best": {"epoch": 1, "test/rank1": 0.5}}))
    (folder / "run.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main()
