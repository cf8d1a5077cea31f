from __future__ import annotations

import csv
import errno
import io
import os
import signal
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from crosswalk.cache_folder import build_once
from crosswalk.cli import main
from crosswalk.files import (
    check_writable,
    csv_text,
    is_locked,
    load_yaml,
    lock,
    read_arrays,
    whole,
    write_arrays,
    write_text,
)


def test_a_text_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_text(path, "old")

    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_no_file_takes_the_place_of_a_pipe_or_a_device(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    with pytest.raises(ValueError, match=r"pipe is a device or a pipe\. Name a file\."):
        write_text(pipe, "whole")
    with pytest.raises(ValueError, match=r"--out .*pipe is a device or a pipe"):
        check_writable(pipe, "--out")

    assert pipe.is_fifo()


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match=rf"^--out {tmp_path} is a folder\. Name a file"):
        check_writable(tmp_path, "--out")


@pytest.mark.parametrize(
    "text",
    [
        *("", "# nothing", "~", "---", "--- \n...\n", "a: 1\n---\nb: 2", "a: [1, 2"),
        *(
            "a: 1\na: 2",
            "<<: 1",
            "a: &x {b: 1}\nc: {<<: *x, d: 2}",
            "a: *nobody",
            "\ta: 1",
        ),
        *(
            "[yes, No, on, ~, null, NULL, .nan, .inf, -.INF]",
            "[0o17, 017, 0x1f, 0b11, 1_000, 1:30]",
        ),
        *(
            "[1e3, 1.e3, 1.0e+3, +1, -0.0, .5, 2024-01-02, 2024-01-02 03:04:05]",
            "'a''b': \"\\t\\x41\"",
        ),
        *("a: |\n  one\n\n  two\n", "a: >-\n  one\n  two\n", "? [1, 2]\n: 3", "? {a: 1}\n: 3"),
        *(
            "a: caf\xe9 \u4e2d \U0001f600",
            "\ufeffa: 1",
            "a: \x85b",
            "a: \u2028b",
            "a: \x00",
            "a: \x7f",
        ),
        *("a: \udc80", 'a: "\\udce9"', 'a: "\\uD83D\\uDE00"', 'a: "\\q"', "a: 'never ends"),
        *("!!set {a, b}", "!!binary aGk=", "!!python/tuple [1]", "!own 1", "%YAML 1.2\n---\na: 1"),
        *(
            "a: b: c",
            "a: 'b' c",
            "- a\n b: 1",
            "@a",
            "`a`",
            "a: %b",
            "a: b #c",
            "a: b#c",
            "{a: 1, b}",
        ),
        *("{a:1}", "{a: }", "[a, , b]", "a:\r\n  b: 1\r\n", "a: 1\rb: 2", "{" * 40 + "}" * 40),
    ],
)
def test_yaml_is_read_as_by_pyyaml(text: str) -> None:
    assert outcome(load_yaml, text) == outcome(yaml.safe_load, text)


def outcome(load: Callable[[str], object], text: str) -> tuple[str, str]:
    try:
        return "value", repr(load(text))  # nan is not itself
    except yaml.YAMLError as error:
        return type(error).__name__, str(error)


def test_arrays_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "queries" / "test-best.npz"
    write_arrays(path, {"rank": np.array([1, 3])})

    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_arrays(path, {"rank": np.array([object()])})

    assert read_arrays(path)["rank"].tolist() == [1, 3]
    assert list(path.parent.iterdir()) == [path]


def test_an_archive_of_something_else_is_no_file_of_arrays(tmp_path: Path) -> None:
    path = tmp_path / "test-best.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"weights")

    with pytest.raises(ValueError, match=r"npz is damaged or .* \(archive/data.pkl in it is no"):
        read_arrays(path)


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (events.append("sync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("name"), replace(a, b)))

    with whole(tmp_path / "last.ckpt") as unfinished:
        unfinished.write_bytes(b"weights")
        events.append("written")

    assert events[:3] == ["written", "sync", "name"]
    assert (tmp_path / "last.ckpt").read_bytes() == b"weights"


def test_a_file_that_is_killed_while_it_is_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_text(path, "old")
    process = os.fork()
    if process == 0:
        with whole(path) as unfinished:
            unfinished.write_text("ne")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(process, 0)

    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only where processes fork")
def test_a_lock_goes_with_its_process_although_a_fork_of_it_lives_on(tmp_path: Path) -> None:
    path, (heard, said) = tmp_path / ".lock", os.pipe()
    holder = os.fork()
    if holder == 0:  # as a run that has started workers for its loader
        held = lock(path)
        held.acquire()
        worker = os.fork()
        if worker == 0:
            time.sleep(60)
        os.write(said, worker.to_bytes(8, sys.byteorder))
        time.sleep(60)
    worker = int.from_bytes(os.read(heard, 8), sys.byteorder)
    in_use = is_locked(path)

    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    free = not is_locked(path)
    os.kill(worker, signal.SIGKILL)

    assert (in_use, free) == (True, True)


def test_two_locks_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    with lock(tmp_path / "a" / ".lock"):
        assert is_locked(tmp_path / "a" / ".lock")
        assert is_locked(tmp_path / "a" / ".lock")

    assert not is_locked(tmp_path / "a" / ".lock")
    assert not is_locked(tmp_path / "never" / ".lock")
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("start", "shown"),
    [
        *((sign, f"'{sign}") for sign in ("=", "+", "-", "@", "\uff1d", " =", "\0+")),
        ("a;=", "a;'="),
        ("\t=", "'\t'="),
        ("\r\n@", "'\r'\n'@"),
    ],
)
def test_no_cell_of_a_table_is_run_by_a_spreadsheet(start: str, shown: str) -> None:
    rest = 'HYPERLINK("http://x.example", "a, b")'

    header, row = csv.reader(io.StringIO(csv_text([start + rest], [[start + rest]]), newline=""))

    assert header == row == [shown + rest]


@pytest.mark.parametrize("value", [-0.5, "-0.5", "-inf", np.float32(-1.1), -3, "+7"])
def test_numbers_of_a_table_stay_numbers(value: object) -> None:
    assert csv_text(["loss"], [[value]]) == "loss\n" + str(value) + "\n"


def test_names_of_a_table_need_not_be_utf_8(tmp_path: Path) -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")

    write_text(tmp_path / "suspects.csv", csv_text(["image"], [[name], ["caf\u00e9"]]))

    assert (tmp_path / "suspects.csv").read_text("utf-8") == "image\ncaf\\udce9.jpg\ncaf\u00e9\n"


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full .* MB free.*resume=t"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk is full"),
        (RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"), "full"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system.*output_dir="),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied.*output_dir="),
    ],
)
def test_a_file_that_cannot_be_written_is_named_with_what_to_do(
    tmp_path: Path, raised: Exception, words: str
) -> None:
    path = tmp_path / "last.ckpt"

    def write() -> None:
        with whole(path) as unfinished:
            unfinished.write_text("half")
            raise raised

    with pytest.raises(OSError, match=words) as told:
        write()

    assert told.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train method=mmcl output_dir={}", "cannot be written: Read-only file system. Change its"),
        ("data synthesize {}/set --size tiny", "Read-only file system"),
    ],
)
def test_a_folder_that_may_not_be_written_to_is_named_with_what_to_do(
    words: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, make = tmp_path / "mounted", os.mkdir

    def refuse(path: Any, *mode: int, **options: Any) -> None:  # noqa: ANN401
        if Path(path).is_relative_to(folder):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        make(path, *mode, **options)

    folder.mkdir()
    monkeypatch.setattr(os, "mkdir", refuse)

    assert main(words.format(folder).split()) == 2

    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(f"crosswalk: {folder}/")
    assert said in message
    assert list(folder.iterdir()) == []


def test_a_lock_that_may_not_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    with pytest.raises(PermissionError, match="CROSSWALK_CACHE for the cache") as told:
        build_once(tmp_path / "entry", print)

    assert told.value.filename == str(tmp_path / ".entry.lock")


def test_other_errors_of_a_writer_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^something else$"), whole(tmp_path / "last.ckpt"):
        raise RuntimeError("something else")
