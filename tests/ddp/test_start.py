"""Runs of no epoch: what they start from is evaluated, on one process and on several."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

from crosswalk.run import train as training
from crosswalk.run.run_folder import RunFolder
from tests.end_to_end.small_runs import run_small, small_run, train
from tests.end_to_end.toy_run import from_fork_server


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def train_as_torchrun_starts(rank: int, port: int, overrides: list[str], cache: str) -> None:
    """Be one of two processes of torchrun; the first writes what it starts from slowly."""
    os.environ |= {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "ROLE_RANK": str(rank)},
        **{"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "ROLE_WORLD_SIZE": "2"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "none"},
        **{"TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_MAX_RESTARTS": "0"},
    }
    save = training.save_encoder

    def save_slowly(*arguments: Any, **options: Any) -> None:  # noqa: ANN401
        time.sleep(3)  # the other process waits for no file meanwhile
        save(*arguments, **options)

    training.save_encoder = save_slowly
    train(overrides, cache)


def test_the_configured_weights_are_evaluated_and_again_by_two_processes_that_start_from_them(
    tmp_path: Path,
) -> None:
    overrides, cache = small_run("mmcl", "trainer.max_epochs=0"), tmp_path / "cache"

    code, alone = run_small(overrides, tmp_path / "alone", cache)
    words = [*overrides, f"checkpoint={alone.start_weights}", "trainer.devices=2", "name=it"]
    words.append(f"output_dir={tmp_path}")
    port = free_port()
    processes = [
        from_fork_server(train_as_torchrun_starts, rank, port, words, str(cache))
        for rank in range(2)
    ]
    for process in processes:
        process.join(300)

    assert [process.exitcode for process in processes] == [0, 0]
    (folder,) = tmp_path.glob("mmcl-*-it")
    results = alone.results()
    assert code == 0
    assert list(results) == ["start"]
    assert results["start"]["epoch"] == 0
    assert 0 < results["start"]["test/map"] < 1
    assert RunFolder(folder).results() == results
