"""Pictures are opened in the card's lines, and in the example, as `crosswalk.load`'s model does."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from crosswalk.data.pipeline.preprocessing import Preprocessing
from crosswalk.image_files import ORIENTATION, as_seen
from crosswalk.use.calling import _opened, merged
from crosswalk.use.export_graphs import _move

EXAMPLE = Path(__file__).parents[3] / "examples" / "onnx_without_crosswalk.py"
STEPS = Preprocessing((20, 10), "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "rgb01")


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
@pytest.mark.parametrize("channels", [3, 4])
def test_pictures_are_upright_and_on_white(
    orientation: int, channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 4, channels), dtype=np.uint8)
    turned = Image.Exif()
    turned[ORIENTATION] = orientation
    Image.fromarray(pixels).save(tmp_path / "1.jpg", "PNG", exif=turned)
    monkeypatch.chdir(tmp_path)
    graph: Any = SimpleNamespace(model=SimpleNamespace(preprocessing=STEPS), takes="pixels")
    found: dict[str, Any] = {"Image": Image, "ImageOps": ImageOps, "np": np}

    exec("\n".join(_opened(graph)), found)
    by_example = runpy.run_path(str(EXAMPLE))["as_seen"]("1.jpg")

    expected = as_seen(Image.open("1.jpg"))
    np.testing.assert_array_equal(np.asarray(by_example), np.asarray(expected))
    resized = expected.resize((10, 20), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(found["pixels"][0], np.asarray(resized))


def test_a_folder_holds_one_state_of_a_model(tmp_path: Path) -> None:
    card = "# run (best)\n\n## What was measured\n\n| 1 |\n"
    told = merged(card, tmp_path, "safetensors", fingerprint="a1", half=True)
    (tmp_path / "README.md").write_text(told)
    (tmp_path / "model.safetensors").write_bytes(b"")

    again = merged(card, tmp_path, "onnx", "text", fingerprint="a1")

    for each in (told, again, merged(told, tmp_path, "torch", "", fingerprint="a1")):
        assert each.count("Fingerprint of the model: `a1`.") == 1
        assert each.count("measured\n\nOf the model before `model.safetensors` was rounded") == 1
    with pytest.raises(ValueError, match=r"model\.safetensors of other weights of run \(best\)"):
        merged(card, tmp_path, "onnx", fingerprint="b2")
    assert "`b2`" in merged(card, tmp_path, "safetensors", fingerprint="b2")
    for form in ("safetensors", "onnx"):
        with pytest.raises(ValueError, match=r"model\.safetensors of another model, run \(best\)"):
            merged(card.replace("# run", "# other"), tmp_path, form, fingerprint="a1")


def test_merges_of_an_earlier_model_do_not_stay_beside_the_words_of_another(tmp_path: Path) -> None:
    written, target = tmp_path / "new", tmp_path / "model"
    for folder, names in (
        (written, ["text.onnx", "vocab.json"]),
        (target, ["merges.txt", "a.pt2"]),
    ):
        folder.mkdir()
        for name in names:
            (folder / name).write_text("")

    _move(written, target, "onnx")

    assert sorted(path.name for path in target.iterdir()) == ["a.pt2", "text.onnx", "vocab.json"]
