from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor, nn

from crosswalk.importers.rde import read_rde
from crosswalk.run.callbacks.checkpoints import AtomicCheckpointIO
from crosswalk.run.weights import load_encoder, run_export
from crosswalk.weight_files import mismatch, read_weight_file, tensors_in

STATE = {"bias": torch.ones(2)}


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return os.system, ("touch ran",)


def saved(content: object, *, zipped: bool = True) -> Callable[[Path], object]:
    return lambda path: torch.save(content, path, _use_new_zipfile_serialization=zipped)


def raw(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def cut(content: object, size: int, *, zipped: bool = True) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        saved(content, zipped=zipped)(path)
        path.write_bytes(path.read_bytes()[:size])

    return write


def scripted(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)


def zip_of(name: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, "x")

    return write


def header(**tensors: tuple[int, int, int]) -> Callable[[Path], object]:
    """Return what writes a safetensors file of 16 bytes: each tensor's numbers, begin and end."""
    entries = {
        name: {"dtype": "F32", "shape": [numbers], "data_offsets": [begin, end]}
        for name, (numbers, begin, end) in tensors.items()
    }
    text = json.dumps(entries).encode()
    return raw(len(text).to_bytes(8, "little") + text + bytes(16))


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty.pth": (raw(b""), "is empty"),
    "text.ckpt": (raw(b"these are no weights, but a text"), "is a text"),
    "page.pth": (raw(b"\n<!DOCTYPE html><html>Sign in</html>"), "is a web page"),
    "pointer.pth": (
        raw(b"version https://git-lfs.github.com/spec/v1\noid sha256:0"),
        "git lfs pull",
    ),
    "model.onnx": (raw(b"\x08\x07\x12\x07pytorch\x1a\x05"), "is a model of ONNX"),
    "keras.h5": (raw(b"\x89HDF\r\n\x1a\n\0\0"), "HDF5"),
    "weights.tar.gz": (raw(b"\x1f\x8b\x08\0\0"), "gzip"),
    "openvino.bin": (raw(bytes(range(256))), "begins with 00 01 02"),
    "scripted.pt": (scripted, "TorchScript"),
    "others.zip": (zip_of("weights/best.pth"), "holds weights/best.pth"),
    "cut.ckpt": (cut({"state_dict": STATE}, 1000), "is cut off or damaged"),
    "old_cut.pth": (cut({"state_dict": STATE}, 300, zipped=False), "is cut off or damaged"),
    "list.pth": (saved([1, 2]), "holds a list of 2"),
    "none.ckpt": (saved({"state_dict": None}), "state_dict (NoneType)"),
    "epoch.ckpt": (saved({"epoch": 3}), "epoch (int)"),
    "numbers.pth": (saved({0: torch.ones(1)}), "0 (Tensor)"),
    "swollen.pth": (saved({"a": torch.zeros(1).expand(10**10)}), "more than the whole file"),
    "many.pth": (
        saved({f"w{i}": torch.zeros(8).expand(100, 8) for i in range(50)}),
        "more than the whole file",
    ),
    "shared.pth": (
        saved({f"w{i}": row for row in [torch.zeros(1000)] for i in range(500)}),
        "more than the whole file",
    ),
    "evil.pth": (saved({"state_dict": STATE, "args": Evil()}), "would run code from it"),
    "old_evil.pth": (saved({"args": Evil()}, zipped=False), "would run code from it"),
    "pickle.pkl": (raw(pickle.dumps({"a": Evil()}, protocol=2)), "pickle.pkl"),
    "objects.npz": (lambda path: np.savez(path, a=np.array([Evil()], object)), "objects in it"),
    "cut.safetensors": (raw(save(STATE)[:-4]), "is cut off or damaged"),
    "header.safetensors": (raw(b"\xff" * 8 + b"{}"), "is cut off or damaged"),
    "overlap.safetensors": (header(a=(2, 0, 8), b=(2, 4, 12)), "invalid offset for tensor `b`"),
    "shared.safetensors": (header(a=(4, 0, 16), b=(4, 0, 16)), "invalid offset for tensor"),
    "beyond.safetensors": (header(a=(400, 0, 1600)), "is cut off or damaged"),
    "swollen.safetensors": (header(a=(1 << 60, 0, 16)), "is cut off or damaged"),
    "hole.safetensors": (header(a=(2, 8, 16)), "is cut off or damaged"),
}


@pytest.mark.parametrize("length", [0x4B50, 0x1208])
def test_a_header_whose_length_reads_like_another_kind_of_file_is_none(
    length: int, tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"
    weights = {"w": torch.arange(3.0)}
    save_file(weights, path, metadata={"origin": ""})
    short = int.from_bytes(path.read_bytes()[:8], "little")
    save_file(weights, path, metadata={"origin": "x" * (length - short)})

    found = read_weight_file(path)

    assert int.from_bytes(path.read_bytes()[:8], "little") == length
    assert torch.equal(found["w"], weights["w"])


@pytest.fixture(params=DAMAGED)
def damaged(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, str]:
    monkeypatch.chdir(tmp_path)
    write, why = DAMAGED[request.param]
    write(tmp_path / request.param)
    return tmp_path / request.param, why


class Method(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(2, 2)


def test_what_is_no_file_of_weights_is_named_by_every_reader(damaged: tuple[Path, str]) -> None:
    path, why = damaged
    readers: list[Callable[[], object]] = [
        lambda: tensors_in(path),
        lambda: load_encoder(Method(), path),
        lambda: run_export(path, path.with_name("out.safetensors")),
        lambda: AtomicCheckpointIO().load_checkpoint(path),
        lambda: read_rde(path),
    ]

    for number, read in enumerate(readers):
        with pytest.raises(ValueError, match=re.escape(path.name)) as refused:
            read()
        assert number == 3 or why in str(refused.value)  # a run's checkpoint lacks other things
        assert "weights_only" not in str(refused.value)
        assert len(str(refused.value)) < 500
    assert not Path("ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_what_training_scripts_leave_beside_weights_is_read(tmp_path: Path, zipped: bool) -> None:
    content = {
        "state_dict": STATE,
        "args": argparse.Namespace(lr=0.1),
        "best": np.float64(0.5),
        "epoch": np.int64(3),
        "history": np.arange(3),
    }
    saved(content, zipped=zipped)(tmp_path / "checkpoint.pth.tar")

    assert tensors_in(tmp_path / "checkpoint.pth.tar")["bias"].tolist() == [1, 1]


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."],
)
def test_prefixes_of_wrappers_are_no_part_of_a_name(tmp_path: Path, prefix: str) -> None:
    torch.save({"model": {f"{prefix}bias": torch.ones(2)}}, tmp_path / "w.pth")
    torch.save(
        {
            "state_dict": {
                f"encoder.{prefix}{name}": row for name, row in nn.Linear(2, 2).state_dict().items()
            }
        },
        tmp_path / "last.ckpt",
    )

    assert list(tensors_in(tmp_path / "w.pth")) == ["bias"]
    run_export(tmp_path / "last.ckpt", tmp_path / "encoder.safetensors")
    assert sorted(tensors_in(tmp_path / "encoder.safetensors")) == ["bias", "weight"]


def test_the_format_is_that_of_the_content(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "named.pth")
    torch.save(STATE, tmp_path / "named.safetensors")

    assert tensors_in(tmp_path / "named.pth")["bias"].tolist() == [1, 1]
    assert tensors_in(tmp_path / "named.safetensors")["bias"].tolist() == [1, 1]


def test_a_mismatch_shows_five_names_of_each_side_and_both_architectures() -> None:
    def state(*names: str) -> dict[str, Tensor]:
        return {name: torch.zeros(1) for name in names}

    vit = {f"blocks.{n}.attn.qkv.weight": torch.zeros(3, 1) for n in range(30)}
    resnet = {f"layer{n}.0.conv1.weight": torch.zeros(128, 3, 1, 1) for n in range(1, 40)}
    words = mismatch(resnet, {"pos_embed": torch.zeros(1, 9, 192), **vit})

    assert "the file has 31 entries, the model 39, and 0 fit" in words
    assert "the weights are a ViT (192), configured is a ResNet (128)" in words
    theirs = {"encoder.layers.encoder_layer_0.ln_1.weight": torch.zeros(1)}
    assert "the weights are a ViT of torchvision, configured is" in mismatch(resnet, theirs)
    assert words.count("blocks.") == 4
    assert "and 26 more" in words
    assert words.count("layer") == 5
    assert mismatch(state("a", "b"), state("a")) == (
        "the file has 1 entry, the model 2, and 1 fit; missing in the file: b"
    )
