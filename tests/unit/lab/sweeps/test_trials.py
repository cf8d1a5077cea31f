"""Workers and their trials, which are `fake_train`: what they do is real, only training is not."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import Trial, TrialState

from crosswalk.lab.claims import Claims
from crosswalk.lab.sweeps.search import ask, open_study
from crosswalk.lab.sweeps.trials import LocalSweep, epoch_values
from crosswalk.run.run_folder import RunFolder
from tests.unit.lab.sweeps.small_sweeps import local_sweep, outcome, work

ROOT = Path(__file__).parents[4]
GRID = {"method": "grid", "parameters": {"quality": {"values": [0.2, 0.4, 0.8]}}}
HYPERBAND = {"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 2}}

WORKER = """
import sys
from pathlib import Path
from tests.unit.lab.sweeps.small_sweeps import local_sweep, work
work(local_sweep(Path(sys.argv[1]), *sys.argv[3:], trials=int(sys.argv[2])))
"""


def start_worker(folder: Path, trials: int, *overrides: str) -> subprocess.Popen[bytes]:
    """Start a worker as a process of its own."""
    words = [sys.executable, "-c", WORKER, str(folder), str(trials), *overrides]
    return subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait for something that a process does; fail when it ends before."""
    while not happened():
        if process.poll() is not None:
            assert process.stderr is not None
            raise AssertionError(process.stderr.read().decode())
        time.sleep(0.02)


def run_folder(sweep: LocalSweep, number: int) -> RunFolder:
    return RunFolder(sweep.folder / f"fake-toy-trial-{number:03}")


def sessions_of(sweep: LocalSweep, number: int) -> int:
    return len(run_folder(sweep, number).record()["sessions"])


def test_a_grid_is_run_to_its_end_and_valued_by_the_best_epoch(tmp_path: Path) -> None:
    sweep = local_sweep(tmp_path, trials=3, **GRID)

    said = work(sweep)

    found = {params["quality"]: (state, value) for _, state, value, params in outcome(sweep)}
    expected = {0.2: 0.1875, 0.4: 0.375, 0.8: 0.75}  # after four epochs 15/16 of the quality
    assert found == {key: ("COMPLETE", pytest.approx(value)) for key, value in expected.items()}
    assert re.match(r"\[3/3\] done after \d+ s: trial 2 \(val/rank1 \d+\.\d\d after", said[-1])
    assert work(sweep) == []  # nothing is left to do


def test_a_trial_may_be_best_before_its_last_epoch(tmp_path: Path) -> None:
    sweep = local_sweep(tmp_path, trials=1)
    study = open_study(sweep.folder, sweep.file)
    ask(study, sweep.file, seed=sweep.seed)
    folder = RunFolder(sweep.folder / "fake-toy-trial-000")
    folder.path.mkdir()
    folder.save_config({})
    folder.record_file.write_text(json.dumps({"status": "finished"}))
    folder.results_file.write_text("{}")
    lines = [
        {"step": 0, "epoch": 0, "time": 0, "val/rank1": 0.25},
        {"step": 1, "epoch": 1, "time": 0, "val/rank1": 0.5},
        {"step": 1, "epoch": 1, "time": 0, "train/loss": 3.0},
        {"step": 2, "epoch": 2, "time": 0, "val/rank1": 0.5},
        {"step": 3, "epoch": 3, "time": 0, "val/rank1": "nan"},
        {"step": 4, "epoch": 4, "time": 0, "val/rank1": 0.375},
    ]
    folder.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    said = work(sweep)  # a run that had ended when its worker was killed is not repeated

    (trial,) = open_study(sweep.folder, sweep.file).trials
    assert (trial.value, trial.user_attrs["epoch"]) == (0.5, 2)
    assert len(said) == 1


def test_bad_trials_are_stopped_and_good_ones_go_on(tmp_path: Path) -> None:
    """The last two would never end by themselves, so it is the worker that ends them."""
    sweep = local_sweep(tmp_path, "stuck_from=3", trials=5, **HYPERBAND)

    said = work(sweep)

    results = outcome(sweep)
    qualities = [params["quality"] for _, _, _, params in results]
    # each of the first three is the best so far; the others are not among the better half
    assert qualities[0] < qualities[1] < qualities[2]
    assert all(quality < qualities[1] for quality in qualities[3:])
    assert [state for _, state, _, _ in results] == ["COMPLETE"] * 3 + ["PRUNED"] * 2
    assert [value for _, _, value, _ in results[3:]] == [
        pytest.approx(quality / 2) for quality in qualities[3:]
    ]
    assert said[-1].endswith("after epoch 1, others were better)")


def test_a_trial_that_ended_before_it_was_looked_at_is_judged_all_the_same(
    tmp_path: Path,
) -> None:
    """So whether a trial counts as stopped does not depend on how fast it was."""
    slow, quick = (
        local_sweep(tmp_path / name, f"pause={pause}", trials=5, **HYPERBAND)
        for name, pause in (("slow", 0.05), ("quick", 0.0))
    )

    work(slow)
    work(quick, interval=0.5)

    assert outcome(slow) == outcome(quick)
    assert "PRUNED" in {state for _, state, _, _ in outcome(quick)}


def test_early_termination_with_max_iter_judges_nothing_from_there_on(tmp_path: Path) -> None:
    early = {"type": "hyperband", "max_iter": 4, "s": 1, "eta": 2}  # judged after 2 epochs only
    sweep = local_sweep(tmp_path, "epochs=5", trials=5, early_terminate=early)

    work(sweep)

    study = open_study(sweep.folder, sweep.file)
    assert {trial.last_step for trial in study.trials} == {2, 5}


def test_a_failed_trial_is_noted_with_the_end_of_its_log_and_others_go_on(
    tmp_path: Path,
) -> None:
    parameters = {"quality": {"values": [0.2, -1.0, 0.8]}}
    sweep = local_sweep(tmp_path, trials=3, method="grid", parameters=parameters)

    said = work(sweep)

    states = {params["quality"]: state for _, state, _, params in outcome(sweep)}
    assert states == {0.2: "COMPLETE", -1.0: "FAIL", 0.8: "COMPLETE"}
    place = next(place for place, line in enumerate(said) if "failed" in line)
    assert said[place].endswith("(it ended with status 1)")
    assert said[place + 2] == "  | no such loss"
    study = open_study(sweep.folder, sweep.file)
    errors = [trial.user_attrs.get("error") for trial in study.trials]
    assert errors.count("it ended with status 1\nno such loss") == 1


def test_three_failed_trials_in_a_row_end_the_sweep(tmp_path: Path) -> None:
    sweep = local_sweep(tmp_path, "fail=at once", trials=9)

    with pytest.raises(ChildProcessError, match="3 trials failed one after the other"):
        work(sweep)

    assert [state for _, state, _, _ in outcome(sweep)] == ["FAIL"] * 3


def test_a_run_without_the_metric_fails_and_says_what_it_has(tmp_path: Path) -> None:
    sweep = local_sweep(tmp_path, "metric=val/rnak1", trials=1)

    (failed,) = [line for line in work(sweep) if "failed" in line]

    assert "has no finite val/rank1. Did you mean val/rnak1? It has val/rnak1." in failed


def test_a_sweep_is_over_when_a_trial_reaches_the_target(tmp_path: Path) -> None:
    metric = {"name": "val/rank1", "goal": "maximize", "target": 0.3}
    sweep = local_sweep(tmp_path, trials=20, metric=metric)

    work(sweep)

    values = [value for _, _, value, _ in outcome(sweep)]
    assert values[-1] is not None
    assert values[-1] >= 0.3
    assert all(value is not None and value < 0.3 for value in values[:-1])


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_sweep_that_is_killed_and_started_again_ends_as_if_it_had_never_stopped(
    tmp_path: Path, method: str
) -> None:
    changes = {"method": method, **HYPERBAND}
    whole = local_sweep(tmp_path / "whole", trials=5, **changes)
    work(whole)
    killed = local_sweep(tmp_path / "killed", f"hold={tmp_path / 'go'}", trials=5, **changes)
    script = WORKER.replace("trials=int(sys.argv[2])", f"trials=5, **{changes!r}")
    words = [str(tmp_path / "killed"), "5", *killed.overrides]
    worker = subprocess.Popen(
        [sys.executable, "-c", script, *words], cwd=ROOT, stderr=subprocess.PIPE
    )

    def first_epoch_is_over() -> bool:
        return len(epoch_values(run_folder(killed, 0), "val/rank1")) == 1

    wait_until(first_epoch_is_over, worker)
    worker.kill()
    worker.wait()
    assert [state for _, state, _, _ in outcome(killed)] == ["RUNNING"]
    (tmp_path / "go").touch()
    said = work(killed)

    assert outcome(killed) == outcome(whole)
    assert said[0].startswith(("[0/5] running: trial 0 (goes on, quality=", "Waiting"))
    assert sessions_of(killed, 0) == 2


def test_a_worker_that_gets_sigterm_ends_its_trials_and_leaves_them_for_the_next(
    tmp_path: Path,
) -> None:
    sweep = local_sweep(tmp_path, f"hold={tmp_path / 'go'}", trials=2)
    worker = start_worker(tmp_path, 2, *sweep.overrides)

    def runs() -> bool:
        return run_folder(sweep, 0).metrics_file.exists()

    wait_until(runs, worker)
    worker.terminate()
    worker.wait()
    assert [state for _, state, _, _ in outcome(sweep)] == ["RUNNING"]
    (tmp_path / "go").touch()
    work(sweep)

    assert [state for _, state, _, _ in outcome(sweep)] == ["COMPLETE"] * 2
    assert [sessions_of(sweep, number) for number in (0, 1)] == [2, 1]


def test_a_trial_that_something_else_ended_goes_on(tmp_path: Path) -> None:
    sweep = local_sweep(tmp_path, f"hold={tmp_path / 'go'}", trials=1)
    ended = threading.Event()

    def end_it() -> None:
        while not ended.is_set():
            if run_folder(sweep, 0).metrics_file.exists():
                (claim,) = (sweep.folder / "claims").glob("*.json")
                worker = json.loads(claim.read_text())["process"]
                children = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
                (tmp_path / "go").touch()
                for child in children:
                    os.kill(int(child), signal.SIGTERM)
                return
            time.sleep(0.02)

    if not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists():
        pytest.skip("this system does not list the children of a process")
    thread = threading.Thread(target=end_it)
    thread.start()
    try:
        said = work(sweep)
    finally:
        ended.set()
        thread.join()

    assert [state for _, state, _, _ in outcome(sweep)] == ["COMPLETE"]
    assert "trial 0 was interrupted" in said
    assert sessions_of(sweep, 0) == 2


def test_two_workers_share_the_trials_of_a_study(tmp_path: Path) -> None:
    sweep = local_sweep(tmp_path, "pause=0.02", trials=8)

    workers = [start_worker(tmp_path, 8, *sweep.overrides) for _ in range(2)]
    for worker in workers:
        _, said = worker.communicate()
        assert worker.returncode == 0, said.decode()

    assert [state for _, state, _, _ in outcome(sweep)] == ["COMPLETE"] * 8
    assert [sessions_of(sweep, number) for number in range(8)] == [1] * 8
    alone = local_sweep(tmp_path / "alone", trials=8)
    work(alone)
    assert outcome(sweep) == outcome(alone)


def test_one_worker_runs_several_trials_at_a_time(tmp_path: Path) -> None:
    """Each of two trials waits in its second epoch until the other one is there."""
    sweep = local_sweep(tmp_path, f"hold={tmp_path / 'go'}", trials=2)
    watching = threading.Event()

    def let_go_of_two() -> None:
        while not watching.is_set():
            if len(list(sweep.folder.glob("*-trial-*/metrics.jsonl"))) == 2:
                (tmp_path / "go").touch()
                return
            time.sleep(0.02)

    thread = threading.Thread(target=let_go_of_two)
    thread.start()
    try:
        work(sweep, agents=2)
    finally:
        watching.set()
        thread.join()

    assert [state for _, state, _, _ in outcome(sweep)] == ["COMPLETE"] * 2


def test_the_trial_of_a_machine_that_is_gone_is_continued(tmp_path: Path) -> None:
    sweep = local_sweep(tmp_path, trials=1)
    gone = Claims(sweep.folder / "claims", machine="there")
    ask(open_study(sweep.folder, sweep.file), sweep.file, seed=sweep.seed)
    gone.take("fake-toy-trial-000")
    gone._held["fake-toy-trial-000"].release()  # network file systems need not lock across machines

    said = work(sweep, claims=Claims(sweep.folder / "claims", machine="here", patience=0.2))

    assert said[0].startswith("Waiting for trials of other workers")
    assert [state for _, state, _, _ in outcome(sweep)] == ["COMPLETE"]


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_trial_that_its_worker_ends_while_another_looks_at_it_is_left_alone(
    tmp_path: Path, is_whole: bool
) -> None:
    sweep = local_sweep(tmp_path, trials=1)
    study = open_study(sweep.folder, sweep.file)
    ask(study, sweep.file, seed=sweep.seed)
    folder = run_folder(sweep, 0)

    def configure(overrides: Sequence[str]) -> Mapping[str, Any]:
        if is_whole:
            folder.path.mkdir()
            folder.save_config({})
            folder.record_file.write_text(json.dumps({"status": "finished"}))
            folder.results_file.write_text("{}")
            study.tell(0, 0.5)
        else:
            study.tell(0, state=TrialState.FAIL)
        return sweep.configure(overrides)

    said = work(replace(sweep, configure=configure))

    assert said == []
    state = "COMPLETE" if is_whole else "FAIL"
    assert [result[1] for result in outcome(sweep)] == [state]
    assert folder.path.exists() == is_whole


def test_a_run_folder_without_a_configuration_is_begun_again(tmp_path: Path) -> None:
    sweep = local_sweep(tmp_path, trials=1)
    ask(open_study(sweep.folder, sweep.file), sweep.file, seed=sweep.seed)
    (sweep.folder / "fake-toy-trial-000").mkdir()

    work(sweep)

    assert [state for _, state, _, _ in outcome(sweep)] == ["COMPLETE"]


def test_a_value_is_reported_once_however_often_a_trial_goes_on(tmp_path: Path) -> None:
    sweep = local_sweep(tmp_path, trials=1)
    study = open_study(sweep.folder, sweep.file)
    trial = ask(study, sweep.file, seed=sweep.seed)
    Trial(study, trial._trial_id).report(0.125, 1)  # what an earlier session saw

    work(sweep)

    (found,) = open_study(sweep.folder, sweep.file).trials
    assert found.intermediate_values[1] == 0.125
    assert sorted(found.intermediate_values) == [1, 2, 3, 4]
