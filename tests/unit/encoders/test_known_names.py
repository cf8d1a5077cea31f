from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models import get_model

from crosswalk.encoders.known_names import from_torchvision
from crosswalk.encoders.resnet import resnet, timm_backbone


def shaken(name: str) -> nn.Module:
    """Return torchvision's model with statistics that differ from channel to channel."""
    torch.manual_seed(0)
    model: nn.Module = get_model(name, weights=None).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


def features(model: nn.Module, image: Tensor) -> Tensor:
    """Return what torchvision's model gives to its last layer."""
    *_, last = (module for module in model.modules() if isinstance(module, nn.Linear))
    seen: list[Tensor] = []
    last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        model(image)
    return seen[0]


@pytest.mark.parametrize(
    ("timm_name", "name", "eps"),
    [
        ("mobilenetv2_100", "mobilenet_v2", None),
        ("mobilenetv3_small_100", "mobilenet_v3_small", 1e-3),
        ("efficientnet_b0", "efficientnet_b0", None),
    ],
)
def test_weights_of_torchvision_make_the_same_network(
    tmp_path: Path, timm_name: str, name: str, eps: float | None
) -> None:
    theirs = shaken(name)
    weights = {f"module.{each}": row for each, row in theirs.state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "w.pth")
    image = torch.randn(1, 3, 224, 224)

    ours = timm_backbone(timm_name, pretrained=str(tmp_path / "w.pth"), eps=eps).eval()

    with torch.no_grad():
        torch.testing.assert_close(ours(image), features(theirs, image), atol=1e-4, rtol=1e-4)
    if eps is not None:  # which no weight tells, so that a rebuilt network would lack it
        with pytest.raises(ValueError, match=r"Pass \+encoder\.backbone\.eps=0\.001\.$"):
            timm_backbone(timm_name, pretrained=str(tmp_path / "w.pth"))


def test_a_vision_transformer_of_torchvision_gets_timms_names() -> None:
    with torch.device("meta"):
        theirs = get_model("vit_b_32", weights=None).state_dict()
        wanted = timm.create_model("vit_base_patch32_224", num_classes=0).state_dict()

    found = from_torchvision("vit_base_patch32_224.augreg_in21k", theirs, wanted)

    layer = "encoder.layers.encoder_layer_3"
    assert list(found) == list(wanted)
    assert found["pos_embed"] is not found["cls_token"]
    assert found["pos_embed"].shape == theirs["encoder.pos_embedding"].shape
    for ours, each in {
        "blocks.3.attn.qkv.weight": f"{layer}.self_attention.in_proj_weight",
        "blocks.3.attn.proj.bias": f"{layer}.self_attention.out_proj.bias",
        "blocks.3.norm2.weight": f"{layer}.ln_2.weight",
        "blocks.3.mlp.fc1.weight": f"{layer}.mlp.0.weight",
        "norm.bias": "encoder.ln.bias",
    }.items():
        assert found[ours].untyped_storage()._cdata == theirs[each].untyped_storage()._cdata


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "base.", "module._orig_mod.model."])
@pytest.mark.parametrize("head", ["fc", "classifier"])
def test_a_resnet_is_read_under_the_names_of_other_libraries(
    tmp_path: Path, prefix: str, head: str
) -> None:
    theirs = resnet("tiny")
    state = {**theirs.state_dict(), f"{head}.weight": torch.zeros(7, 128)}
    torch.save({"state_dict": {prefix + name: row for name, row in state.items()}}, tmp_path / "w")

    ours = resnet("tiny", pretrained=str(tmp_path / "w"))

    assert all(torch.equal(row, state[name]) for name, row in ours.state_dict().items())


def test_another_architecture_is_refused_in_few_words(tmp_path: Path) -> None:
    torch.save(resnet("tiny").state_dict(), tmp_path / "w.pth")

    with pytest.raises(ValueError, match="the weights are a ResNet") as refused:
        timm_backbone("vit_tiny_patch16_224", pretrained=str(tmp_path / "w.pth"))
    assert len(str(refused.value)) < 1000
    with pytest.raises(ValueError, match=r"encoder\.backbone\.name") as refused:
        resnet("resnet18", pretrained=str(tmp_path / "w.pth"))
    assert len(str(refused.value)) < 1000
