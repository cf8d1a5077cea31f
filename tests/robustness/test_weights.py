"""Weights that are none: for training, for pretrained encoders, and as official checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from crosswalk.importers._methods import importable_methods
from tests.end_to_end.small_runs import small_run
from tests.robustness.damage import ARCHIVE, Damage
from tests.robustness.refusals import message_of

WEIGHTS = {"encoder.a": torch.zeros(3, 4), "encoder.b": torch.ones(5)}
PRETRAINED = {
    "supervised": "encoder.backbone.pretrained",
    "cm_moco": "encoder.image.pretrained",
    "cmmt": "encoder.image.pretrained",
    "rde": "encoder.clip.pretrained",
}
"""Keys that name a file of weights, in small runs of a method."""


def write(path: Path, change: Damage) -> Path:
    """Write weights of the format that the file's name says, damaged."""
    if path.suffix == ".safetensors":
        save_file(WEIGHTS, path)
    else:
        torch.save({"state_dict": WEIGHTS}, path)
    content = change(path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    return path


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CROSSWALK_CACHE", str(cache))


every_damage = pytest.mark.parametrize("change", ARCHIVE.values(), ids=ARCHIVE)
every_format = pytest.mark.parametrize("suffix", [".pth", ".safetensors"])


@every_damage
@pytest.mark.parametrize("method", importable_methods())
def test_an_official_checkpoint_that_is_damaged_is_named(
    method: str, change: Damage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "official.pth", change)

    message = message_of(["import-weights", method, str(file), "out.safetensors"], capsys)

    assert "official.pth" in message or f"import-weights {method}" in message
    assert not (tmp_path / "out.safetensors").exists()


@every_damage
@every_format
def test_weights_to_start_from_that_are_damaged_are_named(
    suffix: str, change: Damage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / f"weights{suffix}", change)

    message = message_of(["train", *small_run("supervised"), f"checkpoint={file}"], capsys)

    assert file.name in message
    assert not any((tmp_path / "runs").rglob("*"))


@every_damage
@every_format
@pytest.mark.parametrize("method", PRETRAINED)
def test_pretrained_weights_that_are_damaged_are_named(
    method: str, suffix: str, change: Damage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / f"weights{suffix}", change)
    words = [word for word in small_run(method) if ".pretrained=" not in word]

    message = message_of(["train", *words, f"{PRETRAINED[method]}={file}"], capsys)

    assert file.name in message
    assert not any((tmp_path / "runs").rglob("*"))
