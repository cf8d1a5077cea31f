"""An exported folder holds nothing strange, and is not written over anything else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from crosswalk.config.compose import compose
from crosswalk.config.plain import to_plain
from crosswalk.use import export_check
from crosswalk.use.described import described_by
from crosswalk.use.export_check import Settings, check_settings, check_target
from crosswalk.use.source import source_of

CONFIG = to_plain(compose(["method=supervised", "encoder=resnet_tiny", "data=synthetic_images"]))
DESCRIPTION = {
    "format": 1,
    "crosswalk": "0",
    "method": CONFIG["method"],
    "encoder": CONFIG["encoder"],
    "data": {},
    "preprocessing": {
        **{"image_size": [64, 32], "interpolation": "bilinear"},
        **{"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "pixel_format": "rgb01"},
    },
    "vocabulary": None,
}


def exported(folder: Path, **changes: object) -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "config.json").write_text(json.dumps({**DESCRIPTION, **changes}))
    return folder


def test_what_was_written_is_read(tmp_path: Path) -> None:
    source = source_of(exported(tmp_path / "model"))

    found = described_by(source)

    assert source.kind == "export"
    assert found.preprocessing.image_size == (64, 32)
    assert found.preprocessing.std == (0.5, 0.5, 0.5)
    assert found.config["method"] == DESCRIPTION["method"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "in a format (2) that this one does not know. Update crosswalk."),
        ({"method": None}, "is damaged (it has no method). Export the run again."),
        ({"preprocessing": {"image_size": [1, 1]}}, "preprocessing.interpolation has no value"),
        ({"preprocessing": None}, "preprocessing of images is damaged"),
        ({"encoder": {"_target_": "os.system"}}, "encoder._target_='os.system' is none of the"),
        ({"data": {"tokenizer": {"_target_": "os.getcwd"}}}, "data.tokenizer._target_='os.getcwd'"),
    ],
)
def test_a_damaged_or_strange_description_is_refused(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    source = source_of(exported(tmp_path / "model", **changes))

    with pytest.raises(ValueError, match=re.escape(words)) as error:
        described_by(source)

    assert str(tmp_path / "model" / "config.json") in str(error.value)


def test_a_description_that_is_no_json_is_refused(tmp_path: Path) -> None:
    folder = exported(tmp_path / "model")
    (folder / "config.json").write_text("{")

    with pytest.raises(ValueError, match=r"config.json is damaged \("):
        described_by(source_of(folder))


def test_an_export_takes_the_place_of_an_earlier_one_alone(tmp_path: Path) -> None:
    folder = exported(tmp_path / "model")
    check_target(folder)
    check_target(tmp_path / "new")
    for name in ("image.onnx", "text.int8.onnx", "image.pt2", "vocab.json"):
        (folder / name).write_text("")
    check_target(folder)
    (folder / "notes.txt").write_text("mine")

    with pytest.raises(ValueError, match=r"holds notes\.txt\. Name a new folder"):
        check_target(folder)
    with pytest.raises(ValueError, match="is a file"):
        check_target(folder / "notes.txt")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings("safetensors", int8=True), "--int8 is of graphs, and --format safetensors"),
        (Settings("safetensors", inside=True), "--with-preprocessing is of graphs"),
        (Settings("torch", int8=True), "--int8 is made by onnxruntime"),
        (Settings("torch", half=True), "computes in the precision of its weights"),
        (Settings("onnx", half=True, int8=True), "are two sizes of weights"),
    ],
)
def test_what_a_format_cannot_do_is_refused(settings: Settings, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        check_settings(settings)


def test_missing_packages_of_onnx_are_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_check, "find_spec", lambda name: None if "onnx" in name else name)

    with pytest.raises(ValueError, match=re.escape("of crosswalk>[export]")) as error:
        check_settings(Settings("onnx"))

    assert "needs onnx, onnxscript, onnxruntime:" in str(error.value)
    check_settings(Settings("torch", inside=True))
