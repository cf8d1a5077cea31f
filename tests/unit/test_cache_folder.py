import multiprocessing
import time
from pathlib import Path

import pytest

from crosswalk.cache_folder import build_once, cache_root


def test_a_build_that_fails_leaves_nothing_and_is_tried_again(tmp_path: Path) -> None:
    def fail(unfinished: Path) -> None:
        (unfinished / "half").touch()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        build_once(tmp_path / "entry", fail)

    assert [path.name for path in tmp_path.iterdir()] == [".entry.lock"]
    assert build_once(tmp_path / "entry", lambda unfinished: (unfinished / "whole").touch())
    assert [path.name for path in (tmp_path / "entry").iterdir()] == ["whole"]


def test_what_a_killed_build_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".entry.abc123"
    left.mkdir()
    (left / "half").touch()

    build_once(tmp_path / "entry", lambda unfinished: (unfinished / "whole").touch())

    assert sorted(path.name for path in tmp_path.iterdir()) == [".entry.lock", "entry"]


def build_slowly(entry: Path) -> None:
    def write(unfinished: Path) -> None:
        time.sleep(0.2)
        with (entry.parent / "log").open("a") as log:
            log.write("built\n")

    build_once(entry, write)
    assert entry.is_dir()


def test_processes_that_start_together_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=build_slowly, args=(tmp_path / "entry",)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)

    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "built\n"


def test_the_cache_folder_is_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", "~/somewhere")
    assert cache_root() == Path.home() / "somewhere"
    monkeypatch.delenv("CROSSWALK_CACHE")
    assert cache_root() == Path.home() / ".cache" / "crosswalk"


def test_a_cache_that_is_a_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", str(tmp_path / "notes.txt"))
    (tmp_path / "notes.txt").touch()

    with pytest.raises(ValueError, match=r"notes\.txt is no folder\. Set CROSSWALK_CACHE=<folder>"):
        cache_root()
