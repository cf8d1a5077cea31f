"""Which encoders a method takes, and that others are named."""

from __future__ import annotations

import pytest

from crosswalk.config.check import check
from crosswalk.config.compose import compose
from crosswalk.config.encoder_kinds import fits_by_import, fits_by_source
from crosswalk.config.search import group_values, read_group_file


@pytest.mark.parametrize("method", group_values("method"))
@pytest.mark.parametrize("encoder", group_values("encoder"))
def test_which_encoders_go_with_a_method_is_read_from_the_source(method: str, encoder: str) -> None:
    target = read_group_file("method", method)["method"]["_target_"]
    node = read_group_file("encoder", encoder)

    assert "_target_" in node
    found = fits_by_source(node, target, "encoder")
    assert found == fits_by_import(node, target, "encoder")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=rde", "encoder=timm"], "encoder=timm does not go with method=rde: .*clip_tiny"),
        (["method=mmcl", "encoder=clip_tiny"], "Choose one of encoder=resnet50, encoder=resnet50_"),
        (["method=cmmt", "encoder=resnet50"], "an ImageEncoder, and the method takes a TwoStream"),
    ],
)
def test_an_encoder_of_another_kind_is_told_those_that_fit(
    overrides: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check(compose(overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["encoder=vit"],
            r"Did you mean clip_vit_b16\? With method=rde go: clip_tiny, [^.]*_global\.$",
        ),
        (
            ["experiment=mmcl/market1501", "encoder=vit"],
            r"exist\. With method=mmcl go: [^.]*timm\.$",
        ),
        (
            ["method=mmcl", "encoder=resnet18d"],
            r"\. A model of timm: .*backbone\.name=resnet18d\.$",
        ),
        (["method=rde", "encoder=resnet18d"], r"exist\. With method=rde go: [^.]*\.$"),
        (["method=cmmt", "encoder=ResNet50-normd"], r"Did you mean resnet50_normed\? With"),
    ],
)
def test_an_encoder_that_is_not_there_is_told_those_of_the_method(
    overrides: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        compose(overrides)
