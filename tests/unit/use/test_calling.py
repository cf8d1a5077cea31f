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
from crosswalk.use.calling import _opened

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
