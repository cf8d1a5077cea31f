"""Every configuration file composes, and every value fits the constructor it is for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crosswalk.config.check import check
from crosswalk.config.compose import compose
from crosswalk.config.plain import to_plain
from crosswalk.config.search import config_folder, group_values

# What a file is for, where that is not the default method; first match of the choice's beginning.
COMPANY = {
    "encoder=resnet50_two_stream": ["method=cm_moco"],
    "encoder=clip_rn50_global": ["method=irra"],
    "encoder=clip_rn101_global": ["method=irra"],
    "encoder=clip_resnet_tiny_global": ["method=irra"],
    "encoder=clip_tiny_global": ["method=irra"],
    "encoder=clip_vit_b16_global": ["method=irra"],
    "mlm=": ["method=irra"],
    "encoder=clip_layers_r": ["method=clip_reid", "data=market1501"],
    "encoder=clip_layers": ["method=clip_reid"],
    "encoder=clip_r": ["method=cm_moco"],
    "encoder=resnet50_normed": ["method=cmmt"],
    "encoder=resnet_tiny_normed": ["method=cmmt"],
    "encoder=mobilenet_normed": ["method=cmmt"],
    "text=lstm": ["method=cmmt"],
    "text=": ["method=cm_moco"],
    "encoder=resnet": ["method=supervised"],
    "encoder=timm": ["method=supervised", "encoder.backbone.name=resnet10t"],
    "optim=sgd_step": ["method=mar"],
    "optim=sgd": ["method=mmcl"],
    "loss=m": ["method=mmcl"],
    "labels=": ["method=mmcl"],
    "transform=mmcl": ["method=mmcl"],
    "transform=mar": ["method=mar"],
    "transform=": ["method=supervised"],
    "data=own_images": ["method=supervised"],
    "data=market": ["method=mmcl"],
    "data=occluded_duke": ["method=clip_reid"],
    "data=duke": ["method=mmcl"],
    "data=msmt17_to": ["method=mar"],
    "data=msmt17": ["method=mmcl"],
    "data=synthetic_images": ["method=mmcl"],
    "data=synthetic_transfer": ["method=mar"],
}
GROUPS = (
    *(
        "loss",
        "division",
        "mlm",
        "labels",
        "encoder",
        "transform",
        "text",
        "optim",
        "logger",
        "data",
    ),
    *("method", "reranking"),
)
CHOICES = [f"{group}={value}" for group in GROUPS for value in group_values(group)]
PUBLISHED = [
    experiment
    for experiment in group_values("experiment")
    if experiment.split("/")[1] in group_values("data")
]
FILES = sorted(config_folder().rglob("*.yaml"))


def check_all(overrides: list[str]) -> None:
    check(compose([*overrides, "trainer.accelerator=cpu"]))


@pytest.mark.parametrize("experiment", group_values("experiment"))
def test_an_experiment_fits_the_constructors(experiment: str) -> None:
    check_all([f"experiment={experiment}"])


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_an_experiment_is_what_its_method_and_data_select(experiment: str) -> None:
    method, data = experiment.split("/")

    config = compose([f"method={method}", f"data={data}"])

    assert config == compose([f"experiment={experiment}"])
    assert config.choices.method == method
    assert config.choices.data == data


@pytest.mark.parametrize("choice", CHOICES)
def test_a_group_file_fits_the_constructors(choice: str) -> None:
    beginnings = (each for each in COMPANY if choice.startswith(each))
    check_all([choice, *COMPANY.get(next(beginnings, ""), [])])


@pytest.mark.parametrize("trainer", group_values("trainer"))
def test_a_trainer_file_keeps_lightning_from_changing_loaders(trainer: str) -> None:
    config = to_plain(compose([f"trainer={trainer}"]))

    assert config["trainer"]["use_distributed_sampler"] is False
    assert config["trainer"]["num_sanity_val_steps"] == 0
    if isinstance(config["trainer"]["strategy"], dict):
        assert config["trainer"]["strategy"]["broadcast_buffers"] is False


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(config_folder())))
def test_every_number_of_a_configuration_has_a_source(path: Path) -> None:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        value = re.match(r"\s*(?:- )?\w+:\s+(\[?-?[\d.]+.*)", line)
        if value is not None:
            assert "#" in line, f"{path}:{number}: {line.strip()} says no source"


@pytest.mark.parametrize("more", [[], ["data=msmt17_to_market1501"], ["data=synthetic_transfer"]])
def test_mar_and_its_stage_resize_as_the_released_preparation_of_its_data(more: list[str]) -> None:
    trained = compose(["method=mar", *more])
    stage = compose(["experiment=supervised/mar_stage"])

    assert trained.data.interpolation == stage.data.interpolation == "bicubic"
    assert trained.data.eval_interpolation is None  # as in training
