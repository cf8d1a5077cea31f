from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from crosswalk.lab.sweeps.search import JOURNAL, ask, open_study, preview, values_of
from tests.unit.lab.sweeps.small_sweeps import sweep_file

PARAMETERS = {
    "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1},
    "size": {"distribution": "q_uniform", "min": 0, "max": 100, "q": 10},
    "depth": {"min": 1, "max": 3},
    "loss": {"values": ["a", "b"]},
    "seed": {"value": 7},
}


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_search_that_is_opened_again_proposes_the_same_trials(
    tmp_path: Path, method: str
) -> None:
    sweep = sweep_file(tmp_path, method=method, parameters=PARAMETERS)

    def run(folder: Path, *, again: bool) -> list[dict]:
        study = open_study(folder, sweep)
        for _ in range(14):  # more than the ten that are random
            trial = ask(study, sweep, seed=3)
            study.tell(trial.number, trial.params["lr"])
            if again:
                study = open_study(folder, sweep)
        return [trial.params for trial in study.trials]

    proposed = run(tmp_path / "once", again=False)

    assert proposed == run(tmp_path / "again", again=True)
    assert len({params["lr"] for params in proposed}) == 14
    assert preview(sweep, seed=3, count=20)[:3] == [
        values_of(sweep, params) for params in proposed[:3]
    ]


def test_drawn_values_lie_in_their_ranges_and_are_rounded(tmp_path: Path) -> None:
    sweep = sweep_file(tmp_path, parameters=PARAMETERS)

    for values in preview(sweep, seed=1, count=30):
        assert list(values) == list(PARAMETERS)
        assert 1e-4 <= float(values["lr"]) <= 1e-1
        assert values["size"] in range(0, 101, 10)
        assert values["depth"] in (1, 2, 3)
        assert values["loss"] in ("a", "b")
        assert values["seed"] == 7


def test_bayes_learns_where_the_good_values_are(tmp_path: Path) -> None:
    sweep = sweep_file(tmp_path, method="bayes", parameters={"x": {"min": 0.0, "max": 1.0}})
    study = open_study(tmp_path / "study", sweep)

    for _ in range(40):
        trial = ask(study, sweep, seed=1)
        study.tell(trial.number, 1 - abs(trial.params["x"] - 0.8))

    distances = [abs(trial.params["x"] - 0.8) for trial in study.trials]
    assert sum(distances[20:]) / 20 < 0.17  # 0.34 where all values are equally likely


def test_a_grid_takes_every_point_once_in_an_order_of_its_seed(tmp_path: Path) -> None:
    parameters = {"a": {"values": [1, 2, 3]}, "b": {"values": [True, False]}, "c": {"value": 0}}
    sweep = sweep_file(tmp_path, method="grid", parameters=parameters)

    points = [tuple(values.values()) for values in preview(sweep, seed=1, count=99)]

    assert sorted(points) == [(a, b, 0) for a in (1, 2, 3) for b in (False, True)]
    assert points != [tuple(values.values()) for values in preview(sweep, seed=2, count=99)]


def test_several_processes_may_have_a_study_open(tmp_path: Path) -> None:
    sweep = sweep_file(tmp_path, parameters=PARAMETERS)
    one, other = open_study(tmp_path / "study", sweep), open_study(tmp_path / "study", sweep)

    numbers = [ask(study, sweep, seed=1).number for study in (one, other, one, other)]

    assert numbers == [0, 1, 2, 3]
    assert [trial.params for trial in one.trials] == [trial.params for trial in other.trials]


def test_a_journal_that_was_cut_off_in_a_line_is_read_to_its_last_whole_one(
    tmp_path: Path,
) -> None:
    sweep = sweep_file(tmp_path, parameters=PARAMETERS)
    folder = tmp_path / "study"
    expected = ask(open_study(folder, sweep), sweep, seed=1).params
    with (folder / JOURNAL).open("ab") as file:
        file.write(b'{"op_code":4,"worker_i')

    study = open_study(folder, sweep)
    ask(study, sweep, seed=1)

    trials = open_study(folder, sweep).trials
    assert [trial.state for trial in trials] == [TrialState.RUNNING] * 2
    assert trials[0].params == expected


def test_one_of_eta_trials_goes_on_after_min_iter_epochs(tmp_path: Path) -> None:
    """Rungs at 2, 6, ... epochs; the fourth of these is not among the best third."""
    early = {"type": "hyperband", "min_iter": 2, "eta": 3}
    sweep = sweep_file(tmp_path, early_terminate=early)
    study = open_study(tmp_path / "study", sweep)
    stopped = {}
    for value in (0.1, 0.2, 0.3, 0.25, 0.4):
        number = ask(study, sweep, seed=1).number
        trial = optuna.trial.Trial(study, study.trials[number]._trial_id)
        for epochs in (1, 2):
            trial.report(value, epochs)
            stopped[value, epochs] = trial.should_prune()

    assert not any(stop for (_, epochs), stop in stopped.items() if epochs == 1)
    assert [stopped[value, 2] for value in (0.1, 0.2, 0.3, 0.25, 0.4)] == [
        *(False, False, False, True, False)
    ]
