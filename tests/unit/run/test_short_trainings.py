from typing import Any

import pytest

from crosswalk.config.compose import compose
from crosswalk.config.plain import to_plain
from crosswalk.config.trainer_arguments import check_hardware
from crosswalk.run.train import _all_warmup


def configured(*overrides: str) -> dict[str, Any]:
    return to_plain(compose(overrides))


@pytest.mark.parametrize(
    ("schedule", "epochs", "warmup", "is_said"),
    [
        ("WarmupSchedule", 3, 3, True),
        ("WarmupSchedule", 1, 5, True),
        ("WarmupSchedule", 4, 3, False),
        ("WarmupSchedule", 1, 0, False),
        ("WarmupSchedule", 0, 5, False),
        ("CosineFromStart", 3, 4, True),
        ("CosineFromStart", 3, 3, False),
    ],
)
def test_a_training_that_ends_within_its_warm_up_is_told(
    schedule: str, epochs: int, warmup: int, is_said: bool
) -> None:
    config = configured("method=rde", f"trainer.max_epochs={epochs}")
    node = {"num_epochs": epochs, "warmup_epochs": warmup}
    if schedule == "WarmupSchedule":
        node["decay"] = config["optim"]["schedule"]["decay"]
    config["optim"]["schedule"] = {"_target_": f"crosswalk.optim.{schedule}", **node}

    said = " ".join(_all_warmup(config))

    assert (f"warmup_epochs={warmup}, trainer.max_epochs={epochs})" in said) == is_said
    assert bool(said) == is_said


@pytest.mark.parametrize("precision", ["16", "16-mixed"])
def test_mixing_that_a_cpu_cannot_do_is_refused_and_not_replaced(precision: str) -> None:
    trainer = configured("trainer=cpu", f"trainer.precision={precision}")["trainer"]

    with pytest.raises(ValueError, match=rf"trainer\.precision={precision}: .*=bf16-mixed"):
        check_hardware(trainer)


@pytest.mark.parametrize(
    ("gpus", "overrides", "told"),
    [
        (0, ["+trainer.accelerator=gpu"], r"accelerator=gpu: PyTorch sees no GPU .*trainer=cpu"),
        (0, ["trainer=cpu", "trainer.devices=-1"], r"devices=-1 means all GPUs.*devices=1\."),
        (0, ["+trainer.devices=[0]"], r"devices=\[0\] names GPUs, .* on a CPU.*devices=1\."),
        (0, ["+trainer.devices='0,1'"], r"devices=0,1 names GPUs, .* on a CPU"),
        (2, ["+trainer.devices=3"], r"devices=3: this machine has 2 GPUs, numbered from 0"),
        (2, ["+trainer.devices=[0,2]"], r"devices=\[0, 2\]: this machine has 2 GPUs"),
    ],
)
def test_devices_that_this_machine_lacks_are_refused(
    gpus: int, overrides: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)

    with pytest.raises(ValueError, match=rf"trainer\.{told}"):
        check_hardware(configured(*overrides)["trainer"])


def test_mixing_that_a_cpu_can_do_is_taken() -> None:
    check_hardware(configured("trainer=cpu", "trainer.precision=bf16-mixed")["trainer"])
