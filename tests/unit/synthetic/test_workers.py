"""Work spread over processes."""

import os
import time

import pytest

from crosswalk.synthetic.workers import carried_out
from tests.unit.narrow import plain, terminal, times_left


def slow_first(number: int) -> tuple[int, int]:
    """Return the number and the process; the first task ends last."""
    time.sleep(0.2 if number == 0 else 0.0)
    return number, os.getpid()


def failing(number: int) -> int:
    if number == 3:
        raise OSError("task 3 has no disk")
    return number


@pytest.mark.parametrize("num_workers", [1, 2])
def test_results_are_in_the_order_of_the_tasks(num_workers: int) -> None:
    results = carried_out(slow_first, range(7), [1] * 7, num_workers=num_workers, progress=False)

    assert [number for number, _ in results] == list(range(7))
    assert (os.getpid() in {process for _, process in results}) == (num_workers == 1)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_of_a_task_reaches_the_caller(num_workers: int) -> None:
    with pytest.raises(OSError, match="task 3 has no disk"):
        carried_out(failing, range(9), [1] * 9, num_workers=num_workers, progress=False)


def test_no_task_is_no_work() -> None:
    assert carried_out(failing, [], [], num_workers=None, progress=False) == []


def test_progress_is_told_in_tenths_of_the_images_without_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    carried_out(failing, [0, 1, 2], [1, 4, 15], num_workers=1, progress=True)

    assert capsys.readouterr().err.splitlines() == [
        "synthetic people: 5 of 20 images",
        "synthetic people: 20 of 20 images",
    ]


def test_a_terminal_shows_one_time_which_says_what_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    terminal(monkeypatch, 100)

    carried_out(failing, [0, 1, 2], [1, 4, 15], num_workers=1, progress=True)

    printed = capsys.readouterr()
    assert printed.out == ""
    bar = plain(printed.err)
    assert "20/20" in bar
    assert times_left(bar) == [" left"] * bar.count("synthetic people")


def test_fewer_workers_than_one_are_refused() -> None:
    with pytest.raises(ValueError, match="num_workers is 0"):
        carried_out(failing, [1], [1], num_workers=0, progress=False)
