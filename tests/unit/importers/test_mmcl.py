from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from crosswalk.encoders.image import ImageEncoder
from crosswalk.encoders.resnet import ResNet
from crosswalk.importers.mmcl import architecture_of, import_mmcl, read_mmcl
from crosswalk.run.weights import run_import

SIZES = {"block": "bottleneck", "layers": (1, 2), "stem_width": 3, "planes": (2, 3)}


def encoder(**sizes: object) -> ImageEncoder:
    torch.manual_seed(1)
    model = ImageEncoder(ResNet(**(SIZES | sizes), last_stride=1))
    for row in model.state_dict().values():
        row.copy_(torch.rand(row.shape) * 9)
    return model


def official_state(model: ImageEncoder, prefix: str = "") -> dict[str, Tensor]:
    """Return the weights as the official code saves them, with both unused classifiers."""
    width = model.embedding_size
    state = {
        prefix + name.replace("backbone.", "base.").replace("neck.", "bn."): row
        for name, row in model.state_dict().items()
    }
    for head, rows in (("base.fc", 5), ("classifier", 7)):
        state[f"{prefix}{head}.weight"] = torch.randn(rows, width)
        state[f"{prefix}{head}.bias"] = torch.randn(rows)
    return state


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    "sizes",
    [{}, {"block": "basic"}, {"block": "basic", "stem_width": 2}],
    ids=["bottleneck", "basic", "basic without the first downsample"],
)
def test_official_weights_become_the_same_encoder(
    tmp_path: Path, sizes: dict[str, object], prefix: str
) -> None:
    model = encoder(**sizes)
    torch.save(official_state(model, prefix), tmp_path / "checkpoint.pth.tar")

    imported = import_mmcl(read_mmcl(tmp_path / "checkpoint.pth.tar"))

    assert_close(imported, dict(model.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_the_sizes_are_read_from_the_weights(block: str) -> None:
    architecture = architecture_of(official_state(encoder(block=block)))

    assert architecture == {
        "name": None,
        "neck": "batch_norm",
        "backbone": SIZES | {"block": block, "last_stride": 1, "last_relu": True},
    }


@pytest.mark.parametrize(
    ("layers", "name"), [((3, 4, 6, 3), "resnet50"), ((3, 4, 23, 3), "resnet101")]
)
def test_a_published_resnet_is_named(layers: tuple[int, ...], name: str) -> None:
    with torch.device("meta"):
        model = ImageEncoder(ResNet(layers, block="bottleneck"))
        state = official_state(model)

    assert architecture_of(state)["name"] == name
    assert len(state) == {"resnet50": 327, "resnet101": 327 + 17 * 18}[name]


def test_half_precision_is_widened_and_missing_counters_are_zero() -> None:
    model = encoder()
    state = official_state(model)
    stored = {
        name: row.half() if row.is_floating_point() else row
        for name, row in state.items()
        if not name.startswith("base.bn1.num_batches")
    }

    imported = import_mmcl(stored)

    assert imported["backbone.bn1.num_batches_tracked"] == 0
    assert imported["neck.num_batches_tracked"] == state["bn.num_batches_tracked"]
    assert imported["neck.weight"].dtype == torch.float32
    assert_close(imported["neck.weight"], state["bn.weight"], rtol=1e-3, atol=1e-3)


def test_missing_and_unknown_entries_are_named() -> None:
    state = official_state(encoder())
    del state["base.layer2.1.bn3.running_var"]
    state["embedding.weight"] = torch.zeros(2)

    with pytest.raises(ValueError, match=r"layer2\.1\.bn3\.running_var.*embedding\.weight"):
        import_mmcl(state)
    with pytest.raises(ValueError, match="conv1 or layer1 are missing"):
        import_mmcl({"conv1.weight": torch.zeros(2, 3, 7, 7)})


@pytest.mark.parametrize("kind", ["checkpoint", "state", "npz"])
def test_weights_are_read_from_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    state = official_state(encoder())
    path = tmp_path / ("m.npz" if kind == "npz" else "checkpoint.pth.tar")
    memory = {"mem": torch.randn(19, 12)}
    checkpoint = {"state_dict": state, "state_dict_memory": memory, "epoch": 7}
    if kind == "npz":
        np.savez(path, **{name: row.numpy() for name, row in state.items()})
    else:
        torch.save(checkpoint if kind == "checkpoint" else state, path)

    assert_close(read_mmcl(path), state)


class Unsafe:
    pass


def test_other_files_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "args": Unsafe()}, tmp_path / "unsafe.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")

    with pytest.raises(ValueError, match=r"code from it.*'state_dict' is needed"):
        read_mmcl(tmp_path / "unsafe.pth")
    with pytest.raises(ValueError, match="no checkpoint of MMCL"):
        read_mmcl(tmp_path / "empty.pth")
    with pytest.raises(FileNotFoundError, match=r"none\.pth is missing"):
        read_mmcl(tmp_path / "none.pth")


def test_the_command_writes_a_file_that_an_encoder_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = encoder()
    torch.save({"state_dict": official_state(model)}, tmp_path / "checkpoint.pth.tar")

    run_import("mmcl", tmp_path / "checkpoint.pth.tar", tmp_path / "w.safetensors")

    assert '"last_stride": 1' in capsys.readouterr().out
    other = encoder()
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert_close(other.state_dict(), model.state_dict())
