"""Processes of a launch, here threads with one store, meet before they begin."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch.distributed as dist

from crosswalk.files import write_text
from crosswalk.run import meeting
from crosswalk.run.meeting import Meeting
from crosswalk.run.run_folder import RunFolder


def of_all(world_size: int, act: Callable[[Meeting], object]) -> list[object]:
    """Return what each process of a launch returns or raises, by rank."""
    store = dist.HashStore()
    outcomes: list[object] = [None] * world_size

    def be(rank: int) -> None:
        try:
            outcomes[rank] = act(Meeting(store, "it", rank=rank, world_size=world_size))
        except (ValueError, RuntimeError) as error:
            outcomes[rank] = error

    threads = [threading.Thread(target=be, args=(rank,)) for rank in range(world_size)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return outcomes


def run_in(folder: Path, began: str = "now") -> RunFolder:
    folder.mkdir(exist_ok=True)
    run = RunFolder(folder)
    write_text(run.record_file, f'{{"status": "running", "started": "{began}"}}')
    return run


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_all_take_the_output_folder_of_the_first(world_size: int, tmp_path: Path) -> None:
    run = run_in(tmp_path)

    taken = of_all(world_size, lambda each: each.see(run, f"/of/{each.rank}"))

    assert taken == ["/of/0"] * world_size


@pytest.mark.parametrize("stale", [False, True])
def test_none_begins_where_one_does_not_see_the_run(
    stale: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meeting, "SIGHT", 0.0)
    run, elsewhere = run_in(tmp_path / "run"), RunFolder(tmp_path / "elsewhere")
    if stale:
        run_in(elsewhere.path, began="before")

    refusals = of_all(3, lambda each: each.see(elsewhere if each.rank == 2 else run, "runs"))

    assert all(isinstance(each, ValueError) for each in refusals)
    assert len({str(each) for each in refusals}) == 1
    assert str(refusals[0]).startswith("output_dir=runs: process 2 on ")
    assert "set output_dir to a folder of a file system that all machines share" in str(refusals[0])


def test_none_begins_where_one_cannot() -> None:
    def begin(each: Meeting) -> str:
        with each.beginning():
            if each.rank == 1:
                raise ValueError("data.root=/datasets is no folder.")
        return "begun"

    outcomes = [str(each) for each in of_all(3, begin)]

    assert outcomes[1] == "data.root=/datasets is no folder."
    for each in (outcomes[0], outcomes[2]):
        assert each.startswith("process 1 on ")
        assert each.endswith(
            "cannot begin: data.root=/datasets is no folder. So this one ends, too."
        )


def test_whoever_is_ready_waits_for_the_others() -> None:
    done = threading.Event()

    def begin(each: Meeting) -> bool:
        with each.beginning():
            if each.rank == 1:
                while each.store.add("crosswalk/it/ready", 0) < 2:  # the others are
                    time.sleep(0.01)
                done.set()
        return done.is_set()

    assert of_all(3, begin) == [True] * 3
