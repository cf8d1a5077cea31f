import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from crosswalk.config.search import config_folder, group_values
from crosswalk.lab.sweeps.check import check_sweep
from crosswalk.lab.sweeps.parameters import Choice
from crosswalk.lab.sweeps.sweep_file import (
    EarlyTermination,
    find_sweep_file,
    read_command,
    read_sweep_file,
    with_overrides,
)
from tests.unit.lab.sweeps.small_sweeps import COMMAND, METRIC, sweep_file

FILES = sorted((config_folder() / "sweep").glob("*.yaml"))


def test_there_is_a_file_for_each_method() -> None:
    methods = set(group_values("method"))

    assert {path.stem for path in FILES} == methods


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_valid_for_wandb_and_for_us(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydantic's, about an old package
        config = pytest.importorskip("sweeps.config")

    sweep = read_sweep_file(path)

    assert config.schema_violations_from_proposed_config(dict(sweep.contents)) == []
    assert sweep.command.fixed[0] == f"method={path.stem}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_fits_the_configuration_and_chooses_nothing_on_test(path: Path) -> None:
    sweep = read_sweep_file(path)

    config = check_sweep(sweep)

    assert (config["protocol"], sweep.metric.split("/")[0]) == ("val", "val")


def test_every_kind_of_search_is_among_the_files() -> None:
    sweeps = [read_sweep_file(path) for path in FILES]

    assert {sweep.method for sweep in sweeps} == {"grid", "random", "bayes"}
    assert any(sweep.early is not None for sweep in sweeps)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"controller": {"type": "local"}}, "controller is not understood"),
        ({"methd": "grid"}, "methd is not understood by the local search. Did you mean method?"),
        ({"method": None}, "method is missing"),
        (
            {"command": None, "program": "train.py"},
            "program=train.py is not crosswalk's; the local",
        ),
        ({"command": ["python", "${program}", "${args}"], "program": "x"}, "program=x is not"),
        ({"method": "custom"}, "method=custom is not one of grid, random, bayes"),
        ({"metric": {"goal": "maximize"}}, "metric.name is missing"),
        ({"metric": {"name": "val/rank1"}}, "metric.goal: more of val/rank1 is better"),
        ({"metric": METRIC | {"goal": "larger"}}, "metric.goal=larger is not one of"),
        ({"metric": METRIC | {"impute": "worst"}}, "metric.impute: Optuna leaves failed trials"),
        ({"metric": METRIC | {"name": "rank1"}}, "Write val/rank1."),
        ({"metric": METRIC | {"name": "map"}}, "metric.name=map: trials are compared by"),
        ({"metric": METRIC | {"name": "train/loss"}}, "metric.name=train/loss: trials are"),
        ({"metric": METRIC | {"target": "high"}}, "metric.target='high' is not a number"),
        ({"parameters": {}}, "parameters names no parameter"),
        ({"parameters": {"quality": {"value": 1}}}, "nothing to search."),
        (
            {"parameters": {"quality": {"value": [0.0, 0.1]}, "epochs": {"value": 3}}},
            "nothing to search. Did you mean values: below quality?",
        ),
        ({"parameters": {"a": {"distribution": "normal"}}}, "parameters.a.distribution=normal"),
        ({"run_cap": 0}, "run_cap=0 is not a number of trials"),
        ({"method": "grid"}, "parameters.quality: a grid takes single values"),
        (
            {
                "method": "grid",
                "parameters": {"a": {"min": 1, "max": 300}, "b": {"min": 1, "max": 99}},
            },
            "the grid has 29700 points",
        ),
        ({"early_terminate": {"type": "median"}}, "early_terminate.type must be hyperband"),
        (
            {"early_terminate": {"type": "hyperband", "min_iter": 1, "strict": True}},
            "early_terminate.strict is not understood",
        ),
        (
            {"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 2.5}},
            "early_terminate.eta=2.5: Optuna takes whole numbers",
        ),
        (
            {"early_terminate": {"type": "hyperband", "min_iter": 1, "max_iter": 9, "s": 1}},
            "write min_iter, or max_iter and s, not both",
        ),
        ({"early_terminate": {"type": "hyperband", "max_iter": 9}}, "early_terminate.s=None"),
        (
            {"early_terminate": {"type": "hyperband", "max_iter": 30, "s": 2}},
            "Write max_iter: 27, or min_iter: 3 alone",
        ),
    ],
)
def test_what_the_local_search_cannot_honour_is_refused_with_its_key(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        sweep_file(tmp_path, **changes)

    assert str(refused.value).startswith(f"{tmp_path / 'fake.yaml'}: ")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"min_iter": 3}, EarlyTermination(3, 3, None)),
        ({"min_iter": 2, "eta": 4}, EarlyTermination(2, 4, None)),
        ({"max_iter": 27, "s": 2}, EarlyTermination(3, 3, 27)),
        ({"max_iter": 8, "s": 1, "eta": 2}, EarlyTermination(4, 2, 8)),
    ],
)
def test_early_termination_begins_where_wandb_begins(
    tmp_path: Path, given: dict[str, int], expected: EarlyTermination
) -> None:
    assert sweep_file(tmp_path, early_terminate={"type": "hyperband", **given}).early == expected


def test_a_grid_lists_whole_numbers_one_by_one(tmp_path: Path) -> None:
    parameters = {"a": {"min": 2, "max": 4}, "b": {"values": ["x", "y"]}, "c": {"value": 1}}

    sweep = sweep_file(tmp_path, method="grid", parameters=parameters)

    assert sweep.parameters["a"] == Choice((2, 3, 4))
    assert sweep.grid_size == 6


def test_words_that_only_describe_a_sweep_are_taken(tmp_path: Path) -> None:
    words = {"name": "a", "description": "b", "project": "c", "entity": "d", "program": "e"}

    assert sweep_file(tmp_path, run_cap=7, **words).run_cap == 7


def test_a_file_is_found_by_its_name_or_suggested(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("")

    assert find_sweep_file(str(own)) == own
    assert find_sweep_file("mar") == config_folder() / "sweep" / "mar.yaml"
    with pytest.raises(FileNotFoundError, match=r"Did you mean mmcl\?"):
        find_sweep_file("mmlc")


@pytest.mark.parametrize("text", ["a: [", "- a\n- b\n"])
def test_what_is_no_sweep_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)

    with pytest.raises(ValueError, match=re.escape(str(path))):
        read_sweep_file(path)


@pytest.mark.parametrize(
    "start",
    [
        *("python -m crosswalk", "python3 -m crosswalk", "python3.11 -u -m crosswalk"),
        *("/opt/env/bin/python -m crosswalk", "${env} ${interpreter} -u -m crosswalk"),
        *("/usr/bin/env python3 -m crosswalk", "env crosswalk", "/opt/env/bin/crosswalk"),
        "${env} ${interpreter} /opt/env/bin/crosswalk",
    ],
)
def test_the_usual_ways_to_start_a_program_are_taken(start: str) -> None:
    command = read_command([*start.split(), "train", "method=rde", "${args_no_hyphens}"])

    assert command.before == ("method=rde",)


@pytest.mark.parametrize("program", [None, "crosswalk", "/opt/env/bin/crosswalk"])
@pytest.mark.parametrize(
    "words",
    [
        None,  # W&B's default
        ["${env}", "${interpreter}", "${program}", "${args}"],
        ["${env}", "${interpreter}", "${program}", "train", "${args}"],
    ],
)
def test_the_program_of_a_file_is_started(
    tmp_path: Path, program: str | None, words: list[str] | None
) -> None:
    sweep = sweep_file(tmp_path, program=program, command=words)

    assert sweep.command.overrides({"optim.lr": 0.1}) == ["--optim.lr=0.1"]
    started = [*COMMAND[:-1], "${args}"]  # what an agent of W&B can start, too
    assert with_overrides(sweep.contents, ["seed=2"])["command"] == [*started, "seed=2"]
