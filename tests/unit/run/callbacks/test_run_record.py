import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crosswalk import files
from crosswalk.files import UNFINISHED, lock
from crosswalk.run.callbacks import run_record
from crosswalk.run.callbacks.run_record import RunInterrupted, RunRecord, commit_of
from crosswalk.run.run_folder import RunFolder


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no data"), RunRecord(RunFolder(tmp_path), seeds={}):
        raise ValueError("no data")

    record = RunFolder(tmp_path).record()
    assert (record["status"], record["error"]) == ("failed", "ValueError: no data")
    assert record["ended"] is not None


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_with_its_status_and_says_how_to_continue(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    status: int,
) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/crosswalk", "train", "name=two words"])
    before = signal.getsignal(number)

    with pytest.raises(RunInterrupted) as caught, RunRecord(RunFolder(tmp_path), seeds={}):
        os.kill(os.getpid(), number)

    assert caught.value.code == status
    assert signal.getsignal(number) == before
    assert RunFolder(tmp_path).record()["status"] == "interrupted"
    assert "crosswalk train 'name=two words' resume=true" in capsys.readouterr().err


def test_an_error_on_the_way_out_does_not_hide_the_interruption(tmp_path: Path) -> None:
    def train() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            raise RuntimeError("a worker exited unexpectedly")

    with pytest.raises(RunInterrupted), RunRecord(RunFolder(tmp_path), seeds={}):
        train()

    assert RunFolder(tmp_path).record()["status"] == "interrupted"


def test_a_continued_run_keeps_start_command_and_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["crosswalk", "train"])
    folder = RunFolder(tmp_path)
    record = RunRecord(folder, seeds={"seed": 1})
    with record:
        record.update(data={"fingerprint": "abc"})
    with pytest.raises(KeyError), record:
        raise KeyError
    first = folder.record()
    monkeypatch.setattr(sys, "argv", ["crosswalk", "train", "resume=true"])

    with RunRecord(folder, seeds={"seed": 1}):
        during = folder.record()

    assert (during["status"], during["error"], during["ended"]) == ("running", None, None)
    after = folder.record()
    assert [after[key] for key in ("started", "command", "data", "seeds")] == [
        first["started"],
        "crosswalk train",
        {"fingerprint": "abc"},
        {"seed": 1},
    ]
    assert [session["status"] for session in after["sessions"]] == [
        "finished",
        "failed",
        "finished",
    ]


def test_a_run_that_goes_on_with_other_code_says_so_and_keeps_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for code in ("c0de01", "c0de01", "c0de02"):
        monkeypatch.setattr(run_record, "code_digest", lambda config, code=code: code)
        with RunRecord(RunFolder(tmp_path), seeds={}):
            said = capsys.readouterr().err
        assert ("by code c0de01 so far and goes on with code c0de02" in said) == (code == "c0de02")

    record = RunFolder(tmp_path).record()
    assert record["code"] == "c0de02"
    assert [session["code"] for session in record["sessions"]] == ["c0de01", "c0de01", "c0de02"]


def test_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")

    with RunRecord(RunFolder(tmp_path), seeds={}) as record:
        record.update(data={})

    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_in_use_while_its_run_goes_on_and_looking_disturbs_nobody(
    tmp_path: Path,
) -> None:
    folder = RunFolder(tmp_path)
    seen = [folder.is_in_use()]

    with RunRecord(folder, seeds={}):
        seen += [folder.is_in_use(), folder.is_in_use()]
    with RunRecord(folder, seeds={}):  # its lock file is there already
        seen.append(folder.is_in_use())

    assert [*seen, folder.is_in_use()] == [False, True, True, True, False]


def test_a_run_whose_process_is_gone_without_a_word_is_interrupted(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    record = RunRecord(folder, seeds={}).__enter__()
    seen = [folder.record()["status"]]
    record._lock.release()  # what the system does for a process that is killed
    seen.append(folder.record()["status"])
    error, note = folder.record()["error"], folder.note()

    with RunRecord(folder, seeds={}):  # it goes on
        seen += [folder.record()["status"], folder.record()["error"]]

    assert seen == ["running", "interrupted", "running", None]
    assert error == (
        "it was killed, its machine stopped, or it still runs on another one; resume=true behind "
        "the run's command goes on"
    )
    assert (
        note == f"{tmp_path} has not finished (interrupted: {error}): its results may still change."
    )
    assert (folder.record()["status"], folder.note()) == ("finished", None)


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "no"), OSError(errno.EROFS, "no")])
def test_a_folder_that_may_not_be_written_to_stays_what_its_record_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    folder = RunFolder(tmp_path)
    folder.save_record({"status": "running"})
    folder.lock_file.touch()

    def refuse(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(files.FileLock, "acquire", refuse)

    assert folder.record() == {"status": "running"}


def test_a_run_begins_although_somebody_looks_whether_it_is_in_use(tmp_path: Path) -> None:
    folder, looks = RunFolder(tmp_path), threading.Event()

    def look() -> None:
        with lock(folder.lock_file):
            looks.set()
            time.sleep(0.2)

    looker = threading.Thread(target=look)
    looker.start()
    looks.wait()

    with RunRecord(folder, seeds={}):
        assert folder.record()["status"] == "running"

    looker.join()


def test_two_processes_never_run_in_one_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)

    with (
        lock(folder.lock_file),
        pytest.raises(RuntimeError, match="another process is running in"),
        RunRecord(folder, seeds={}),
    ):
        pass

    with RunRecord(RunFolder(tmp_path), seeds={}):
        assert json.loads((tmp_path / "run.json").read_text())["status"] == "running"


def test_commit_and_changes_are_those_of_the_clone(tmp_path: Path) -> None:
    def git(arguments: str) -> str:
        options = "-c user.name=a -c user.email=a@example.org -c commit.gpgsign=false"
        command = shlex.split(f"git -C {tmp_path} {options} {arguments}")
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    (tmp_path / "file").write_text("one")
    git("add file")
    git("commit -m one")

    clean = commit_of(tmp_path)
    results = tmp_path / "experiments" / "rde" / "results" / "table2.json"
    results.parent.mkdir(parents=True)
    results.write_text("{}")
    for name in ("compare.html", "suspects.csv", "photos.gallery/rows.json", "notes/plot.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    kept = commit_of(tmp_path)
    (tmp_path / "file").write_text("two")
    changed = commit_of(tmp_path)

    assert clean == {"commit": git("rev-parse HEAD"), "dirty": False}
    assert kept == clean
    assert changed == {**clean, "dirty": True}
    (tmp_path / "file").write_text("one")
    for name in ("src/mine/loss.py", "configs/mine.yaml", "experiments/rde/mine.yaml", "mine.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
        assert commit_of(tmp_path) == {**clean, "dirty": True}, name
        (tmp_path / name).unlink()
    assert commit_of(tmp_path / "notes") == clean


@pytest.mark.parametrize(
    ("error", "begun", "stays"),
    [
        (ValueError("no such key"), False, False),
        (FileNotFoundError("no data"), False, False),
        (RuntimeError("not of the user's making"), False, True),
        (ValueError("after steps"), True, True),
    ],
)
def test_a_run_that_is_refused_before_it_begins_leaves_no_folder(
    error: Exception, begun: bool, stays: bool, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "runs" / "run")
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(launcher=None))

    def run() -> None:
        with RunRecord(folder, seeds={}, takes_back=True, took_root=True) as record:
            if begun:
                record.on_train_start(trainer, trainer)
            raise error

    with pytest.raises(type(error)):
        run()
    assert folder.path.exists() == folder.path.parent.exists() == stays


@pytest.mark.parametrize("took_root", [True, False])
def test_a_folder_of_runs_that_holds_more_stays(took_root: bool, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "run")
    (tmp_path / "runs" / ("other" if took_root else "run")).mkdir(parents=True)

    def run() -> None:
        with RunRecord(folder, seeds={}, takes_back=True, took_root=took_root):
            raise ValueError("no such key")

    with pytest.raises(ValueError, match="no such key"):
        run()
    assert not folder.path.exists()
    assert folder.path.parent.exists()


def test_a_run_that_the_disk_has_no_room_for_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def write() -> None:
        with RunRecord(folder, seeds={}):
            monkeypatch.setattr("os.replace", refuse)
            folder.save_results({})

    with pytest.raises(OSError, match="the disk is full"):
        write()

    assert folder.record()["status"] == "failed"
    assert "the disk is full" in folder.record()["error"]


def test_what_a_killed_run_had_not_written_whole_is_gone_at_the_next_start(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    leftovers = [
        tmp_path / f"results.json.7{UNFINISHED}",
        tmp_path / f"queries/x.npz.7{UNFINISHED}",
    ]
    of_an_evaluation = tmp_path / f"evaluations/toy-last-1/results.json.8{UNFINISHED}"
    for path in (*leftovers, of_an_evaluation):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    with RunRecord(folder, seeds={}):
        assert not any(path.exists() for path in leftovers)
        assert of_an_evaluation.exists()  # it may be written just now


@pytest.mark.parametrize(
    "said",
    [
        "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:4",
        "Rank 0 failed: Connection reset by peer",
        "[../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 60000ms "
        "for recv operation to complete",
        "NCCL error: a network error or a remote process exiting prematurely\nLast error: none",
    ],
)
def test_a_run_that_lost_a_process_says_so_and_how_to_go_on(tmp_path: Path, said: str) -> None:
    folder = RunFolder(tmp_path)

    with (
        pytest.raises(RuntimeError, match=r"process of this run is gone.*resume=true"),
        RunRecord(folder, seeds={}),
    ):
        raise RuntimeError(said)

    assert folder.record()["status"] == "failed"
    assert "is gone" in folder.record()["error"]
    assert folder.record()["error"].endswith(said.splitlines()[0])


@pytest.mark.parametrize(
    "said",
    [
        "NCCL Error 1: unhandled cuda error",
        "[../third_party/gloo/gloo/transport/tcp/device.cc:83] ifa != nullptr. No interface",
        "ProcessGroupGloo: no support for BFloat16",
        "DataLoader timed out after 60 seconds",
    ],
)
def test_an_error_of_a_collective_that_lost_nobody_is_told_as_it_is(
    tmp_path: Path, said: str
) -> None:
    folder = RunFolder(tmp_path)

    with pytest.raises(RuntimeError, match=re.escape(said)), RunRecord(folder, seeds={}):
        raise RuntimeError(said)

    assert folder.record()["error"] == f"RuntimeError: {said}"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("crosswalk train method=rde", 'make train METHOD=rde ARGS="resume=true"'),
        (
            "crosswalk train method=rde data=own_pairs data.root=/x seed=2",
            'make train METHOD=rde DATA=own_pairs ARGS="data.root=/x seed=2 resume=true"',
        ),
        (
            "crosswalk train method=rde 'tags=[a b]'",
            "crosswalk train method=rde 'tags=[a b]' resume=true",  # quotes within ARGS
        ),
    ],
)
def test_who_typed_make_is_told_how_make_goes_on(
    command: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    monkeypatch.setenv("CROSSWALK_MAKE", told.partition(" ARGS")[0])

    with (
        pytest.raises(SystemExit),
        RunRecord(RunFolder(tmp_path / "run"), seeds={}, is_first_process=True),
    ):
        os.kill(os.getpid(), signal.SIGTERM)

    assert capsys.readouterr().err.endswith(f"to continue:\n  {told}\n")


def test_a_stage_leaves_to_its_run_to_say_how_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CROSSWALK_STAGE", "supervised-market1501")

    with (
        pytest.raises(SystemExit) as ended,
        RunRecord(RunFolder(tmp_path / "run"), seeds={}, is_first_process=True),
    ):
        os.kill(os.getpid(), signal.SIGTERM)

    assert ended.value.code == 143
    assert RunFolder(tmp_path / "run").record()["status"] == "interrupted"
    assert capsys.readouterr().err == ""
