from __future__ import annotations

import re
from pathlib import Path

import pytest

from crosswalk.config import starting_weights
from crosswalk.config.check import check_early
from crosswalk.config.compose import compose, goes_with
from crosswalk.config.encoder_kinds import check_encoders
from crosswalk.config.model_file import read_description
from crosswalk.config.plain import nested, to_plain
from crosswalk.config.search import group_values
from crosswalk.config.starting_weights import random_weights, without_fetching
from crosswalk.encoders.clip_weights import local_file

OWN = "method=rde data=own_pairs data.root=pairs.csv"


@pytest.mark.parametrize(
    ("words", "key", "usual"),
    [
        (f"{OWN} encoder=clip_tiny", "encoder.clip.pretrained=null", "encoder=clip_vit_b16"),
        (
            f"{OWN} encoder.clip.pretrained=null",
            "encoder.clip.pretrained=null",
            "pretrained=openai",
        ),
        (
            "method=mmcl data=own_images encoder=timm encoder.backbone.name=resnet18 "
            "encoder.backbone.pretrained=false",
            "encoder.backbone.pretrained=false",
            "encoder=resnet50",
        ),
    ],
)
def test_an_encoder_without_weights_is_noted_where_the_method_has_one_with(
    words: str, key: str, usual: str
) -> None:
    (notice,) = random_weights(to_plain(compose(words.split())))

    assert notice.startswith(f"{key}: the encoder starts from random weights")
    assert usual in notice


@pytest.mark.parametrize(
    "words",
    [
        *(f"method={method}" for method in group_values("method")),
        OWN,
        f"{OWN} encoder=clip_tiny encoder.clip.pretrained=tiny_clip.safetensors",
        f"{OWN} checkpoint=tiny:rde",
        "experiment=rde/pretrain_tiny",
    ],
)
def test_a_training_as_it_is_set_up_or_from_a_checkpoint_has_no_such_note(words: str) -> None:
    assert random_weights(to_plain(compose(words.split()))) == []


PUBLISHED = sorted(
    (run.split("/")[0], run.split("/")[1])
    for run in group_values("experiment")
    if "synthetic" not in run and run.split("/")[1] in group_values("data")
)
"""Methods, and published data sets that they are trained on."""


@pytest.mark.parametrize("shipped", [True, False])
@pytest.mark.parametrize(("method", "data"), [run for run in PUBLISHED if run[0] != "clip_reid"])
def test_the_way_without_published_weights_needs_none_and_fits_the_method(
    method: str, data: str, shipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shipped:
        monkeypatch.setattr(starting_weights, "SHIPPED", tmp_path)
    words = [f"method={method}", f"data={data}", "data.root=/data"]

    said = without_fetching(to_plain(compose(words)))
    advised = re.findall(r"\b(?:checkpoint|encoder|text)=[\w:]+", said)

    assert advised
    assert shipped or not advised[0].startswith("checkpoint")
    config = compose([*words, *advised])
    check_early(config)
    check_encoders(config, goes_with)
    plain = to_plain(config)
    if plain["checkpoint"] is None:
        plain["stage"] = None  # its encoder is the run's
        weights = [value for key, value in nested(plain) if key.endswith("pretrained") and value]
        assert all(local_file(value) for value in weights)
    else:  # of the very shapes
        stored = read_description(Path(plain["checkpoint"]) / "config.json")
        assert stored["vocabulary"] is None
        assert stored["encoder"]["_target_"] == plain["encoder"]["_target_"]
        assert stored["preprocessing"]["image_size"] == plain["data"]["image_size"]


def test_no_way_is_named_where_the_texts_of_a_stage_need_published_weights() -> None:
    assert without_fetching(to_plain(compose(["method=clip_reid", "data=market1501"]))) == ""
