import re

import pytest

from crosswalk.lab.sweeps.sweep_file import read_command

START = ["${env}", "${interpreter}", "-m", "crosswalk", "train"]


@pytest.mark.parametrize(
    ("macro", "expected"),
    [
        ("${args_no_hyphens}", "optim.lr=0.1"),
        ("${args}", "--optim.lr=0.1"),
        ("${args_append_hydra}", "+optim.lr=0.1"),
        ("${args_override_hydra}", "++optim.lr=0.1"),
    ],
)
def test_parameters_are_written_as_the_macro_says(macro: str, expected: str) -> None:
    command = read_command([*START, "method=rde", macro, "seed=2"])

    assert command.overrides({"optim.lr": 0.1}) == ["method=rde", expected, "seed=2"]


def test_values_are_written_as_the_agent_of_wandb_writes_them() -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    values = {"a": 1e-5, "b": True, "c": "text", "d": 3, "e": "[96, 32]"}
    arguments = {name: {"value": value} for name, value in values.items()}
    arguments["e"] = {"value": [96, 32]}

    ours = read_command([*START, "${args_no_hyphens}"]).overrides(values)

    assert ours == create_sweep_command_args({"args": arguments})["args_no_hyphens"]


def test_a_command_may_start_the_program_and_read_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PEOPLE", "/datasets")

    command = read_command(
        ["crosswalk", "train", "data.root=${envvar:PEOPLE}", "${args_no_hyphens}"]
    )

    assert command.fixed == ("data.root=/datasets",)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (None, "command=None is no list of words"),
        ("python train.py", "is no list of words"),
        (["${env}", "python", "train.py", "${args}"], "command starts ${env} python train.py"),
        ([*START, "method=rde"], "command must hold ${args_no_hyphens} once"),
        ([*START, "${args}", "${args_no_hyphens}"], "command must hold ${args_no_hyphens} once"),
        ([*START, "${args_json}"], "command: ${args_json} is not understood here"),
        ([*START, "${args_no_boolean_flags}"], "${args_no_boolean_flags} is not understood"),
    ],
)
def test_another_command_is_refused(words: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read_command(words)
