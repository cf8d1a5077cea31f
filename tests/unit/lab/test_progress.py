import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from crosswalk.lab.progress import (
    DONE,
    ELSEWHERE,
    FAILED,
    LINE_INTERVAL,
    RUNNING,
    Board,
    Estimates,
    position,
)
from crosswalk.lab.tables.plan import Plan, estimates_of
from crosswalk.run.run_folder import RunFolder
from tests.unit.lab.fake_runs import fake_config, fake_plan, finish
from tests.unit.narrow import WIDTHS, plain


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Shown:
    """A view of a plan, the clock it goes by and what it showed."""

    def __init__(
        self, plan: Plan, *, terminal: bool = False, at_a_time: int = 1, already: int = 0
    ) -> None:
        self.clock, self.file = Clock(), io.StringIO()
        self.board = Board(
            "A table",
            plan.wanted[already:],
            estimates_of(plan),
            at_a_time=at_a_time,
            already=already,
            console=Console(file=self.file, width=150, force_terminal=terminal),
            clock=self.clock,
        )

    @property
    def text(self) -> str:
        return self.file.getvalue()


def log(folder: RunFolder, **values: object) -> None:
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.metrics_file.open("a") as file:
        file.write(json.dumps(values) + "\n")


def test_a_run_that_has_logged_nothing_is_being_prepared(tmp_path: Path) -> None:
    shown = Shown(fake_plan(tmp_path, "a"))
    (entry,) = shown.board.entries.values()

    assert shown.board.progress(entry) == "preparing"


@pytest.mark.parametrize(
    ("values", "words", "fraction"),
    [
        ({"step": 7, "epoch": 0, "train/loss": 1.0}, "epoch 1/2, step 7", 0.0),
        ({"step": 9, "epoch": 0, "val/rank1": 0.5}, "epoch 2/2, step 9", 0.5),
        ({"step": 18, "epoch": 1, "val/rank1": 0.5}, "epoch 2/2, step 18", 1.0),
    ],
)
def test_a_run_is_where_its_last_line_says(
    tmp_path: Path, values: dict, words: str, fraction: float
) -> None:
    shown = Shown(plan := fake_plan(tmp_path, "a"))
    (entry,) = shown.board.entries.values()
    log(plan.runs[0].folder, step=1, epoch=0)

    log(plan.runs[0].folder, **values)

    assert shown.board.progress(entry) == words
    assert shown.board.position(entry).fraction == fraction


def test_a_long_log_is_read_from_its_end(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in range(3000):
        log(folder, step=step, epoch=step // 1000, filling=10**50)

    assert position(folder, 5) == (2, 5, 2999)


def test_without_a_terminal_every_start_and_end_is_a_line(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "a", "b", "c")
    shown = Shown(plan, already=1)
    _, second, third = plan.runs

    with shown.board as board:
        board.move(second, RUNNING)
        shown.clock.now += 150
        board.move(second, DONE, "test rank1 61.20")
        board.move(third, ELSEWHERE)
        board.move(third, ELSEWHERE)
        board.fail(third, "it ended with status 2", Path("here"), ["no images"])

    assert shown.text.splitlines() == [
        "[1/3] running: row 1, seed 1",
        "[2/3] done after 2 min: row 1, seed 1 (test rank1 61.20)",
        "[2/3] elsewhere: row 2, seed 1",
        "[3/3] failed: row 2, seed 1 (it ended with status 2)",
        "  its log: here",
        "  | no images",
    ]


def test_without_a_terminal_a_line_comes_now_and_then(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "a", "b")
    shown = Shown(plan)
    shown.board.move(plan.runs[0], RUNNING)
    before = shown.text

    shown.board.look()
    shown.clock.now += LINE_INTERVAL / 2
    shown.board.look()
    assert shown.text == before
    shown.clock.now += LINE_INTERVAL / 2
    shown.board.look()
    shown.board.look()

    assert shown.text.removeprefix(before) == (
        "1 running, 1 waiting, time left not known yet; row 0, seed 1: preparing\n"
    )


def test_a_terminal_shows_all_runs_that_are_under_way_in_one_view(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "a", "b", "c", "d")
    shown = Shown(plan, terminal=True)
    log(plan.runs[0].folder, step=5, epoch=1)

    with shown.board as board:
        board.move(plan.runs[0], RUNNING, "on 3")
        board.move(plan.runs[1], FAILED, "it ended with status 2")
        board.move(plan.runs[2], DONE)
        shown.clock.now += 90
        board.look()

    last = shown.text[shown.text.rindex("A table") :]
    assert "1 running, 1 waiting, 1 done, 1 failed" in last
    assert "epoch 2/2, step 5" in last
    assert "on 3" in last
    assert "row 3" not in last


def test_the_time_left_is_what_is_known_of_such_runs_shared_among_the_places(
    tmp_path: Path,
) -> None:
    plan = fake_plan(tmp_path, "a", "b", "c")
    finish(plan.pool.folder(fake_config(9)))  # 100 s for two epochs
    shown = Shown(plan, at_a_time=2)

    assert shown.board.remaining() == pytest.approx(150)
    shown.board.move(plan.runs[0], RUNNING)
    shown.clock.now += 30
    assert shown.board.remaining() == pytest.approx((70 + 200) / 2)
    shown.board.move(plan.runs[0], DONE)
    shown.board.move(plan.runs[1], DONE)
    assert shown.board.remaining() == pytest.approx(100)
    assert shown.board.summary() == "1 waiting, 2 done, about 2 min left"


def test_the_first_run_tells_how_long_the_others_take_before_it_has_ended(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "a", "b")
    shown = Shown(plan)
    shown.board.move(plan.runs[0], RUNNING)
    assert shown.board.remaining() is None

    shown.clock.now += 60
    log(plan.runs[0].folder, step=9, epoch=0, **{"val/rank1": 0.5})  # half of it

    assert shown.board.remaining() == pytest.approx(60 + 120)


def test_a_run_that_takes_longer_than_others_did_is_judged_by_itself(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "a", "b")
    finish(plan.pool.folder(fake_config(9)))  # 100 s for two epochs
    shown = Shown(plan)
    shown.board.move(plan.runs[0], RUNNING)
    shown.clock.now += 300
    assert shown.board.remaining() is None

    log(plan.runs[0].folder, step=9, epoch=0, **{"val/rank1": 0.5})  # half of it

    assert shown.board.remaining() == pytest.approx(300 + 100)


def test_the_time_to_start_a_run_is_added_as_soon_as_one_has_ended(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "a", "b")
    finish(plan.pool.folder(fake_config(9)))  # 100 s
    shown = Shown(plan)
    shown.board.move(plan.runs[0], RUNNING)
    shown.clock.now += 130
    shown.board.move(plan.runs[0], DONE)

    assert shown.board.remaining() == pytest.approx(100 + 30)


def test_runs_that_are_not_known_yet_count_as_waiting_and_take_as_long_as_others(
    tmp_path: Path,
) -> None:
    plan, file = fake_plan(tmp_path, "a", "b"), io.StringIO()
    estimates = Estimates([("a source", lambda run: [60.0, 100.0])])
    console = Console(file=file, width=150)
    board = Board("A sweep", [], estimates, at_a_time=1, already=2, planned=5, console=console)
    assert board.remaining() is None

    board.move(plan.runs[0], RUNNING)
    board.move(plan.runs[1], RUNNING)
    board.move(plan.runs[1], DONE)

    assert board.summary() == "1 running, 3 waiting, 3 done, about 5 min left"
    assert file.getvalue().splitlines()[-1] == "[3/7] done after 0 s: row 1, seed 1"


@pytest.mark.parametrize("width", WIDTHS)
def test_a_narrow_terminal_keeps_every_number(tmp_path: Path, width: int) -> None:
    title = "a row with a long name of its own, and more words than there is room for"
    plan = fake_plan(tmp_path, title, "b")
    shown = Shown(plan, terminal=True)
    log(plan.runs[0].folder, step=12345, epoch=1)
    shown.board.move(plan.runs[0], RUNNING, "on device 7")
    shown.clock.now += 7260
    console = Console(file=io.StringIO(), width=width, force_terminal=True)
    shown.board.console = console

    console.print(shown.board.picture())

    text = plain(console.file.getvalue())
    words = " ".join(text.split())
    assert all(word in words for word in ("2/2", "12345", "2 h", "1 min", "device"))
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
