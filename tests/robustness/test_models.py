"""Damaged and foreign checkpoints in the place of a model: refused by name, no code run."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import crosswalk
from crosswalk.cli import main
from crosswalk.config.build import build_method
from crosswalk.config.compose import compose
from crosswalk.config.plain import to_plain
from crosswalk.config.search import small_overrides
from crosswalk.types import DataSpec
from tests.robustness.damage import ARCHIVE, damage

Damage = Callable[[dict[str, Any]], object]


def set_to(key: str, value: object) -> Damage:
    """Return what sets a dotted key of what a checkpoint says of its model."""

    def damage(told: dict[str, Any]) -> None:
        *parents, last = key.split(".")
        for name in parents:
            told = told[name]
        told[last] = value

    return damage


def bomb() -> object:
    """Return lists in lists that would be 2**30 values if they were written out."""
    node: object = ["x"]
    for _ in range(30):
        node = [node, node]
    return node


def endless() -> object:
    node: dict[str, object] = {}
    node["self"] = node
    return node


DAMAGES: dict[str, tuple[Damage, str]] = {
    "foreign code": (set_to("config.encoder._target_", "os.getcwd"), "os.getcwd"),
    "foreign code deep": (set_to("config.encoder.backbone._target_", "os.getcwd"), "os.getcwd"),
    "foreign tokenizer": (set_to("config.data.tokenizer", {"_target_": "os.getcwd"}), "os.getcwd"),
    "no method": (set_to("config.method._target_", "torch.nn.ReLU"), "torch.nn.ReLU"),
    "a key of a later release": (set_to("config.encoder.newer", 1), "encoder.newer"),
    "an encoder without a name": (set_to("config.encoder", {"a": 1}), "encoder names no class"),
    "an encoder that is a text": (set_to("config.encoder", "resnet"), "encoder names no class"),
    "no encoder": (set_to("config.encoder", None), "encoder"),
    "data that are a text": (set_to("config.data", "here"), "data"),
    "a tokenizer without a name": (set_to("config.data.tokenizer", {"a": 1}), "data.tokenizer"),
    "a wrong type": (set_to("config.method.margin", "wide"), "method.margin"),
    "a wrong range": (set_to("config.method.label_smoothing", 7.0), "method.label_smoothing"),
    "an alias bomb": (set_to("config.tags", bomb()), "makes more than"),
    "an endless alias": (set_to("config.tags", endless()), "nested deeper than"),
    "a tensor among values": (set_to("config.tags", torch.ones(2)), "holds a Tensor"),
    "a number as a name": (set_to("config.tags", {3: 4}), "has the name 3"),
    "a huge size": (set_to("preprocessing.image_size", (600000, 600000)), "image_size"),
    "a size of texts": (set_to("preprocessing.image_size", ("a", "b")), "image_size"),
    "one side": (set_to("preprocessing.image_size", (96,)), "image_size"),
    "two colours": (set_to("preprocessing.mean", (0.5, 0.5)), "mean"),
    "no deviation": (set_to("preprocessing.std", (0.0, 0.0, 0.0)), "std"),
    "an unknown format": (set_to("preprocessing.pixel_format", "zzz"), "pixel_format"),
    "an unknown resizing": (set_to("preprocessing.interpolation", "foo"), "interpolation"),
    "a preprocessing that is a text": (set_to("preprocessing", "x"), "preprocessing"),
    "a preprocessing that lacks a part": (set_to("preprocessing", {"mean": None}), "preprocessing"),
    "weights of another size": (
        set_to("config.encoder.backbone.name", "resnet18"),
        "does not fit the encoder",
    ),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the content of a checkpoint, of a model that was never trained."""
    config = to_plain(compose(["method=supervised", "encoder=resnet_tiny", *small()]))
    method = build_method(config, DataSpec(1, 1, 1), None)
    preprocessing = {
        **{"image_size": (64, 32), "interpolation": "bilinear", "pixel_format": "rgb01"},
        **{"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    }
    told = {"config": config, "version": "0", "preprocessing": preprocessing, "vocabulary": None}
    state = {name: row for name, row in method.state_dict().items() if name.startswith("encoder.")}
    return {"state_dict": state, "epoch": 0, "global_step": 0, "loops": {}, "crosswalk": told}


def small() -> list[str]:
    return [*small_overrides("supervised"), "data=synthetic_images", "trainer=cpu", "logger=csv"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (20, 50), (200, 10, 10)).save(tmp_path / "photos" / "1.png")
    return tmp_path / "photos"


def test_the_whole_checkpoint_is_loaded(
    checkpoint: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    torch.save(checkpoint, tmp_path / "model.ckpt")

    model = crosswalk.load(tmp_path / "model.ckpt")

    assert model.embed_images(photos / "1.png").shape == (1, model.embedding_size)
    assert len(model.fingerprint) == 16


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_or_foreign_checkpoint_is_refused_by_its_name(
    checkpoint: dict[str, Any],
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    change, words = DAMAGES[name]
    told = copy.deepcopy(checkpoint["crosswalk"])
    change(told)
    path, target = tmp_path / "model.ckpt", tmp_path / "features.npz"
    torch.save({**checkpoint, "crosswalk": told}, path)

    status = main(["embed", str(path), str(photos), "--out", str(target)])

    said = capsys.readouterr().err
    assert status == 2
    assert str(path) in said
    assert words in said
    assert said.startswith("crosswalk: ")
    assert "Traceback" not in said
    assert not target.exists()


@pytest.mark.parametrize("told", [None, "x", torch.ones(1), [], {"config": "x"}, {"config": {}}])
def test_a_checkpoint_that_does_not_say_its_model_is_refused(
    checkpoint: dict[str, Any], tmp_path: Path, told: object
) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({**checkpoint, "crosswalk": told}, path)

    with pytest.raises(ValueError, match=r"model\.ckpt.* says? of its model|does not say which"):
        crosswalk.load(path)


def test_code_that_is_not_known_runs_where_it_is_trusted_alone(
    checkpoint: dict[str, Any], tmp_path: Path
) -> None:
    told = copy.deepcopy(checkpoint["crosswalk"])
    told["config"]["data"]["transform"] = {"_target_": "os.mkdir", "path": str(tmp_path / "made")}
    del told["preprocessing"]
    torch.save({**checkpoint, "crosswalk": told}, tmp_path / "model.ckpt")

    with pytest.raises(ValueError, match=r"os\.mkdir.*repeat the command with --trust"):
        crosswalk.load(tmp_path / "model.ckpt")
    made = (tmp_path / "made").exists()
    crosswalk.load(tmp_path / "model.ckpt", trust=True)

    assert not made
    assert (tmp_path / "made").exists()


def test_a_device_that_is_not_there_is_refused(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    torch.save(checkpoint, tmp_path / "model.ckpt")

    with pytest.raises(ValueError, match="device=foo is not there"):
        crosswalk.load(tmp_path / "model.ckpt", device="foo")


def test_a_moved_checkpoint_of_a_run_needs_nothing_beside_it(
    checkpoint: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    torch.save(checkpoint, tmp_path / "model.ckpt")
    expected = crosswalk.load(tmp_path / "model.ckpt").embed_images(photos / "1.png")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "vocabulary.json").write_text('{"words": ["of", "another", "run"]}')
    moved = shutil.move(tmp_path / "model.ckpt", tmp_path / "elsewhere" / "model.ckpt")

    found = crosswalk.load(moved).embed_images(photos / "1.png")

    assert torch.equal(found, expected)


def of_metadata(text: str) -> bytes:
    """Return a safetensors file without tensors that describes its model by ``text``."""
    header = json.dumps({"__metadata__": {"description": text}}).encode()
    return len(header).to_bytes(8, "little") + header


HEADERS: dict[str, tuple[str, str]] = {
    "no JSON": ("{", "is damaged"),
    "a list": ("[1]", "it has no method"),
    "nested too deep": ("[" * 100_000, "is damaged"),
    "a later format": ('{"format": 9, "method": {"_target_": "x"}}', "Update crosswalk"),
    "data that are a text": ('{"format": 1, "method": {"_target_": "x"}, "data": "y"}', "data"),
    "foreign code": (
        '{"format": 1, "method": {"_target_": "os.getcwd"}, "encoder": {"_target_": "os.getcwd"}}',
        "method._target_='os.getcwd' is none of",
    ),
    "an encoder of foreign code": (
        '{"format": 1, "method": {"_target_": "crosswalk.methods.mmcl.MMCL"}, '
        '"encoder": {"_target_": "builtins.eval", "source": "1"}}',
        "encoder._target_='builtins.eval' is none of",
    ),
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("command", ["embed", "evaluate", "export", "card"])
def test_a_damaged_or_foreign_description_is_refused_by_its_name(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, command: str
) -> None:
    text, words = HEADERS[name]
    path, target = tmp_path / "given.safetensors", tmp_path / "out.npz"
    path.write_bytes(of_metadata(text))
    more = {
        "embed": [str(photos), "--out", str(target)],
        "evaluate": ["data=synthetic_images", f"output_dir={target}"],
        "export": ["--out", str(target)],
        "card": [],
    }

    status = main([command, str(path), *more[command]])

    said = capsys.readouterr().err
    assert status == 2
    assert str(path) in said
    assert words in said
    assert "Traceback" not in said
    assert not target.exists()


@pytest.mark.parametrize("library", ["timm:resnet10t", "open_clip:ViT-B-32"])
@pytest.mark.parametrize("kind", ["code", "pickle", "empty", "page", "cut", "text"])
def test_a_damaged_file_of_published_weights_is_named_and_runs_nothing(
    checkpoint: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    library: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(checkpoint["state_dict"], "w.pth")
    damage(Path("w.pth"), ARCHIVE[kind])

    with pytest.raises(ValueError, match=rf"{library}/w\.pth: .*w\.pth"):
        crosswalk.load(f"{library}/w.pth")

    assert not Path("exploited.txt").exists()
