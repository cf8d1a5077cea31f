import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from crosswalk.run.processes import (
    PARENT_VARIABLE,
    Running,
    Slot,
    Task,
    make_slots,
    run_tasks,
    start,
    to_type,
)
from crosswalk.run.run_folder import CHILD_VARIABLE, FIRST_VARIABLE

on_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux tells children of their parent's end"
)
SLEEPER = """
import sys, time
from pathlib import Path
from crosswalk.run.processes import end_with_parent
end_with_parent()
Path(sys.argv[1]).write_text(str(__import__("os").getpid()))
time.sleep(600)
"""
SCHEDULER = """
import sys
from pathlib import Path
from crosswalk.run.processes import Task, make_slots, run_tasks
folder, sleeper = Path(sys.argv[1]), sys.argv[2]
tasks = [
    Task([sys.executable, "-c", sleeper, str(folder / f"pid{i}")], folder / "log") for i in range(3)
]
run_tasks(
    lambda slot: tasks.pop() if tasks else None, make_slots(2), on_end=print, interval=0.01
)
"""


def wait_until(condition: Callable[[], object], patience: float = 600.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def python(text: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", text, *map(str, arguments)]


def run_all(tasks: list[Task], jobs: int = 1) -> list[tuple[object, int]]:
    waiting, ended = list(tasks), []
    run_tasks(
        lambda slot: waiting.pop(0) if waiting else None,
        make_slots(jobs),
        on_end=lambda running, status: ended.append((running.task.about, status)),
        interval=0.01,
    )
    return ended


def whole_file(path: Path) -> Callable[[], bool]:
    return lambda: path.exists() and path.read_text() != ""


@pytest.mark.parametrize(
    ("jobs", "num_cores", "threads"), [(1, 7, 7), (2, 7, 3), (3, 2, 1), (0, 5, 5)]
)
def test_slots_without_devices_share_the_cores(
    jobs: int, num_cores: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    slots = make_slots(jobs, num_cores=num_cores)

    assert slots == [Slot(number, (), threads) for number in range(max(jobs, 1))]
    assert "CUDA_VISIBLE_DEVICES" not in slots[0].environment()


@pytest.mark.parametrize(
    ("said", "threads"), [("1", 1), ("2,1", 2), ("16", 4), ("", 4), ("many", 4), ("0", 4)]
)
def test_no_slot_has_more_threads_than_its_user_said(
    said: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)

    assert [slot.threads for slot in make_slots(2, num_cores=8)] == [threads] * 2


def test_every_slot_has_devices_of_its_own_and_some_may_be_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    slots = make_slots(0, ["0", "3", "5", "6", "7"], devices_per_job=2, num_cores=4)

    assert [slot.devices for slot in slots] == [("0", "3"), ("5", "6")]
    assert slots[1].environment() == {
        "CUDA_VISIBLE_DEVICES": "5,6",
        "OMP_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
    }


def test_more_jobs_than_devices_are_refused() -> None:
    with pytest.raises(ValueError, match=r"3 runs .* need 3 devices, and 2 were named \(0,1\)"):
        make_slots(3, ["0", "1"])


def test_every_task_is_run_and_its_status_told(tmp_path: Path) -> None:
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    tasks = [
        Task(python("raise SystemExit(0)"), tmp_path / "0", about="well"),
        Task(python("raise SystemExit(3)"), tmp_path / "1", about="ill"),
        Task(python(kill), tmp_path / "2", about="killed"),
    ]

    assert run_all(tasks) == [("well", 0), ("ill", 3), ("killed", -signal.SIGKILL)]


def test_no_more_run_side_by_side_than_there_are_slots(tmp_path: Path) -> None:
    tasks = [Task(python("import time; time.sleep(0.1)"), tmp_path / "log") for _ in range(5)]
    seen: list[list[int]] = []

    run_tasks(
        lambda slot: tasks.pop() if tasks else None,
        make_slots(2),
        on_end=lambda running, status: None,
        look=lambda running: seen.append([each.slot.number for each in running]),
        interval=0.01,
    )

    assert max(len(slots) for slots in seen) == 2
    assert all(len(set(slots)) == len(slots) for slots in seen)


def test_nothing_to_do_now_is_asked_again_while_others_run(tmp_path: Path) -> None:
    ended: list[str] = []
    first = Task(python(""), tmp_path / "log", about="first")
    second = Task(python(""), tmp_path / "log", about="second")
    waiting = [first, second]

    def next_task(slot: Slot) -> Task | None:
        if waiting == [second] and "first" not in ended:
            return None  # the second needs what the first makes
        return waiting.pop(0) if waiting else None

    run_tasks(
        next_task,
        make_slots(2),
        on_end=lambda running, status: ended.append(running.task.about),
        interval=0.01,
    )

    assert ended == ["first", "second"]


def test_output_is_appended_and_the_environment_is_slot_and_task(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "log"
    show = "import os, sys; print(os.environ['OMP_NUM_THREADS'], os.environ['MINE'], flush=True)"
    task = Task(python(f"{show}; print('!', file=sys.stderr)"), log, environment={"MINE": "it"})

    for threads in (1, 3):
        assert start(task, Slot(0, (), threads)).process.wait() == 0

    assert log.read_text().split() == ["1", "it", "!", "3", "it", "!"]


def test_a_task_can_be_stopped_from_outside(tmp_path: Path) -> None:
    tasks = [Task(python(SLEEPER, tmp_path / "pid"), tmp_path / "log")]
    statuses: list[int] = []

    def stop(running: list[Running]) -> None:
        if (tmp_path / "pid").exists():
            running[0].stop()

    run_tasks(
        lambda slot: tasks.pop() if tasks else None,
        make_slots(1),
        on_end=lambda running, status: statuses.append(status),
        look=stop,
        interval=0.01,
    )

    assert statuses == [-signal.SIGTERM]


def test_a_process_that_does_not_heed_sigterm_is_killed(tmp_path: Path) -> None:
    stubborn = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "open(sys.argv[1], 'w').write('ready'); time.sleep(600)"
    )
    running = start(Task(python(stubborn, tmp_path / "ready"), tmp_path / "log"), Slot(0, (), 1))
    wait_until(whole_file(tmp_path / "ready"))

    assert running.stop(patience=0.05) == -signal.SIGKILL


@on_linux
def test_what_a_process_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    """Like the other processes of a run on several devices whose first one runs out of memory."""
    leader = (
        "import os, signal, subprocess, sys; "
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        "open(sys.argv[1], 'w').write(str(other.pid)); os.kill(os.getpid(), signal.SIGKILL)"
    )

    ended = run_all([Task(python(leader, tmp_path / "pid"), tmp_path / "log", about="run")])

    assert ended == [("run", -signal.SIGKILL)]
    wait_until(lambda: not is_alive(int((tmp_path / "pid").read_text())))


@on_linux
def test_a_run_that_is_stopped_hears_it_once(tmp_path: Path) -> None:
    """A second SIGTERM would end it at once, before its record says that it was interrupted."""
    slow = (
        "import signal, sys, time; "
        "signal.signal(signal.SIGTERM, lambda *_: print('SIGTERM', flush=True)); "
        "open(sys.argv[1], 'w').write('ready'); signal.pause(); time.sleep(0.3)"
    )
    log = tmp_path / "log"
    tasks = [Task(python(slow, tmp_path / "ready"), log)]

    def fail(running: list[Running]) -> None:
        if (tmp_path / "ready").exists():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_tasks(
            lambda slot: tasks.pop() if tasks else None,
            make_slots(1),
            on_end=lambda running, status: None,
            look=fail,
            interval=0.01,
        )

    assert log.read_text() == "SIGTERM\n"


def test_an_error_of_the_caller_ends_the_processes(tmp_path: Path) -> None:
    tasks = [
        Task(python(SLEEPER, tmp_path / "pid"), tmp_path / "log"),
        Task(python("import sys; sys.exit(0)"), tmp_path / "log"),
    ]

    def fail(running: Running, status: int) -> None:
        wait_until(whole_file(tmp_path / "pid"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_tasks(
            lambda slot: tasks.pop(0) if tasks else None,
            make_slots(2),
            on_end=fail,
            interval=0.01,
        )

    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_the_handler_of_sigterm_is_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)

    run_all([Task(python(""), tmp_path / "log")])

    assert signal.getsignal(signal.SIGTERM) == before


@on_linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_children_do_not_outlive_a_scheduler_that_is_stopped(
    tmp_path: Path, number: signal.Signals
) -> None:
    scheduler = subprocess.Popen(
        python(SCHEDULER, tmp_path, SLEEPER), stderr=subprocess.DEVNULL, start_new_session=True
    )
    files = [tmp_path / "pid1", tmp_path / "pid2"]  # the last of three waits for a slot
    for file in files:
        wait_until(whole_file(file))
    children = [int(file.read_text()) for file in files]

    scheduler.send_signal(number)
    scheduler.wait()

    for child in children:
        wait_until(lambda child=child: not is_alive(child))
    assert not (tmp_path / "pid0").exists()


def test_tests_hear_signals_that_the_shell_which_started_them_ignores() -> None:
    text = (
        "import runpy, signal; numbers = signal.SIGINT, signal.SIGTERM; "
        "[signal.signal(number, signal.SIG_IGN) for number in numbers]; "
        "runpy.run_path('tests/conftest.py'); "
        "print(*[signal.getsignal(number) in (signal.SIG_IGN, None) for number in numbers])"
    )

    answer = subprocess.run(
        python(text), cwd=Path(__file__).parents[3], capture_output=True, text=True
    )

    assert answer.stdout == "False False\n"


@on_linux
def test_a_process_whose_parent_is_gone_before_it_can_ask_ends(tmp_path: Path) -> None:
    environment = {**os.environ, PARENT_VARIABLE: str(2**30)}

    status = subprocess.run(python(SLEEPER, tmp_path / "pid"), env=environment).returncode

    assert status == -signal.SIGTERM
    assert not (tmp_path / "pid").exists()


def test_a_process_without_such_a_parent_goes_on() -> None:
    text = "from crosswalk.run.processes import end_with_parent; end_with_parent(); print('on')"
    environment = {key: value for key, value in os.environ.items() if key != PARENT_VARIABLE}

    answer = subprocess.run(python(text), env=environment, capture_output=True, text=True)

    assert answer.stdout == "on\n"


@on_linux
def test_the_children_of_a_run_do_not_take_its_parent_for_theirs() -> None:
    text = (
        "import os; from crosswalk.run.processes import end_with_parent; end_with_parent(); "
        f"print(os.environ.get('{PARENT_VARIABLE}'))"
    )
    environment = {**os.environ, PARENT_VARIABLE: str(os.getpid())}

    answer = subprocess.run(python(text), env=environment, capture_output=True, text=True)

    assert answer.stdout == "None\n"


@on_linux
def test_a_further_process_of_a_run_ends_with_the_first_even_where_it_hears_nothing(
    tmp_path: Path,
) -> None:
    """Such as one that waits for a port that the first process did not get."""
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SLEEPER}"
    first = (
        "import os, subprocess, sys, time; from pathlib import Path\n"
        "environment = {**os.environ, 'CROSSWALK_RUN_DIR': 'runs/it', 'LOCAL_RANK': '1'}\n"
        "environment['CROSSWALK_FIRST_PROCESS'] = str(os.getpid())\n"
        "subprocess.Popen([sys.executable, '-c', sys.argv[2], sys.argv[1]], env=environment)\n"
        "while not Path(sys.argv[1]).exists(): time.sleep(0.01)\n"
    )

    subprocess.run(python(first, tmp_path / "pid", deaf), check=True)

    wait_until(whole_file(tmp_path / "pid"))
    wait_until(lambda: not is_alive(int((tmp_path / "pid").read_text())), patience=60)


@on_linux
def test_a_further_process_whose_first_one_is_gone_before_it_can_ask_ends(tmp_path: Path) -> None:
    further = {CHILD_VARIABLE: "runs/it", FIRST_VARIABLE: str(2**30), "LOCAL_RANK": "1"}

    status = subprocess.run(
        python(SLEEPER, tmp_path / "pid"), env={**os.environ, **further}, timeout=120
    ).returncode

    assert status == -signal.SIGKILL
    assert not (tmp_path / "pid").exists()


@pytest.mark.parametrize(
    ("program", "is_on_path", "told"),
    [
        ("/env/bin/crosswalk", True, "crosswalk sweep 'my file.yaml'"),
        (".venv/bin/crosswalk", False, ".venv/bin/crosswalk sweep 'my file.yaml'"),
        ("/src/crosswalk/__main__.py", False, "python -m crosswalk sweep 'my file.yaml'"),
    ],
)
def test_a_command_is_told_as_the_shell_of_the_user_finds_it(
    program: str, is_on_path: bool, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_on_path:
        (tmp_path / "crosswalk").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [program, "sweep", "my file.yaml"])

    assert to_type() == told
    assert to_type("index") == told.replace("sweep 'my file.yaml'", "index")
