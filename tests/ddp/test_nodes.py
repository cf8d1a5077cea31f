"""Runs on two machines: torchrun or srun on each, gloo over the network between them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from crosswalk.files import lock
from crosswalk.run.run_folder import RunFolder
from tests.ddp.nodes import (
    CABLE,
    PATIENCE,
    end_well,
    srun,
    start_on,
    torchrun,
    two_nodes,
    wait_for,
)
from tests.ddp.small_fits import (
    Outcomes,
    ask_for,
    assert_equal_to_one_process,
    outcomes_of,
    run_of,
)
from tests.end_to_end.small_runs import METHODS, assert_same_run, small_run

ALWAYS = ("irra", "mmcl")
"""Of pairs, and of images; the others are for whoever has the time."""


@pytest.fixture(scope="session")
def of_two_nodes(shared: Path, cache: Path) -> Outcomes:
    """Return outcomes of two nodes, which train several methods in one launch."""

    def outcomes(method: str) -> list[dict[str, object]]:
        methods = [each for each in METHODS if (each in ALWAYS) == (method in ALWAYS)]
        folder = shared / "two-nodes" / methods[0]
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder / "outcomes.lock"):
            if not (folder / "asked.pt").exists():
                with two_nodes(folder) as nodes:
                    runs = {each: run_of(each, cache, "trainer.num_nodes=2") for each in methods}
                    command = torchrun("-m", "tests.ddp.small_fits", str(folder))
                    ask_for(folder, runs)
                    end_well(start_on(nodes, command, folder))
        return outcomes_of(folder, method, 2)

    return outcomes


@pytest.mark.parametrize(
    "method",
    [pytest.param(each, marks=() if each in ALWAYS else pytest.mark.slow) for each in METHODS],
)
def test_two_nodes_train_what_one_process_trains(
    method: str, of_one_process: Outcomes, of_two_nodes: Outcomes
) -> None:
    found = of_two_nodes(method)

    (alone,) = of_one_process(method)
    for outcome in found:
        assert_equal_to_one_process(alone, outcome)


def training(output_dir: Path | str, *more: str) -> list[str]:
    """Return the module that trains on two nodes, and its words."""
    always = ("checkpoint_every_n_steps=2", "trainer.num_nodes=2", "name=it")
    words = small_run("mmcl", *always, f"output_dir={output_dir}", *more)
    return ["-m", "tests.ddp.train", *words]


def only_run(folder: Path) -> RunFolder:
    (found,) = folder.glob("mmcl-*")
    return RunFolder(found)


@pytest.fixture(scope="session")
def of_srun(shared: Path) -> RunFolder:
    """Return a run of two nodes that srun started, each with its own cache and working folder."""
    folder = shared / "srun"
    folder.mkdir(exist_ok=True)
    with lock(folder / "run.lock"):
        if not (folder / "node-1").exists():
            with two_nodes(folder) as nodes:
                end_well(srun(nodes, [sys.executable, *training("runs")], folder))
    return only_run(folder / "node-1" / "runs")


def test_tasks_of_srun_train_one_run_where_the_first_one_is(of_srun: RunFolder) -> None:
    record, lines = of_srun.record(), of_srun.metrics()

    assert [session["status"] for session in record["sessions"]] == ["finished"]
    assert len(lines) == len({(line["global_step"], tuple(line)) for line in lines})
    assert of_srun.results()["last"]["epoch"] == 2
    working_folders = of_srun.path.parents[2]
    assert [path.name for path in (working_folders / "node-2").iterdir()] == ["cache"]


@pytest.mark.slow
def test_machines_that_do_not_share_the_folder_of_runs_end_before_they_train(
    cache: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    with two_nodes(tmp_path, CROSSWALK_CACHE=str(cache)) as nodes:
        nodes[1].call("mount", "-t", "tmpfs", "none", str(runs))
        running = start_on(nodes, torchrun(*training(runs)), tmp_path)
        statuses = [each.process.wait(PATIENCE) for each in running]

    assert statuses == [1, 1]
    for each in running:
        (line,) = [line for line in each.said().splitlines() if line.startswith("crosswalk: ")]
        assert "process 1 on node-2 does not see the run folder" in line
        assert "set output_dir to a folder of a file system that all machines share" in line
    assert list(runs.iterdir()) == []


@pytest.mark.parametrize(
    ("killed", "cut_off"),
    [
        pytest.param(1, False, id="the second"),
        pytest.param(0, False, id="the first", marks=pytest.mark.slow),
        pytest.param(1, True, id="the second, without a word", marks=pytest.mark.slow),
    ],
)
def test_a_node_ends_when_another_is_killed_and_the_run_goes_on_as_if_it_had_not_been(
    killed: int, cut_off: bool, of_srun: RunFolder, cache: Path, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    wait = {"WAIT_AT": f"{killed},3,{here}"}
    if cut_off:  # nothing says that it is not there any more
        wait["CROSSWALK_TIMEOUT"] = "60"
    with two_nodes(tmp_path, CROSSWALK_CACHE=str(cache), **wait) as nodes:
        running = start_on(nodes, torchrun(*training(tmp_path)), tmp_path)
        wait_for(here, running)
        if cut_off:
            nodes[killed].call("ip", "link", "set", CABLE, "down")
        nodes[killed].kill()
        left = running[1 - killed]
        status = left.process.wait(PATIENCE)

    (line,) = [line for line in left.said().splitlines() if line.startswith("crosswalk: ")]
    assert status == 1
    assert "another process of this run is gone" in line
    assert "The same command with resume=true goes on from the last checkpoint" in line
    with two_nodes(tmp_path, CROSSWALK_CACHE=str(cache)) as nodes:
        end_well(start_on(nodes, torchrun(*training(tmp_path, "resume=true")), tmp_path))
    assert_same_run(only_run(tmp_path), of_srun)
