"""Runs of no epoch: what they start from is evaluated, on one process and on several."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from crosswalk.run.run_folder import RunFolder
from tests.end_to_end.small_runs import run_small, small_run

ROOT = Path(__file__).parents[2]
SLOW = """
import sys, time
from crosswalk.cli import main
from crosswalk.run import train

save = train.save_encoder

def save_slowly(*arguments, **options):
    time.sleep(5)  # the other process waits for no file meanwhile
    save(*arguments, **options)

train.save_encoder = save_slowly
sys.exit(main(sys.argv[1:]))
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def test_the_configured_weights_are_evaluated_and_again_by_two_processes_that_start_from_them(
    tmp_path: Path,
) -> None:
    overrides, cache = small_run("mmcl", "trainer.max_epochs=0"), tmp_path / "cache"

    code, alone = run_small(overrides, tmp_path / "alone", cache)
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    words = [*overrides, f"checkpoint={alone.start_weights}", "trainer.devices=2", "name=it"]
    torchrun = ["torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    subprocess.run(
        [sys.executable, "-m", *torchrun, str(script), "train", f"output_dir={tmp_path}", *words],
        env={
            **os.environ,
            "CROSSWALK_CACHE": str(cache),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
        },
        check=True,
        timeout=500,
    )

    (folder,) = tmp_path.glob("mmcl-*-it")
    results = alone.results()
    assert code == 0
    assert list(results) == ["start"]
    assert results["start"]["epoch"] == 0
    assert 0 < results["start"]["test/map"] < 1
    assert RunFolder(folder).results() == results
