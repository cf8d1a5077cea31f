import io
import re
from pathlib import Path

import numpy as np
import pytest

from crosswalk.run.callbacks.progress import Progress
from crosswalk.run.run_folder import RunFolder
from tests.end_to_end.toy_run import StopAt, Stopped, train_toy


class Clock:
    """Ten seconds pass whenever it is looked at."""

    def __init__(self, tick: float = 10.0) -> None:
        self.time, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.time += self.tick
        return self.time


def plain(stream: io.StringIO, **options: object) -> Progress:
    return Progress(stream=stream, terminal=False, metrics=("val/score",), **options)


def test_a_line_says_where_the_run_is_and_how_long_it_takes(tmp_path: Path) -> None:
    stream = io.StringIO()

    train_toy(tmp_path, callbacks=[plain(stream, interval=0.0)])

    lines = stream.getvalue().splitlines()
    assert re.fullmatch(
        r"epoch 2/3 step 4/6  loss \d\.\d{3}  \d+\.\d it/s  eta 00:\d\d",
        next(line for line in lines if line.startswith("epoch 2/3 step 4/6")),
    )
    assert re.search(r"eta \S+  val/score \d\d\.\d\d %$", lines[-2])
    assert re.fullmatch(r"training took 00:\d\d", lines[-1])


def test_between_lines_there_are_so_many_seconds_and_one_line_ends_an_epoch(tmp_path: Path) -> None:
    stream = io.StringIO()

    train_toy(tmp_path, callbacks=[plain(stream, interval=1e6)])

    lines = stream.getvalue().splitlines()
    # the very first line comes at once
    assert [line.split("  ")[0] for line in lines[:-1]] == [
        "epoch 1/3 step 1/6",
        "epoch 1/3 step 6/6",
        "epoch 2/3 step 6/6",
        "epoch 3/3 step 6/6",
    ]
    losses = [line.split("  ")[1] for line in lines[:-1]]
    logged = RunFolder(tmp_path).metrics()
    steps = [line["train/step_loss"] for line in logged if "train/step_loss" in line]
    means = [line["train/loss"] for line in logged if "train/loss" in line]
    assert losses == [f"loss {value:.3f}" for value in (steps[0], *means)]


def test_the_epochs_are_those_that_the_steps_allow(tmp_path: Path) -> None:
    stream = io.StringIO()

    train_toy(tmp_path, callbacks=[plain(stream, interval=0.0)], max_steps=8)

    lines = stream.getvalue().splitlines()
    epochs = [line.split(" step ")[0] for line in lines if line.startswith("epoch")]
    assert list(dict.fromkeys(epochs)) == ["epoch 1/2", "epoch 2/2"]


def test_the_last_step_of_an_epoch_is_shown_once(tmp_path: Path) -> None:
    stream = io.StringIO()

    train_toy(tmp_path, callbacks=[plain(stream, interval=0.0)])

    steps = [line.split("  ")[0] for line in stream.getvalue().splitlines()]
    assert steps.count("epoch 2/3 step 6/6") == 1


def test_the_loss_of_a_resumed_epoch_is_the_mean_of_all_of_it(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train_toy(tmp_path, StopAt("step", 11))
    stream = io.StringIO()

    train_toy(tmp_path, callbacks=[plain(stream, interval=0.0)])

    logged = RunFolder(tmp_path).metrics()
    steps = [line["train/step_loss"] for line in logged if "train/step_loss" in line]
    lines = [line for line in stream.getvalue().splitlines() if line.startswith("epoch")]
    shown = [line.split("  ")[1] for line in lines[:2]]
    sizes = [4, 4, 4, 4, 4, 2]
    assert shown[0] == f"loss {np.average(steps[6:11], weights=sizes[:5]):.3f}"
    assert shown[1] == f"loss {np.average(steps[6:12], weights=sizes):.3f}"
    assert "epoch 2/3 step 2/6" not in stream.getvalue()  # of the two since then


def test_a_resumed_epoch_is_counted_from_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train_toy(tmp_path, StopAt("step", 11))
    stream = io.StringIO()

    train_toy(tmp_path, callbacks=[plain(stream, interval=0.0)])

    assert stream.getvalue().startswith("epoch 2/3 step 5/6  loss")


def test_a_sweep_says_how_long_it_still_takes() -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream, terminal=False, interval=0.0, now=Clock())

    for _ in progress.track(iter("abcd"), what="sweep of epoch 1", total=4):
        pass

    words = [line.split("  ")[0] for line in stream.getvalue().splitlines()]
    assert words == [f"sweep of epoch 1 {done}/4" for done in (1, 2, 3, 4)]
    assert re.fullmatch(r"sweep of epoch 1 2/4  eta 0\d:\d\d", stream.getvalue().splitlines()[1])


def test_stages_may_lie_within_each_other() -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream, terminal=False, interval=0.0, now=lambda: 0.0)

    progress.start(2, "outer")
    for _ in progress.track([1], what="inner"):
        pass
    progress.advance()
    progress.stop()

    assert stream.getvalue().splitlines() == ["inner 1/1", "outer 1/2", "outer 1/2"]


def test_a_terminal_shows_bars_and_is_left_clean(tmp_path: Path) -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream, terminal=True)

    train_toy(tmp_path, callbacks=[progress])

    text = stream.getvalue()
    assert "epoch 3/3" in text
    assert "training" in text
    assert "\x1b[?25h" in text  # the cursor is back
    assert text.splitlines()[-1].endswith("training took 00:00") or "took" in text.splitlines()[-1]
    assert progress._bars is None
    assert re.search(r"left \d\d:\d\d", text)
    # no other time: a remaining time of rich is h:mm:ss
    assert not re.search(r"\d:\d\d:\d\d|-:--:--", text)
