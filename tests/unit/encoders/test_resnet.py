from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from crosswalk.encoders import resnet as module
from crosswalk.encoders.batch_norm import GroupBatchNorm
from crosswalk.encoders.resnet import BlockKind, ResNet, resnet, timm_backbone

TINY = {"stem_width": 4, "planes": (2, 3, 4, 5)}


def randomise(model: nn.Module, seed: int = 1) -> nn.Module:
    """Give vectors other values than their first: untouched statistics would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for row in model.state_dict().values():
        if row.is_floating_point() and row.dim() == 1:
            row.copy_(torch.rand(row.shape, generator=generator, dtype=torch.float64) * 0.5 + 0.3)
    return model


def images(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def library_maps(model: nn.Module, x: Tensor) -> Tensor:
    """Return the maps of a torchvision ResNet before its pooling."""
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    return model.layer4(model.layer3(model.layer2(model.layer1(x))))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_resnet_is_that_of_torchvision(name: str, training: bool) -> None:
    expected = torchvision.models.get_model(name).double().train(training)
    ours = resnet(name).double().train(training)
    weights = {key: row for key, row in expected.state_dict().items() if not key.startswith("fc.")}
    ours.load_state_dict(weights)

    assert_close(ours(images(2, 3, 64, 32)), library_maps(expected, images(2, 3, 64, 32)))
    assert ours.num_features == expected.fc.in_features


@pytest.mark.parametrize("name", ["resnet34", "resnet101", "resnet152"])
def test_deeper_resnets_have_the_shapes_of_torchvision(name: str) -> None:
    with torch.device("meta"):
        expected, ours = torchvision.models.get_model(name).state_dict(), resnet(name).state_dict()

    shapes = {key: row.shape for key, row in expected.items() if not key.startswith("fc.")}
    assert {key: row.shape for key, row in ours.items()} == shapes


@pytest.mark.parametrize(("block", "conv"), [("basic", "conv1"), ("bottleneck", "conv2")])
def test_last_stride_1_is_that_of_the_entry_block_of_the_last_stage(
    block: BlockKind, conv: str
) -> None:
    model = ResNet((1, 1, 2, 2), block=block, **TINY).double()
    finer = ResNet((1, 1, 2, 2), block=block, last_stride=1, **TINY).double()
    randomise(model)
    finer.load_state_dict(model.state_dict())
    for convolution in (getattr(model.layer4[0], conv), model.layer4[0].downsample[0]):
        assert convolution.stride == (2, 2)
        convolution.stride = (1, 1)
    x = images(2, 3, 64, 32)

    assert finer.eval()(x).shape[2:] == (4, 2)
    assert_close(finer(x), model.eval()(x))


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_the_last_relu_is_left_out_and_no_other(block: BlockKind) -> None:
    model = randomise(ResNet((1, 2), block=block, stem_width=3, planes=(2, 3)).double())
    model.layer2[-1].get_submodule("bn3" if block == "bottleneck" else "bn2").bias.data -= 1
    linear = ResNet((1, 2), block=block, stem_width=3, planes=(2, 3), last_relu=False).double()
    linear.load_state_dict(model.state_dict())
    x = images(3, 3, 32, 16)

    out = linear.eval()(x)

    assert out.min().item() < 0
    assert_close(out.relu(), model.eval()(x))


def test_every_normalisation_has_the_group_size() -> None:
    model = resnet("tiny", group_size=3)

    norms = [layer for layer in model.modules() if "Norm" in type(layer).__name__]
    assert len(norms) == 1 + 4 * 2 + 3
    assert {type(norm) for norm in norms} == {GroupBatchNorm}
    assert {norm.group_size for norm in norms} == {3}


def test_groups_of_a_batch_do_not_see_each_other() -> None:
    model = randomise(resnet("tiny", group_size=2).double())
    x = images(4, 3, 64, 32)

    together = model(x)

    assert_close(together[:2], model(x[:2]))
    assert_close(together[2:], model(x[2:]))


def test_convolutions_start_with_the_published_spread() -> None:
    torch.manual_seed(0)
    convolution = resnet("resnet18").layer3[0].conv2.weight

    assert float(convolution.std()) == pytest.approx((2 / (3 * 3 * 256)) ** 0.5, rel=0.01)
    assert float(convolution.mean()) == pytest.approx(0, abs=1e-3)


def test_the_tiny_resnet_gives_a_map_of_8_by_4_positions() -> None:
    assert resnet("tiny", last_stride=1)(torch.zeros(2, 3, 128, 64)).shape == (2, 128, 8, 4)
    assert resnet("tiny", max_pool=False)(torch.zeros(2, 3, 96, 48)).shape == (2, 128, 6, 3)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"encoder.backbone.name='resnet51' is none of resnet18"):
        resnet("resnet51")
    with pytest.raises(ValueError, match="planes of 4 stages"):
        ResNet((1, 1), block="basic")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_local_file_is_loaded_without_its_classifier(tmp_path: Path, suffix: str) -> None:
    state = randomise(resnet("tiny")).state_dict()
    path = tmp_path / f"w{suffix}"
    # as the first ImageNet weights: with a classifier, without counters
    stored = {name: row for name, row in state.items() if "num_batches" not in name}
    stored |= {"fc.weight": torch.zeros(5, 128), "fc.bias": torch.zeros(5)}
    save_file(stored, path) if suffix == ".safetensors" else torch.save(stored, path)

    assert_close(resnet("tiny", pretrained=str(path)).state_dict(), state)


def test_weights_of_another_resnet_are_refused(tmp_path: Path) -> None:
    torch.save(resnet("resnet18").state_dict(), tmp_path / "w.pth")

    with pytest.raises(ValueError, match=r"encoder.backbone.pretrained=.*w\.pth does not fit"):
        resnet("tiny", pretrained=str(tmp_path / "w.pth"))


def test_a_misspelt_tag_is_answered_with_those_there_are() -> None:
    with pytest.raises(FileNotFoundError, match=r"nor a tag of resnet50 .*resnet50\.tv_in1k"):
        resnet("resnet50", pretrained="resnet50.tv_in2k")
    with pytest.raises(FileNotFoundError, match=r"nor a tag of tiny in timm \(tags: none\)"):
        resnet("tiny", pretrained="resnet50.tv_in1k")


def test_the_weights_of_a_tag_are_those_that_timm_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = randomise(timm.create_model("resnet18", pretrained=False))
    asked = []

    def create_model(name: str, **arguments: object) -> nn.Module:
        asked.append((name, arguments))
        return stand_in

    monkeypatch.setattr(timm, "create_model", create_model)

    model = resnet("resnet18", pretrained="resnet18.tv_in1k")

    assert asked == [("resnet18.tv_in1k", {"pretrained": True})]
    assert_close(model.state_dict(), module._without(stand_in.state_dict(), ["fc"]))


@pytest.mark.parametrize(
    "build",
    [
        partial(resnet, "resnet18", pretrained="resnet18.tv_in1k"),
        partial(timm_backbone, "resnet18.tv_in1k"),
    ],
    ids=["resnet", "timm_backbone"],
)
def test_a_failed_download_says_what_to_fetch(
    monkeypatch: pytest.MonkeyPatch, build: Callable[[], nn.Module]
) -> None:
    def fail(*_: object, **__: object) -> nn.Module:
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", fail)

    message = r"resnet18\.tv_in1k could not .*no network.*timm/resnet18\.tv_in1k.*pretrained=<file>"
    with pytest.raises(FileNotFoundError, match=message):
        build()


@pytest.mark.parametrize(
    ("name", "size"), [("resnet10t", 512), ("vit_tiny_patch16_224", 192), ("lcnet_050", 1280)]
)
def test_a_timm_backbone_computes_what_timm_does(name: str, size: int) -> None:
    torch.manual_seed(0)
    ours = timm_backbone(name, pretrained=False, image_size=(64, 32), group_size=2).double()
    arguments = {"img_size": (64, 32)} if name.startswith("vit") else {}
    expected = timm.create_model(name, pretrained=False, num_classes=0, **arguments).double()
    expected.load_state_dict(randomise(ours).state_dict())
    x = images(4, 3, 64, 32)

    halves = torch.cat([expected(x[:2]), expected(x[2:])])  # in training mode: groups of two
    assert_close(ours(x), halves)
    assert_close(ours.state_dict(), expected.state_dict())
    assert_close(ours.eval()(x), expected.eval()(x))
    assert ours.num_features == size == halves.shape[1]


def test_a_timm_file_is_loaded_without_its_head_and_fitted_to_the_image_size(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    stored = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=(64, 64))
    torch.save(stored.state_dict(), tmp_path / "w.pth")

    model = timm_backbone(
        "vit_tiny_patch16_224", pretrained=str(tmp_path / "w.pth"), image_size=(128, 64)
    )

    assert model.pos_embed.shape == (1, 1 + 8 * 4, 192)
    for name, row in model.state_dict().items():
        assert name == "pos_embed" or torch.equal(row, stored.state_dict()[name])


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_a_timm_file_with_other_names_is_refused(tmp_path: Path, change: str) -> None:
    state = timm.create_model("resnet10t", pretrained=False).state_dict()
    if change == "missing":
        del state["layer4.0.bn2.weight"]
    else:
        state["layer5.0.bn2.weight"] = torch.zeros(2)
    torch.save(state, tmp_path / "w.pth")

    with pytest.raises(ValueError, match=r"w\.pth does not fit resnet10t.*0\.bn2\.weight"):
        timm_backbone("resnet10t", pretrained=str(tmp_path / "w.pth"))


def test_a_missing_file_and_an_unknown_model_are_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"encoder.backbone.pretrained: .*none\.pth is"):
        timm_backbone("resnet10t", pretrained="none.pth")
    with pytest.raises(ValueError, match=r"'resnet10tt' is no model of timm. Near: resnet10t"):
        timm_backbone("resnet10tt", pretrained=False)
    with pytest.raises(ValueError, match=r"'vit' is no model of timm. Near: \S*vit\S*, "):
        timm_backbone("vit", pretrained=False)
    with pytest.raises(ValueError, match=r"no model of timm. timm.list_models\(\) lists them"):
        timm_backbone("zzz", pretrained=False)
    with pytest.raises(ValueError, match=r"tag that timm does not know; it has resnet10t\."):
        timm_backbone("resnet10t.none", pretrained=False)
