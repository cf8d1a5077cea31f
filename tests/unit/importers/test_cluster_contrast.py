from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from crosswalk.config.model_file import HEADER
from crosswalk.encoders.gem import GemPool
from crosswalk.encoders.ibn import with_ibn
from crosswalk.encoders.image import ImageEncoder
from crosswalk.encoders.resnet import ResNet
from crosswalk.files import safetensors_header
from crosswalk.importers.cluster_contrast import (
    architecture_of,
    import_cluster_contrast,
    read_cluster_contrast,
    recipe_of,
)
from crosswalk.run.weights import run_import

SIZES = {"block": "bottleneck", "layers": (1, 2, 1, 1), "stem_width": 3, "planes": (2, 4, 2, 3)}
OFFICIAL = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
RECORDED = Path(__file__).parents[2] / "golden" / "data" / "cluster_contrast"


def encoder(*, gem: bool = True, ibn: bool = False) -> ImageEncoder:
    torch.manual_seed(1)
    backbone = ResNet(**SIZES, last_stride=1)
    model = ImageEncoder(
        with_ibn(backbone) if ibn else backbone,
        neck_bias=False,
        pooling=GemPool() if gem else None,
    )
    for row in model.state_dict().values():
        row.copy_(torch.rand(row.shape) * 9)
    return model


def official_state(model: ImageEncoder, prefix: str = "module.") -> dict[str, Tensor]:
    """Return the weights as the official code saves them."""
    state = {}
    for name, row in model.state_dict().items():
        part, _, rest = name.partition(".")
        if part == "backbone":
            stage, _, rest = rest.partition(".")
            name = f"base.{OFFICIAL[stage]}.{rest}"
        else:
            name = f"{ {'pooling': 'gap', 'neck': 'feat_bn'}[part] }.{rest}"
        state[prefix + name] = row
    return state


every_kind = pytest.mark.parametrize("gem", [True, False], ids=["gem", "average"])
with_and_without = pytest.mark.parametrize("ibn", [True, False], ids=["ibn", "plain"])


@every_kind
@with_and_without
@pytest.mark.parametrize("prefix", ["", "module."])
def test_official_weights_become_the_same_encoder(
    tmp_path: Path, gem: bool, ibn: bool, prefix: str
) -> None:
    model = encoder(gem=gem, ibn=ibn)
    torch.save({"state_dict": official_state(model, prefix), "epoch": 3}, tmp_path / "a.pth.tar")

    imported = import_cluster_contrast(read_cluster_contrast(tmp_path / "a.pth.tar"))

    assert_close(imported, dict(model.state_dict()), rtol=0, atol=0)


@every_kind
@with_and_without
def test_pooling_ibn_and_sizes_are_read_from_the_weights(gem: bool, ibn: bool) -> None:
    architecture = architecture_of(official_state(encoder(gem=gem, ibn=ibn), ""))

    assert architecture == {
        "name": None,
        "pooling": "gem" if gem else "average",
        "ibn": ibn,
        "backbone": SIZES | {"last_stride": 1, "last_relu": True},
    }
    recipe = recipe_of(architecture)
    assert ("encoder.pooling" in recipe) == (not gem)
    target = "crosswalk.encoders.ibn.with_ibn" if ibn else "crosswalk.encoders.resnet.ResNet"
    assert recipe["encoder.backbone"]["_target_"] == target


@with_and_without
def test_a_published_network_is_named(ibn: bool) -> None:
    with torch.device("meta"):
        backbone = ResNet((3, 4, 6, 3), block="bottleneck")
        model = ImageEncoder(with_ibn(backbone) if ibn else backbone, pooling=GemPool())
    state = official_state(model, "")

    architecture = architecture_of(state)

    assert len(state) == (350 if ibn else 324)
    assert architecture["name"] == "resnet50"
    node = recipe_of(architecture)["encoder.backbone"]
    assert (node["model"] if ibn else node)["name"] == "resnet50"


def test_missing_and_unknown_entries_are_named() -> None:
    state = official_state(encoder(), "")
    del state["base.5.1.bn3.running_var"]
    state["feat.weight"] = torch.zeros(2)

    with pytest.raises(ValueError, match=r"base\.5\.1\.bn3\.running_var.*feat\.weight"):
        import_cluster_contrast(state)
    with pytest.raises(ValueError, match="conv1 or layer1 are missing"):
        import_cluster_contrast({"conv1.weight": torch.zeros(2, 3, 7, 7)})


def test_another_file_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "empty.pth")

    with pytest.raises(ValueError, match="no checkpoint of Cluster Contrast"):
        read_cluster_contrast(tmp_path / "empty.pth")


def test_the_command_writes_the_model_of_a_recorded_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "w.safetensors"

    run_import("cluster_contrast", RECORDED / "tiny_checkpoint_0.pth.tar", target)

    assert '"pooling": "gem"' in capsys.readouterr().out
    assert HEADER in safetensors_header(target)
    with np.load(RECORDED / "mini_run_0.npz") as case:
        image = torch.tensor(case["image"]).permute(0, 3, 1, 2) / 255
        features = torch.tensor(case["out_features_0"])
    state = read_cluster_contrast(RECORDED / "tiny_checkpoint_0.pth.tar")
    model = ImageEncoder(ResNet(**architecture_of(state)["backbone"]), pooling=GemPool())
    model.load_state_dict(load_file(target))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    image = (image - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        found = torch.nn.functional.normalize(model.eval()(image).neck)
    assert_close(found.double(), features, rtol=0, atol=1e-5)
