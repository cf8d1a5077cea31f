import json
import re
import shlex
from html import unescape
from pathlib import Path

import pytest
import yaml
from optuna.trial import TrialState

from crosswalk.lab.sweeps.parallel_coordinates import position, ticks
from crosswalk.lab.sweeps.parameters import Choice, Constant, Range
from crosswalk.lab.sweeps.search import ask, open_study
from crosswalk.lab.sweeps.summary import SweepSummary, _aligned, as_text, summarize
from crosswalk.lab.sweeps.summary_page import as_page, write_summary
from crosswalk.lab.sweeps.trials import LocalSweep
from tests.unit.lab.sweeps.small_sweeps import local_sweep

PARAMETERS = {
    "optim.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1},
    "loss": {"values": ["a", "b"]},
    "data.batch_size": {"min": 8, "max": 64},
    "seed": {"value": 3},
}


def filled_sweep(folder: Path, trials: int = 12) -> LocalSweep:
    """Return a sweep whose value is the place of the loss and, a little, the rate."""
    sweep = local_sweep(folder, "data.root=/my data", trials=trials, parameters=PARAMETERS)
    study = open_study(sweep.folder, sweep.file)
    for number in range(trials):
        trial = ask(study, sweep.file, seed=1)
        if number == 2:
            study.tell(number, state=TrialState.FAIL)
        else:
            good = 0.5 if trial.params["loss"] == "b" else 0.25
            study.tell(number, good + trial.params["optim.lr"])
    return sweep


def test_the_best_trial_comes_first_and_its_command_repeats_it(tmp_path: Path) -> None:
    sweep = filled_sweep(tmp_path)

    summary = summarize(sweep)
    text = as_text(sweep, summary)

    best = max(
        (trial for trial in summary.trials if trial.value is not None),
        key=lambda trial: trial.value or 0,
    )
    assert summary.ranked[0] == best
    assert best.values["loss"] == "b"
    assert text.startswith("12 trials: 11 ended, 1 failed.")
    assert text.splitlines()[1] == "Failed: trial 2: no reason was kept"
    first = text.splitlines()[4].split()
    assert first[:2] == [str(best.number), f"{100 * (best.value or 0):.2f}"]
    command = text.split("Repeat the best:\n")[1].splitlines()[0]
    values = [f"{name}={value}" for name, value in best.values.items()]
    assert shlex.split(command) == ["crosswalk", "train", *values, "data.root=/my data"]


def test_importances_name_the_parameter_that_the_value_depends_on(tmp_path: Path) -> None:
    summary = summarize(filled_sweep(tmp_path, trials=30))

    assert next(iter(summary.importances)) == "loss"
    assert summary.importances["loss"] > 0.5
    assert sum(summary.importances.values()) == pytest.approx(1.0)
    assert "seed" not in summary.importances  # it is always the same


def test_too_few_trials_have_no_importances_and_it_is_said(tmp_path: Path) -> None:
    sweep = filled_sweep(tmp_path, trials=3)

    text = as_text(sweep, summarize(sweep))

    assert "Importances need 4 ended trials; there are 2." in text


def test_equal_trials_have_no_importances(tmp_path: Path) -> None:
    sweep = local_sweep(tmp_path, trials=5)
    study = open_study(sweep.folder, sweep.file)
    for number in range(5):
        ask(study, sweep.file, seed=1)
        study.tell(number, 0.5)

    summary = summarize(sweep)
    assert summary.importances == {}
    for shown in (as_text(sweep, summary), as_page(sweep, summary)):
        assert "No importances: all 5 ended trials are ties, equally good." in shown
    ties = "Trial 0 is the earliest of equals; as good: 1, 2, 3, 4."
    assert f"{ties}\nRepeat the best:" in as_text(sweep, summary)
    assert ties in as_page(sweep, summary)


def test_the_files_hold_what_was_found(tmp_path: Path) -> None:
    sweep = filled_sweep(tmp_path)
    summary = summarize(sweep)

    page = write_summary(sweep, summary)

    best = yaml.safe_load((sweep.folder / "best.yaml").read_text())
    assert best["trial"] == summary.ranked[0].number
    assert best["values"] == summary.ranked[0].values
    stored = json.loads((sweep.folder / "trials.json").read_text())
    assert [trial["value"] for trial in stored["trials"]] == [
        trial.value for trial in summary.trials
    ]
    assert page == sweep.folder / "summary.html"


def test_the_page_has_a_line_for_each_trial_with_a_value_and_fetches_nothing(
    tmp_path: Path,
) -> None:
    sweep = filled_sweep(tmp_path)
    summary = summarize(sweep)

    page = as_page(sweep, summary)

    lines = re.findall(r'<path d="[^"]*" clip-path[^>]*stroke: #\w+[^>]*>', page)
    assert len(lines) == 11 + 4  # trials, and axes: three parameters and the value
    assert "optim.\nlr" in re.sub(r"</?tspan[^>]*>", "", unescape(page)) or "optim." in page
    assert page == as_page(sweep, summary)
    assert "Seconds are those of the run itself; the terminal" in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)


def test_a_sweep_without_results_says_so(tmp_path: Path) -> None:
    sweep = local_sweep(tmp_path)
    empty = SweepSummary([], {})

    assert as_text(sweep, empty).startswith("No trials yet.")
    assert "No trial has ended yet." in as_page(sweep, empty)


def test_trials_of_different_code_are_pointed_out(tmp_path: Path) -> None:
    sweep = filled_sweep(tmp_path, trials=4)
    summary = summarize(sweep)
    trials = [trial._replace(code=f"c0de{trial.number // 2}") for trial in summary.trials]

    def said_with(losses: dict[int, str]) -> str:
        changed = [
            trial._replace(values={**trial.values, "loss": losses[trial.number]})
            for trial in trials
        ]
        return as_text(sweep, summary._replace(trials=changed))

    one_loss, two_losses = dict.fromkeys(range(4), "a"), {0: "a", 1: "a", 2: "b", 3: "b"}
    assert "the code changed during the sweep (2 versions" in said_with(one_loss)
    assert "the code changed" not in said_with(two_losses)


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        (Range(0.0, 4.0), 1.0, 0.25),
        (Range(1e-4, 1e-2, log=True), 1e-3, 0.5),
        (Choice((1, 2, 4)), 2, 0.5),
        (Choice(("only",)), "only", 0.5),
        (Constant(3), 3, 0.5),
        (Range(0.5, 1.5, multiple=1), 0, -0.5),  # W&B rounds past the end
    ],
)
def test_a_value_lies_on_its_axis_by_its_size(
    parameter: Range | Choice | Constant, value: float | str, expected: float
) -> None:
    assert position(parameter, value) == expected


def test_an_axis_of_choices_names_each() -> None:
    assert ticks(Choice(("a", "b", "c"))) == [(0.0, "a"), (0.5, "b"), (1.0, "c")]


def test_a_narrow_terminal_shows_trials_in_columns() -> None:
    header = ["trial", "val/rank1", "epoch", "optim.schedule.warmup_epochs"]
    rows = [[str(n), f"{n}0.25", "7", "2"] for n in range(12)]

    lines = _aligned(header, rows, width=40)

    assert max(map(len, lines)) <= 40
    shown = [word for line in lines for word in line.split()]
    assert [shown.count(f"{n}0.25") for n in range(12)] == [1] * 12
    assert lines[0].split()[:2] == ["trial", "0"]
