"""Graphs of every method's encoders compute what its model does, called without crosswalk."""

from __future__ import annotations

import builtins
import json
import re
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import crosswalk
from crosswalk.cli import main
from crosswalk.config.search import read_group_file
from crosswalk.image_files import ORIENTATION
from crosswalk.use import export_graphs
from crosswalk.use.model import Model
from crosswalk.use.thresholds import read_thresholds
from tests.end_to_end.small_runs import METHODS, WholeRuns

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_without_crosswalk.py"
CAPTIONS = [
    "A woman, in a red coat with 2 bags & a back-pack.",
    "man",
    " ".join(["The man's wearing a blue t-shirt and white shoes;"] * 9),
]


class Exported(NamedTuple):
    """A model and the folder of its graphs as ONNX."""

    model: Model
    run: Path
    folder: Path


@pytest.fixture(scope="module", params=METHODS)
def exported(
    request: pytest.FixtureRequest,
    whole: WholeRuns,
    cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Exported:
    run, folder = whole[request.param].path, tmp_path_factory.mktemp("exported") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSWALK_CACHE", str(cache))
        status = main(
            [
                *("export", str(run), "--which", "last", "--out", str(folder)),
                *("--format", "onnx", "--with-preprocessing", "--int8"),
            ]
        )
    assert status == 0
    return Exported(crosswalk.load(run, which="last"), run, folder)


def pictures(folder: Path, number: int) -> list[str]:
    """Write pictures of several sizes, turned and with transparency; return their files."""
    draws = np.random.default_rng(0)
    names = [str(folder / f"{place}.png") for place in range(number)]
    for place, name in enumerate(names):
        pixels = draws.integers(0, 256, (90 + place, 40, 3 + place % 2), dtype=np.uint8)
        turned = Image.Exif()
        turned[ORIENTATION] = 6 if place % 3 == 0 else 1
        Image.fromarray(pixels).save(name, exif=turned)
    return names


def alone(path: Path, patch: pytest.MonkeyPatch) -> Mapping[str, Any]:
    """Return what a program defines, where neither crosswalk nor torch can be imported."""
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:  # noqa: ANN401
        if name.partition(".")[0] in ("crosswalk", "torch", "torchvision", "open_clip"):
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    patch.setattr(builtins, "__import__", without)
    return runpy.run_path(str(path))


def test_the_example_without_crosswalk_gets_the_embeddings_of_the_model(
    exported: Exported, tmp_path: Path
) -> None:
    names = pictures(tmp_path, 5)
    with pytest.MonkeyPatch.context() as patch:
        example = alone(EXAMPLE, patch)
        images = example["image_embeddings"](exported.folder, names)
        texts = None
        if exported.model.tokenizer is not None:
            texts = example["text_embeddings"](exported.folder, CAPTIONS)

    expected = exported.model.embed_images(names)
    np.testing.assert_allclose(images, expected, atol=1e-5)
    assert (texts is None) is not (exported.folder / "text.onnx").is_file()
    if texts is not None:
        np.testing.assert_allclose(texts, exported.model.embed_texts(CAPTIONS), atol=1e-5)


def test_the_card_says_how_graphs_are_called_and_what_was_measured(exported: Exported) -> None:
    card = (exported.folder / "README.md").read_text()

    height, width = exported.model.preprocessing.image_size
    assert f"takes `pixels`, uint8 [N, {height}, {width}, 3]" in card
    away = [float(each) for each in re.findall(r"difference of a number is (\S+)\.\n", card)]
    assert len(away) == 1 + (exported.model.tokenizer is not None)
    assert max(away) <= 1e-4
    results = json.loads((exported.run / "results.json").read_text())
    rank1 = f"{100 * results['last']['test/rank1']:.2f}"
    assert re.search(rf"R@1 on the test split of its run is \S+ % with them, {rank1} %", card)
    thresholds = read_thresholds(exported.folder / "thresholds.json")
    assert thresholds.fingerprint == exported.model.fingerprint
    assert "crosswalk.load" not in card  # the folder has no weights for it
    with pytest.raises(ValueError, match=r"holds image\.int8\.onnx, which onnxruntime runs"):
        crosswalk.load(exported.folder)


def test_the_lines_of_the_card_run(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (name,) = pictures(tmp_path, 1)
    picture = Image.open(name)
    picture.save(tmp_path / "1.jpg", quality=100, exif=picture.getexif())
    code = re.search(r"```python\n(.*?)```", (exported.folder / "README.md").read_text(), re.DOTALL)
    assert code is not None
    found: dict[str, Any] = {}
    (tmp_path / "image.onnx").symlink_to(exported.folder / "image.onnx")
    monkeypatch.chdir(tmp_path)

    exec(code[1], found)

    np.testing.assert_allclose(found["images"], exported.model.embed_images("1.jpg"), atol=1e-5)


def test_int8_files_are_smaller_and_near(exported: Exported) -> None:
    whole, small = (exported.folder / f"image{kind}.onnx" for kind in ("", ".int8"))
    size = exported.model.preprocessing.image_size
    pixels = np.random.default_rng(1).integers(0, 256, (3, *size, 3), dtype=np.uint8)

    found = [
        onnxruntime.InferenceSession(path).run(None, {"pixels": pixels})[0]
        for path in (whole, small)
    ]

    assert small.stat().st_size < 0.8 * whole.stat().st_size
    assert (found[0] * found[1]).sum(axis=1).min() > 0.95


def encoders_of(method: str) -> tuple[tuple[str, str], ...]:
    """Return the files of ``configs`` that make a method's encoders."""
    entries = read_group_file("method", method)["defaults"]
    chosen = {name: each[name] for each in entries if isinstance(each, dict) for name in each}
    return tuple((name, chosen.get(f"override /{name}", "")) for name in ("encoder", "text"))


@pytest.mark.parametrize("method", {encoders_of(method): method for method in METHODS}.values())
def test_programs_of_torch_compute_what_the_model_does(
    method: str, whole: WholeRuns, tmp_path: Path
) -> None:
    run = whole[method].path

    status = main(
        [
            *("export", str(run), "--which", "last", "--format", "torch"),
            *("--out", str(tmp_path / "model")),
        ]
    )

    model = crosswalk.load(run, which="last")
    size = model.preprocessing.image_size
    images = torch.randint(256, (5, 3, *size), dtype=torch.uint8)
    program = torch.export.load(tmp_path / "model" / "image.pt2").module()
    found = program(model.preprocessing.normalized(images))
    assert status == 0
    torch.testing.assert_close(found, model.embed_images(list(images)), atol=1e-5, rtol=0)
    if model.tokenizer is not None:
        program = torch.export.load(tmp_path / "model" / "text.pt2").module()
        found = program(model.tokenizer(CAPTIONS))
        torch.testing.assert_close(found, model.embed_texts(CAPTIONS), atol=1e-5, rtol=0)


def test_a_folder_holds_several_formats_of_one_model(
    whole: WholeRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, target = str(whole["mar"].path), tmp_path / "model"
    words = ["export", run, "--which", "last", "--out", str(target)]

    assert main([*words, "--format", "onnx", "--half"]) == 0
    assert main(words) == 0
    assert main([*words[:-1], str(tmp_path / "half"), "--half"]) == 0

    model = crosswalk.load(tmp_path / "half")
    size = model.preprocessing.image_size
    images = torch.randint(256, (3, 3, *size), dtype=torch.uint8)
    given = {"normalized": model.preprocessing.normalized(images).numpy()}
    (found,) = onnxruntime.InferenceSession(target / "image.onnx").run(None, given)
    np.testing.assert_allclose(found, model.embed_images(list(images)), atol=1e-5)
    card = (target / "README.md").read_text()
    assert "crosswalk.load" in card
    assert "## Run it by onnxruntime" in card
    assert "Weights were rounded to float16, which leaves embeddings with a cosine of" in card
    sizes = {path.name: path.stat().st_size for path in target.iterdir()}
    assert sizes["image.onnx"] < 0.6 * sizes["model.safetensors"]
    capsys.readouterr()
    other = [*words, "--format", "onnx"]
    other[1] = str(whole["supervised"].path)
    assert main(other) == 2
    assert f"--out {target} holds model.safetensors of another model" in capsys.readouterr().err


def test_a_graph_that_computes_something_else_is_not_written(
    whole: WholeRuns,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(export_graphs, "MOST", -1.0)

    status = main(
        [
            *("export", str(whole["supervised"].path), "--format", "torch"),
            *("--out", str(tmp_path / "model")),
        ]
    )

    assert status == 2
    assert "the exported image encoder of" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
