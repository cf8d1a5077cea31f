import io
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from crosswalk.lab.claims import OURS, Claims
from crosswalk.lab.local import run_locally
from crosswalk.lab.pool import PlannedRun, Pool
from crosswalk.lab.progress import DONE, ELSEWHERE, FAILED, Board
from crosswalk.lab.tables.plan import Plan, estimates_of
from crosswalk.lab.tables.runs import CodeChanged, Failure, TableRuns
from crosswalk.run.processes import make_slots
from crosswalk.run.run_folder import RunFolder
from tests.end_to_end.toy_run import from_fork_server
from tests.unit.lab.fake_runs import CODE, TRAIN, calls, fake_config, fake_plan, finish


def launch(
    plan: Plan, *, jobs: int = 1, devices: tuple[str, ...] = (), code: str = CODE
) -> tuple[list[Failure], Board, list[PlannedRun], str]:
    """Run a plan with `fake_train.py`; return failures, view, finished runs and what was said."""
    said, done = io.StringIO(), []
    board = Board(
        "A table",
        plan.wanted,
        estimates_of(plan),
        at_a_time=jobs,
        console=Console(file=said, width=200),
    )

    def on_done(run: PlannedRun) -> str:
        done.append(run)
        return "test rank1 50.00"

    runs = TableRuns(plan, board, on_done=on_done, code_now=lambda config: code)
    slots = make_slots(jobs, devices, num_cores=4)
    run_locally(runs, slots, train=TRAIN, interval=0.01)
    return runs.failures, board, done, said.getvalue()


def claims_of(plan: Plan) -> Claims:
    return Claims(plan.pool.path / "claims")


def take(plan: Plan, run: PlannedRun) -> str:
    return claims_of(plan).take_run(run, is_done=lambda run: plan.pool.is_done(run.config))


def wait_until(condition: Callable[[], object], patience: float = 600.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.01)


def launch_rows(folder: Path, *does: str) -> None:
    launch(fake_plan(folder, *does))


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_every_row_and_seed_is_run_once(
    tmp_path: Path, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    plan = fake_plan(tmp_path, "finish", "finish", "finish", seeds=(1, 7))

    failures, board, done, _ = launch(plan, jobs=jobs)

    assert failures == []
    assert sorted((run.seed, run.config["row"]) for run in done) == [
        (seed, row) for seed in (1, 7) for row in range(3)
    ]
    assert len(calls(plan)) == 6
    assert board.count(DONE) == 6
    assert all(call["threads"] == str(max(1, 4 // jobs)) for call in calls(plan))


def test_runs_side_by_side_have_devices_of_their_own(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "finish", "finish", "finish")

    launch(plan, jobs=2, devices=("4", "7"))

    assert {call["devices"] for call in calls(plan)} == {"4", "7"}


def test_what_is_finished_is_not_run_again(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "finish", "finish")
    launch(plan)

    _, _, done, _ = launch(plan)

    assert done == []
    assert len(calls(plan)) == 2


def test_another_configuration_or_other_code_is_run(tmp_path: Path) -> None:
    launch(fake_plan(tmp_path, "finish"))
    other_row = fake_plan(tmp_path, "finish", "finish")

    _, _, done, _ = launch(other_row)

    assert [run.config["row"] for run in done] == [1]
    newer = fake_plan(tmp_path, "finish", code="ffffff112233")
    assert newer.missing() == list(newer.runs)
    assert fake_plan(tmp_path, "finish", code="ffffff112233", any_code=True).missing() == []


def test_a_failed_run_is_reported_with_the_end_of_its_log_and_stops_no_other(
    tmp_path: Path,
) -> None:
    plan = fake_plan(tmp_path, "fail", "finish", "die", "nothing")

    failures, board, done, said = launch(plan)

    assert [run.config["row"] for run in done] == [1]
    assert [failure.reason for failure in failures] == [
        "it ended with status 2",
        "it was killed by SIGKILL, as systems do when memory runs out",
        "it ended with status 0",
    ]
    assert failures[0].lines == ("training", "a warning", "crosswalk: there are no images")
    assert f"its log: {failures[0].log}" in said
    assert "  | crosswalk: there are no images" in said
    assert (board.count(FAILED), board.count(DONE)) == (3, 1)


def test_a_table_that_cannot_be_written_stops_no_run(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "finish", "finish", "finish")
    said = io.StringIO()
    console = Console(file=said, width=200)
    board = Board("A table", plan.wanted, estimates_of(plan), at_a_time=1, console=console)

    def disk_is_full(run: PlannedRun) -> str:
        raise OSError("no space left")

    runs = TableRuns(plan, board, on_done=disk_is_full)
    run_locally(runs, make_slots(1, num_cores=1), train=TRAIN, interval=0.01)

    assert runs.failures == []
    assert all(plan.pool.is_done(run.config) for run in plan.wanted)
    assert said.getvalue().count("the table was not written: no space left") == 3


def test_only_what_this_attempt_said_is_reported(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "die")
    launch(plan)

    (failure,), *_ = launch(plan)

    assert failure.lines == ("training",)
    assert failure.log.read_text() == "training\ntraining\n"


def test_a_run_that_was_begun_goes_on(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "stumble")
    (failure,), *_ = launch(plan)
    assert "SIGKILL" in failure.reason

    failures, *_ = launch(plan)

    assert failures == []
    assert [call["resumes"] for call in calls(plan)] == [False, True]


def test_a_folder_that_was_made_and_no_more_is_begun_anew(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "finish")
    plan.runs[0].folder.path.mkdir(parents=True)

    failures, *_ = launch(plan)

    assert failures == []
    assert [call["resumes"] for call in calls(plan)] == [False]


def test_a_run_finished_by_other_code_than_it_was_started_with_does_not_count(
    tmp_path: Path,
) -> None:
    plan = fake_plan(tmp_path, "other")

    (first,), *_ = launch(plan)
    (again,), *_ = launch(plan)

    assert first.reason == "the code was changed while it ran, so it stands for no code"
    assert "was finished by other code (0ther) than its name says" in again.reason
    assert len(calls(plan)) == 1


def test_no_run_is_started_after_the_code_was_changed(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "finish")

    with pytest.raises(CodeChanged, match="the code was changed while this table was running"):
        launch(plan, code="ffffff112233")

    assert calls(plan) == []
    assert take(plan, plan.runs[0]) == OURS  # nothing is left locked


def test_a_killed_table_takes_its_runs_along_and_goes_on_later(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "finish", "stumble", "hang")
    ablation = from_fork_server(launch_rows, tmp_path, "finish", "stumble", "hang")
    wait_until(lambda: len(calls(plan)) == 3)
    child = calls(plan)[-1]["pid"]

    ablation.kill()
    ablation.join()

    if sys.platform.startswith("linux"):
        wait_until(lambda: not Path(f"/proc/{child}").exists() or is_zombie(child))
    assert [plan.finished(run) is not None for run in plan.runs] == [True, False, False]
    assert [take(plan, run) for run in plan.runs] == [DONE, OURS, OURS]


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_two_tables_at_a_time_do_not_make_the_same_run_and_the_second_takes_over(
    tmp_path: Path,
) -> None:
    plan = fake_plan(tmp_path, "hang", "finish")
    first = from_fork_server(launch_rows, tmp_path, "hang")
    wait_until(lambda: len(calls(plan)) == 1)

    assert take(plan, plan.runs[0]) == ELSEWHERE
    assert take(plan, plan.runs[1]) == OURS
    first.kill()
    first.join()
    wait_until(lambda: take(plan, plan.runs[0]) == OURS)


def test_a_run_that_is_finished_elsewhere_in_the_meantime_counts(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "finish", "hang")
    other, second = claims_of(plan), plan.runs[1]
    assert other.take(second.identity)  # another ablation has it
    done: list[PlannedRun] = []

    def on_done(run: PlannedRun) -> str:
        done.append(run)
        finish(second.folder)
        if other.holds(second.identity):
            other.release(second.identity)
        return ""

    said = io.StringIO()
    console = Console(file=said, width=200)
    board = Board("", plan.wanted, estimates_of(plan), at_a_time=1, console=console)
    runs = TableRuns(plan, board, on_done=on_done)
    run_locally(runs, make_slots(1), train=TRAIN, interval=0.01)

    assert runs.failures == []
    assert [run.config["row"] for run in done] == [0, 1]
    assert len(calls(plan)) == 1


def test_a_run_begins_with_its_overrides_its_place_and_its_name(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "finish")
    name = plan.pool.run_name(plan.runs[0].config)

    assert plan.runs[0].arguments() == [
        *("logger=csv", "+do=finish", "+row=0", f"+code={CODE}", "seed=1"),
        *(f"output_dir={plan.pool.path}", f"name=row-0-seed1-{name}"),
    ]


def test_a_run_that_was_begun_goes_on_by_the_same_words(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "finish")
    run = plan.runs[0]
    begins = run.arguments()
    run.folder.save_config(run.config)

    assert run.arguments() == [*begins, "resume=true"]


@pytest.mark.parametrize("fault", [OSError, SyntaxError, ValueError])
def test_code_in_the_middle_of_a_change_is_other_code(
    tmp_path: Path, fault: type[Exception]
) -> None:
    """Such an exception would end all runs of a table."""
    plan = fake_plan(tmp_path, "finish")

    def code_now(config: Mapping[str, Any]) -> str:
        raise fault("half of a module")

    console = Console(file=io.StringIO())
    board = Board("", plan.wanted, estimates_of(plan), at_a_time=1, console=console)
    runs = TableRuns(plan, board, on_done=lambda run: "", code_now=code_now)
    with pytest.raises(CodeChanged):
        run_locally(runs, make_slots(1), train=TRAIN, interval=0.01)
    assert calls(plan) == []


def test_the_pool_of_a_table_does_not_depend_on_where_the_command_is_started(
    tmp_path: Path,
) -> None:
    pool = Pool(tmp_path, code=lambda config: CODE)

    assert pool.folder(fake_config()).path.is_absolute()


def test_what_another_table_began_under_its_name_goes_on_there(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "finish")  # while nobody had begun it
    run = plan.runs[0]
    begun = plan.pool.folder(run.config, "the full method-seed1")
    begun.path.mkdir(parents=True)
    begun.save_config(run.config)

    console = Console(file=io.StringIO())
    board = Board("", plan.wanted, estimates_of(plan), at_a_time=1, console=console)
    (started,) = [TableRuns(plan, board, on_done=lambda run: "").next_run(lambda run: False)]

    assert started.folder == begun
    assert started.arguments()[-2:] == [
        f"name={begun.name.removeprefix('rde-toy-')}",
        "resume=true",
    ]


def test_what_another_table_began_meanwhile_goes_on_there(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "finish")
    run = plan.runs[0]
    begun = RunFolder(plan.pool.path / f"rde-toy-other-{plan.pool.run_name(run.config)}")

    def begins(looked_at: PlannedRun) -> bool:
        if not begun.path.exists():
            begun.save_config(run.config)
        return False

    board = Board(
        "", plan.wanted, estimates_of(plan), at_a_time=1, console=Console(file=io.StringIO())
    )
    runs = TableRuns(plan, board, on_done=lambda run: "")
    looks = [runs.next_run(begins) for _ in range(2)]

    assert [look and look.folder for look in looks] == [None, begun]


def test_a_record_that_is_damaged_stops_no_other_run(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "finish", "finish")
    board = Board(
        "", plan.wanted, estimates_of(plan), at_a_time=1, console=Console(file=io.StringIO())
    )
    runs = TableRuns(plan, board, on_done=lambda run: "")
    finish(plan.runs[0].folder, config=plan.runs[0].config).record_file.write_text("{")

    started = runs.next_run(lambda run: False)

    assert started == plan.runs[1]
    assert [failure.run for failure in runs.failures] == [plan.runs[0]]
    assert "run.json is damaged" in runs.failures[0].reason
