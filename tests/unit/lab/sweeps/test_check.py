import re
from pathlib import Path
from typing import Any

import pytest

from crosswalk.lab.sweeps.check import check_sweep
from tests.unit.lab.sweeps.small_sweeps import COMMAND, METRIC, sweep_file

FIXED = [*COMMAND[:-1], "method=rde", "protocol=val", COMMAND[-1]]
LR = {"optim.lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-3}}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"method.loss.margn": {"values": [0.1]}}, "Did you mean method.loss.margin?"),
        (
            {"loss": {"values": ["triplet_alignment", "tripplet_ranking"]}},
            "parameters.loss=tripplet_ranking: loss=tripplet_ranking does not exist.",
        ),
        (
            {"method.loss.temperature": {"values": [0.1, "hot"]}},
            "parameters.method.loss.temperature=hot: method.loss.temperature='hot' is of type str",
        ),
        (
            {"optim.schedule.warmup_epochs": {"values": [1, 2], "distribution": "categorical"}}
            | {"data.batch_size": {"values": [64, 64.5]}},
            "parameters.data.batch_size=64.5: data.batch_size=64.5 is of type float",
        ),
        ({"trainer.max_epochs": {"min": 1.0, "max": 2.5}}, "trainer.max_epochs=1.0"),
        ({"output_dir": {"values": ["a"]}}, "output_dir is set by the sweep for each trial"),
        ({"method": {"values": ["rde", "cmmt"]}}, "method=rde: method is a parameter"),
        (
            {"loss": {"values": ["triplet_alignment", "info_nce"]}}
            | {"method.loss.margin": {"values": [0.1, 0.2]}},
            "parameters.loss=info_nce: method.loss.margin is not a key",
        ),
    ],
)
def test_a_wrong_name_or_value_is_found_before_the_first_trial(
    tmp_path: Path, parameters: dict[str, Any], message: str
) -> None:
    sweep = sweep_file(tmp_path, command=FIXED, parameters=LR | parameters)

    with pytest.raises(ValueError, match=re.escape(message)):
        check_sweep(sweep)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optim.lr=0.1"], "optim.lr=0.1: optim.lr is a parameter of the sweep"),
        (["name=mine"], "name is set by the sweep"),
        (
            ["trainer.max_epochs=2", "trainer.max_epoch=1"],
            "trainer.max_epoch=1: Lightning's Trainer has no argument max_epoch",
        ),
    ],
)
def test_a_wrong_further_override_is_found_too(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    sweep = sweep_file(tmp_path, command=FIXED, parameters=LR)

    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        check_sweep(sweep, overrides)


def test_a_training_that_measures_nothing_is_refused(tmp_path: Path) -> None:
    """Image sets have no val split, so nothing is measured unless protocol=val makes one."""
    command = [*COMMAND[:-1], "method=supervised", COMMAND[-1]]
    sweep = sweep_file(tmp_path, command=command, parameters=LR)

    with pytest.raises(ValueError, match=r"with protocol=last\. Add protocol=val to command"):
        check_sweep(sweep)


def test_trials_are_compared_on_test_only_where_the_protocol_measures_it(tmp_path: Path) -> None:
    on_test = sweep_file(
        tmp_path, command=FIXED, parameters=LR, metric=METRIC | {"name": "test/map"}
    )

    check_sweep(on_test, ["protocol=official"])
    with pytest.raises(ValueError, match="Write val/map: choosing on test"):
        check_sweep(on_test)


def test_the_configuration_of_the_first_trial_comes_back(tmp_path: Path) -> None:
    sweep = sweep_file(tmp_path, command=FIXED, parameters=LR | {"seed": {"values": [5, 6]}})

    config = check_sweep(sweep, ["logger=csv"])

    assert (config["seed"], config["optim"]["lr"]) == (5, 1e-5)
    assert config["logger"]["wandb"] is None
