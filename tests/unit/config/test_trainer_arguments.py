from __future__ import annotations

import inspect
from datetime import timedelta

import lightning.pytorch as L
import pytest
from lightning.pytorch.strategies import DDPStrategy

from crosswalk.config.check import check
from crosswalk.config.compose import compose
from crosswalk.config.trainer_arguments import num_processes, trainer_keys, trainer_settings


def test_every_argument_of_lightnings_trainer_is_known() -> None:
    assert set(trainer_keys()) == set(inspect.signature(L.Trainer).parameters)


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ({"devices": 1}, 1),
        ({"devices": 3, "num_nodes": 2}, 6),
        ({"devices": "4"}, 4),
        ({"devices": [0, 2]}, 2),
        ({"devices": "0,1,5"}, 3),
        ({"accelerator": "cpu", "devices": "auto"}, 1),
        ({"accelerator": "cpu", "devices": -1, "num_nodes": 2}, 2),
    ],
)
def test_processes_are_devices_times_nodes(trainer: dict[str, object], expected: int) -> None:
    assert num_processes(trainer) == expected


def test_one_process_gets_no_strategy() -> None:
    assert trainer_settings({"devices": 1, "strategy": "auto"})["strategy"] == "auto"


@pytest.mark.parametrize(
    "strategy", ["auto", "ddp", "ddp_spawn", "ddp_find_unused_parameters_true"]
)
def test_several_processes_keep_their_own_buffers(strategy: str) -> None:
    settings = trainer_settings({"accelerator": "cpu", "devices": 2, "strategy": strategy})

    assert isinstance(settings["strategy"], DDPStrategy)
    assert settings["strategy"]._ddp_kwargs == {
        "broadcast_buffers": False,
        "gradient_as_bucket_view": True,
        "find_unused_parameters": strategy.endswith("_true"),
    }
    assert settings["strategy"]._start_method == ("spawn" if "spawn" in strategy else "popen")


@pytest.mark.parametrize(
    "strategy", ["auto", "ddp", {"_target_": "lightning.pytorch.strategies.DDPStrategy"}]
)
def test_processes_wait_for_each_other_as_long_as_the_environment_says(
    strategy: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = {"accelerator": "cpu", "devices": 2, "strategy": strategy}
    usual = trainer_settings(trainer)["strategy"]._timeout
    monkeypatch.setenv("CROSSWALK_TIMEOUT", "77")

    assert trainer_settings(trainer)["strategy"]._timeout == timedelta(seconds=77)
    assert usual == timedelta(minutes=30)


@pytest.mark.parametrize("given", ["", "0", "-1", "5m", "1.5"])
def test_a_time_that_is_no_number_of_seconds_is_refused(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSWALK_TIMEOUT", given)

    with pytest.raises(ValueError, match=f"CROSSWALK_TIMEOUT={given} is no whole number"):
        trainer_settings({"devices": 1})


def test_a_wrong_type_is_named_by_its_key() -> None:
    with pytest.raises(ValueError, match=r"trainer\.max_epochs='ten' is of type str"):
        trainer_settings({"max_epochs": "ten"})


def test_a_trainer_without_a_number_of_epochs_is_refused() -> None:
    overrides = ["method=mmcl", "~trainer.max_epochs", "optim.schedule.num_epochs=3"]

    with pytest.raises(ValueError, match=r"trainer\.max_epochs=null: .* Set trainer\.max_epochs="):
        check(compose(overrides))
