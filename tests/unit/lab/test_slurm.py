import io
import json
import os
import sys
from pathlib import Path

import pytest
from rich.console import Console

from crosswalk.lab.progress import DONE, FAILED, Board
from crosswalk.lab.slurm import (
    TrainingJob,
    job_shape,
    make_executor,
    parse_parameters,
    run_on_slurm,
)
from crosswalk.lab.tables.plan import Plan, estimates_of
from crosswalk.lab.tables.runs import Failure, TableRuns
from crosswalk.run.code_digest import code_digest
from tests.end_to_end.toy_run import from_fork_server
from tests.unit.lab import fake_slurm
from tests.unit.lab.fake_runs import TRAIN, calls, fake_config, fake_plan, finish
from tests.unit.lab.test_local import wait_until

pytest.importorskip("submitit", reason="submitit is not installed: pip install submitit")
ASKED = {"timeout_min": 3, "partition": "gpu"}


def plan_of(folder: Path, *does: str, **trainer: object) -> Plan:
    return fake_plan(folder, *does, code=code_digest(fake_config()), trainer=trainer)


def submit(
    plan: Plan, *, cluster: str = "slurm", at_a_time: int = 0, **asked: object
) -> tuple[list[Failure], Board, str]:
    said = io.StringIO()
    console = Console(file=said, width=200)
    board = Board("A table", plan.wanted, estimates_of(plan), at_a_time=1, console=console)
    runs = TableRuns(plan, board, on_done=lambda run: "")
    run_on_slurm(
        runs,
        plan.pool.path / "slurm",
        first=runs.waiting,
        parameters={**ASKED, **asked},
        at_a_time=at_a_time,
        cluster=cluster,
        train=TRAIN,
        interval=0.05,
    )
    return runs.failures, board, said.getvalue()


def submit_rows(environment: dict[str, str], folder: Path, *does: str) -> None:
    os.environ |= environment
    submit(plan_of(folder, *does))


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder with a file for each job of a stand-in for Slurm."""
    for name, value in fake_slurm.install(tmp_path / "slurm").items():
        monkeypatch.setenv(name, value)
    return tmp_path / "slurm" / "jobs"


def test_what_slurm_is_asked_for_has_the_kind_it_looks_like() -> None:
    words = [
        "partition=gpu",
        "timeout_min=90",
        "mem_gb=7.5",
        "additional_parameters={mail-user: me}",
    ]

    assert parse_parameters(words) == {
        "partition": "gpu",
        "timeout_min": 90,
        "mem_gb": 7.5,
        "additional_parameters": {"mail-user": "me"},
    }
    with pytest.raises(ValueError, match="--slurm gpu: write key=value"):
        parse_parameters(["gpu"])


@pytest.mark.parametrize(
    ("trainer", "shape"),
    [
        ({"accelerator": "cpu", "devices": 1}, {"nodes": 1, "tasks_per_node": 1}),
        ({"accelerator": "auto", "devices": 3}, {"nodes": 1, "tasks_per_node": 3}),
        ({"accelerator": "cpu", "devices": "auto"}, {"nodes": 1, "tasks_per_node": 1}),
        (
            {"accelerator": "gpu", "devices": [0, 2], "num_nodes": 3},
            {"nodes": 3, "tasks_per_node": 2, "gpus_per_node": 2},
        ),
    ],
)
def test_a_job_has_a_task_for_every_process_of_its_run(trainer: dict, shape: dict) -> None:
    assert job_shape({"trainer": trainer}) == shape


@pytest.mark.parametrize("devices", ["auto", -1])
def test_a_number_of_processes_left_to_the_machine_is_refused(devices: object) -> None:
    with pytest.raises(ValueError, match=r"Add trainer.devices=<GPUs of a node>"):
        job_shape({"trainer": {"accelerator": "gpu", "devices": devices}})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"timeout_min": None}, "timeout_min=<minutes> is missing"),
        ({"partitoin": "gpu"}, "Unknown argument 'partitoin'"),
        ({"timeout_min": "soon"}, '"timeout_min" expected type'),
    ],
)
def test_what_slurm_does_not_know_is_refused_before_anything_is_submitted(
    tmp_path: Path, slurm: Path, asked: dict, message: str
) -> None:
    parameters = {key: value for key, value in {**ASKED, **asked}.items() if value is not None}
    plan = plan_of(tmp_path, "finish")
    board = Board("", plan.wanted, estimates_of(plan), at_a_time=1)
    runs = TableRuns(plan, board, on_done=lambda run: "")

    with pytest.raises(ValueError, match=message):
        run_on_slurm(runs, tmp_path, first=runs.waiting, parameters=parameters)

    assert list(slurm.iterdir()) == []


def test_a_machine_without_slurm_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ValueError, match="there is no srun on this machine"):
        make_executor(tmp_path, "slurm")


def test_a_missing_submitit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)

    with pytest.raises(ValueError, match=r"pip install submitit, or .* of crosswalk>\[slurm\]"):
        make_executor(tmp_path, "slurm")


def test_submitits_local_executor_runs_a_table_and_reports_a_failure(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "finish", "fail")

    failures, board, said = submit(plan, cluster="local")

    assert (board.count(DONE), board.count(FAILED)) == (1, 1)
    assert [failure.run.config["row"] for failure in failures] == [1]
    assert "crosswalk: there are no images" in failures[0].lines
    assert "  | crosswalk: there are no images" in said


def test_a_second_command_submits_only_what_failed(tmp_path: Path, slurm: Path) -> None:
    plan = plan_of(tmp_path, "finish", "stumble")
    done = plan.runs[0]
    finish(done.folder, config=dict(done.config), code=plan.pool.code_of(done.config))
    failures, *_ = submit(plan)
    assert [failure.run.config["row"] for failure in failures] == [1]

    failures, *_ = submit(plan)

    assert failures == []
    assert [(call["row"], call["resumes"]) for call in calls(plan)] == [(1, False), (1, True)]


def test_jobs_of_an_earlier_stand_in_are_forgotten(tmp_path: Path, slurm: Path) -> None:
    import submitit

    first = submit(plan_of(tmp_path / "first", "finish"))[0]
    second = fake_slurm.install(tmp_path / "second")

    assert first == []
    assert Path(second["FAKE_SLURM"]) != slurm
    assert submitit.SlurmJob.watcher.get_info("1", mode="cache") == {}


def test_a_run_of_several_nodes_is_one_job_with_a_task_for_each_process(
    tmp_path: Path, slurm: Path
) -> None:
    plan = plan_of(tmp_path, "finish", devices=2, num_nodes=2, accelerator="gpu")

    failures, *_ = submit(plan)

    assert failures == []
    (job,) = [json.loads(path.read_text()) for path in slurm.glob("*.json")]
    wanted = {"nodes": "2", "ntasks-per-node": "2", "gpus-per-node": "2"}
    wanted |= {"partition": "gpu", "time": "3"}
    assert {key: job.get(key) for key in wanted} == wanted
    assert sorted(call["rank"] for call in calls(plan)) == ["0", "1", "2", "3"]


def test_no_more_jobs_are_submitted_at_a_time_than_asked_for(tmp_path: Path, slurm: Path) -> None:
    plan = plan_of(tmp_path, "finish", "fail")

    failures, board, said = submit(plan, at_a_time=1)

    assert (board.count(DONE), len(failures)) == (1, 1)
    assert failures[0].reason == "its job 2 ended without results"
    jobs = [line.split(":")[0] for line in said.splitlines() if "submitted" in line or "[" in line]
    assert jobs[0] == "submitted as job 1"
    first_end = next(number for number, line in enumerate(jobs) if line.startswith("[1/2]"))
    assert first_end < jobs.index("submitted as job 2")


def test_a_command_that_was_killed_waits_for_its_job_when_it_is_started_again(
    tmp_path: Path, slurm: Path
) -> None:
    plan = plan_of(tmp_path, "wait")
    environment = {name: os.environ[name] for name in ("PATH", "FAKE_SLURM")}
    command = from_fork_server(submit_rows, environment, tmp_path, "wait")
    note = plan.pool.path / "slurm" / f"{plan.runs[0].identity}.json"
    wait_until(lambda: calls(plan) and note.exists())
    command.kill()
    command.join()
    (plan.pool.path / "go").touch()

    failures, _, said = submit(plan)

    assert failures == []
    assert "job 1 goes on: row 0, seed 1" in said or plan.missing() == []
    assert len(list(slurm.glob("*.json"))) == 1
    assert len(calls(plan)) == 1


def job_of(plan: Plan, code: str | None = None) -> TrainingJob:
    run = plan.runs[0]
    words = (*run.overrides, *run.place)
    return TrainingJob(
        words, run.folder, run.config, code or plan.pool.code_of(run.config), tuple(TRAIN)
    )


def test_a_task_goes_on_with_a_run_that_was_begun_and_leaves_a_finished_one(
    tmp_path: Path,
) -> None:
    plan = plan_of(tmp_path, "stumble")
    plan.pool.path.mkdir(parents=True)
    with pytest.raises(RuntimeError, match="it was killed by SIGKILL"):
        job_of(plan)()

    job_of(plan)()
    job_of(plan)()

    assert [call["resumes"] for call in calls(plan)] == [False, True]


def test_a_task_refuses_other_code_than_it_was_submitted_with(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "finish")

    with pytest.raises(RuntimeError, match=r"the code is not that any more \(ffffff\)"):
        job_of(plan, code="ffffff")()


def test_a_task_that_slurm_requeues_does_the_same_again(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "finish")
    finish(plan.runs[0].folder, config=fake_config())

    again = job_of(plan).checkpoint()

    assert again.function == job_of(plan)
    assert again.function() is None
