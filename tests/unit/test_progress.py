import pytest

from crosswalk import progress as module
from crosswalk.progress import Progress
from tests.unit.narrow import plain, terminal, times_left


def test_without_a_terminal_a_line_comes_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter([0.0, 1.0, 10.0, 15.0, 21.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(times))

    with Progress("Checking images of RSTPReid") as progress:
        for done in (1_000, 2_000, 3_000, 4_000):
            progress(done, 20_505)

    assert capsys.readouterr().err.splitlines() == [
        "Checking images of RSTPReid: 2,000 of 20,505, about 93 s left",
        "Checking images of RSTPReid: 4,000 of 20,505, about 87 s left",
    ]


@pytest.mark.parametrize(("seconds", "shown"), [(0.1, False), (1.0, True)])
def test_a_terminal_shows_a_bar_of_what_takes_long(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seconds: float,
    shown: bool,
) -> None:
    now = 0.0

    def monotonic() -> float:
        nonlocal now
        now += seconds
        return now

    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    terminal(monkeypatch, 100)
    monkeypatch.setattr(module.time, "monotonic", monotonic)

    with Progress("Decoding") as progress:
        for done in range(20, 120, 20):
            progress(done, 100)

    bar = plain(capsys.readouterr().err)
    assert ("Decoding" in bar) == shown
    assert times_left(bar) == [" left"] * bar.count("Decoding")  # one, which says what it is


def test_what_is_left_is_told_from_when_the_work_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter([0.0, 18.0, 18.5, 20.5, 28.0])  # workers that take 18 s to start
    monkeypatch.setattr(module.time, "monotonic", lambda: next(times))

    with Progress("Checking images of MSMT17") as progress:
        for done in (0, 64, 250, 1_000):
            progress(done, 10_000)

    assert capsys.readouterr().err.splitlines() == [
        "Checking images of MSMT17: 250 of 10,000, about 98 s left"
    ]
