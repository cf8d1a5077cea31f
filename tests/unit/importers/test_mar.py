import os
import pickle
import sys
import tarfile
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from crosswalk.encoders.image import ImageEncoder
from crosswalk.encoders.resnet import ResNet
from crosswalk.importers.mar import AGENTS, architecture_of, import_mar, read_mar

SIZES = {"block": "bottleneck", "layers": (2, 2), "stem_width": 3, "planes": (2, 4)}


def encoder() -> ImageEncoder:
    torch.manual_seed(1)
    model = ImageEncoder(ResNet(**SIZES, last_relu=False), neck="none")
    for row in model.state_dict().values():
        row.copy_(torch.rand(row.shape) * 9)
    return model


class OfficialNet(nn.Module):
    """The encoder under the names of the official code: no prefix, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        for name, child in encoder().backbone.named_children():
            self.add_module(name, child)
        self.fc = nn.Linear(16, 5, bias=False)


def official_state() -> dict[str, Tensor]:
    torch.manual_seed(2)
    return dict(OfficialNet().state_dict())


def test_official_weights_become_the_same_encoder_and_its_agents() -> None:
    state = official_state()

    imported = import_mar(state)

    assert torch.equal(imported.pop(AGENTS), state["fc.weight"])
    assert_close(imported, dict(encoder().state_dict()), rtol=0, atol=0)


def test_weights_without_agents_and_counters_are_an_encoder_too() -> None:
    state = official_state()
    model = encoder()
    stored = {name: row for name, row in state.items() if "num_batches" not in name}
    del stored["fc.weight"]

    imported = import_mar(stored | {"fc.bias": torch.zeros(5)})

    assert AGENTS not in imported
    model.load_state_dict(imported)
    assert model.backbone.get_buffer("layer2.0.downsample.1.num_batches_tracked") == 0


def test_the_sizes_are_read_from_the_weights() -> None:
    assert architecture_of(official_state()) == {
        "name": None,
        "neck": "none",
        "backbone": SIZES | {"last_stride": 2, "last_relu": False},
        "num_agents": 5,
    }


def test_missing_and_unknown_entries_are_named() -> None:
    state = official_state()
    del state["layer1.1.conv3.weight"]
    state["neck.weight"] = torch.zeros(2)

    with pytest.raises(ValueError, match=r"layer1\.1\.conv3\.weight.*neck\.weight"):
        import_mar(state)


@pytest.fixture
def foreign() -> types.ModuleType:
    """Return a module like the official ones, that exists while a file is written."""
    module = types.ModuleType("foreign_trainers")
    source = """
import torch
class Logger:
    def __init__(self): self.lines, self.seen = [1], {3}
class Trainer: pass
class ResNet(torch.nn.Module): pass
"""
    exec(source, module.__dict__)
    sys.modules["foreign_trainers"] = module
    yield module
    sys.modules.pop("foreign_trainers", None)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "as PyTorch 1.0"])
@pytest.mark.parametrize("parallel", [False, True], ids=["", "DataParallel"])
def test_the_network_of_a_pickled_trainer_is_read_without_its_classes(
    tmp_path: Path, foreign: types.ModuleType, legacy: bool, parallel: bool
) -> None:
    torch.manual_seed(2)
    net = OfficialNet()
    expected = {name: row.clone() for name, row in net.state_dict().items()}
    net.__class__ = foreign.ResNet
    trainer = foreign.Trainer()
    trainer.net = nn.DataParallel(net) if parallel else net
    trainer.args = types.SimpleNamespace(lr=2e-4, names={"a", "b"})
    trainer.logger = foreign.Logger()
    trainer.optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    trainer.multilabel_memory = torch.randn(7, 5)
    path = tmp_path / "checkpoints.pth"
    torch.save((trainer, 12), path, _use_new_zipfile_serialization=not legacy)
    del sys.modules["foreign_trainers"]

    state = read_mar(path)

    assert_close(state, expected, rtol=0, atol=0)
    assert not any(row.requires_grad for row in state.values())
    assert "foreign_trainers" not in sys.modules


@pytest.mark.parametrize("kind", ["zip", "legacy", "parallel", "npz"])
def test_a_state_dict_is_read_from_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    state = official_state()
    path = tmp_path / ("pretrained.npz" if kind == "npz" else "pretrained_MSMT17.pth")
    if kind == "npz":
        np.savez(path, **{name: row.numpy() for name, row in state.items()})
    else:
        prefix = "module." if kind == "parallel" else ""
        stored = {prefix + name: row for name, row in state.items()}
        torch.save(stored, path, _use_new_zipfile_serialization=kind != "legacy")

    assert_close(read_mar(path), state, rtol=0, atol=0)


class Writes:
    """An object whose unpickling leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "as PyTorch 1.0"])
@pytest.mark.parametrize("place", ["beside", "alone", "key"])
def test_no_code_of_a_file_runs(tmp_path: Path, legacy: bool, place: str) -> None:
    trap, path = tmp_path / "trap", tmp_path / "pretrained.pth"
    content: object = Writes(trap)
    if place == "beside":
        content = (official_state(), Writes(trap))
    if place == "key":
        content = {**official_state(), "x": Writes(trap)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)

    with pytest.raises(ValueError, match="no checkpoint of MAR"):
        read_mar(path)
    assert not trap.exists()

    torch.load(path, weights_only=False)  # which does run it: the trap works
    assert trap.exists()


def test_files_that_torch_reads_by_other_ways_are_refused(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    (tmp_path / "storages").write_bytes(pickle.dumps(Writes(trap)))
    with tarfile.open(tmp_path / "old.pth", "w") as archive:
        archive.add(tmp_path / "storages", "storages")
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "compiled.pth"))
    (tmp_path / "text.pth").write_text("not a checkpoint")
    torch.save((3, 4), tmp_path / "tuple.pth")
    torch.save({}, tmp_path / "empty.pth")

    for name in ("old", "compiled", "text", "tuple", "empty"):
        with pytest.raises(ValueError, match=rf"{name}\.pth .*It is no checkpoint of MAR"):
            read_mar(tmp_path / f"{name}.pth")
    assert not trap.exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"best\.pth is missing"):
        read_mar(tmp_path / "best.pth")
