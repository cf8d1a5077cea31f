"""What a training says of an encoder that starts from random weights."""

from __future__ import annotations

import pytest

from crosswalk.config.compose import compose, to_plain
from crosswalk.config.search import group_values
from crosswalk.run.train import random_weights

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
