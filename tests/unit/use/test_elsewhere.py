"""Models that no run of ours made, or whose run is not here: imports, exports, names, the hub."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from PIL import Image
from torch import nn
from torch.testing import assert_close
from torchvision.models import get_model

import crosswalk
from crosswalk.cli import main
from crosswalk.commands import evaluate as evaluate_command
from crosswalk.config.build import build_method
from crosswalk.config.compose import compose
from crosswalk.config.construct import construct
from crosswalk.config.keys import flatten
from crosswalk.config.model_names import SHIPPED
from crosswalk.config.overrides import parse_overrides
from crosswalk.config.plain import to_plain
from crosswalk.config.stored import check_overrides, check_stored
from crosswalk.data.pipeline.image_transform import ImageTransform
from crosswalk.data.pipeline.preprocessing import Preprocessing
from crosswalk.encoders import clip_weights
from crosswalk.encoders.clip import ClipDualEncoder, open_clip_vit
from crosswalk.encoders.clip_resnet import clip_resnet
from crosswalk.encoders.dual_embedding import DualEmbedding
from crosswalk.encoders.image import ImageEncoder
from crosswalk.encoders.resnet import resnet, timm_backbone
from crosswalk.files import safetensors_header
from crosswalk.importers.mar import MSMT17_MEAN, MSMT17_STD
from crosswalk.run import train
from crosswalk.run.run_folder import RunFolder
from crosswalk.run.weights import load_start
from crosswalk.types import DataSpec, ImageBatch
from crosswalk.use.described import MISSING, described_by, without_start
from crosswalk.use.evaluate import evaluation_config
from crosswalk.use.load import weights_of
from crosswalk.use.model import joined_views
from crosswalk.use.named import named_model
from crosswalk.use.source import source_of
from tests.unit.importers import (
    test_cluster_contrast,
    test_cm_moco,
    test_cmmt,
    test_irra,
    test_mar,
    test_mmcl,
    test_rde,
)

WORDS = ["a", "man", "in", "red"]
PHOTO = Image.fromarray(np.random.default_rng(1).integers(0, 255, (90, 40, 3), np.uint8))


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


class Official(NamedTuple):
    """An official checkpoint, small.

    Attributes:
        encoder: Its encoder as ours.
        state: What its file holds.
        options: Of the import, with ``{}`` for the folder of `WORDS` and their vectors.
        preprocessing: What is done to its images.
    """

    encoder: nn.Module
    state: dict[str, Any]
    options: tuple[str, ...]
    preprocessing: Preprocessing


def of_rde() -> Official:
    torch.manual_seed(1)
    sizes = {**test_rde.SIZES, "context_length": 20, "vocabulary_size": 49408}
    model = DualEmbedding(ClipDualEncoder(**sizes), select_ratio=0.3, embedding_size=10)
    state = {name: row.float() for name, row in test_rde.official_state(model).items()}
    return Official(model, {"model": state}, (), Preprocessing((48, 16), "bilinear", *CLIP))


def of_irra() -> Official:
    sizes = {"context_length": 20, "vocabulary_size": 49408}
    model = test_irra.encoder(**sizes)
    own = model.state_dict()
    state = {f"base_model.{name.removeprefix('clip.')}": row for name, row in own.items()}
    return Official(model, {"model": state}, (), Preprocessing((48, 16), "bilinear", *CLIP))


def of_mmcl() -> Official:
    model = test_mmcl.encoder()
    state = {"state_dict": test_mmcl.official_state(model)}
    return Official(model, state, (), Preprocessing((256, 128), "bicubic", *IMAGENET))


def of_cluster_contrast() -> Official:
    model = test_cluster_contrast.encoder(gem=False, ibn=True)
    state = {"state_dict": test_cluster_contrast.official_state(model)}
    return Official(model, state, (), Preprocessing((256, 128), "bicubic", *IMAGENET))


def of_mar() -> Official:
    colours = (tuple(value / 255 for value in each) for each in (MSMT17_MEAN, MSMT17_STD))
    steps = Preprocessing((384, 128), "bicubic", *colours)  # type: ignore[arg-type]
    return Official(test_mar.encoder(), test_mar.official_state(), (), steps)


def of_cm_moco() -> Official:
    model = test_cm_moco.encoder(vectors="table")
    model.text.vectors.table = torch.arange(35.0).view(5, 7)  # type: ignore[union-attr]
    options = ("--vocabulary", "{}/words.txt", "--word-table", "{}/table.npy")
    state = {"model": test_cm_moco.official_state(model)}
    return Official(model, state, options, Preprocessing((96, 32), "bilinear", *CLIP))


def of_cmmt() -> Official:
    model = test_cmmt.small_encoder()
    state = {"network": test_cmmt.official_state(model)}
    options = ("--vocabulary", "{}/word_to_index.json")
    return Official(model, state, options, Preprocessing((384, 128), "bicubic", *IMAGENET))


OFFICIAL: dict[str, Callable[[], Official]] = {
    "rde": of_rde,
    "irra": of_irra,
    "mmcl": of_mmcl,
    "mar": of_mar,
    "cm_moco": of_cm_moco,
    "cmmt": of_cmmt,
    "cluster_contrast": of_cluster_contrast,
}


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """Return a folder with `WORDS` in the form of either method, and their vectors."""
    (tmp_path / "words.txt").write_text("\n".join(WORDS) + "\n")
    numbers = {word: number for number, word in enumerate([*WORDS, "<START>", "<END>", "UNK"])}
    (tmp_path / "word_to_index.json").write_text(json.dumps(numbers))
    np.save(tmp_path / "table.npy", np.arange(35, dtype=np.float32).reshape(5, 7))
    return tmp_path


def imported(method: str, folder: Path, *, options: bool = True) -> tuple[Official, Path]:
    official, target = OFFICIAL[method](), folder / f"{method}.safetensors"
    torch.save(official.state, folder / "official.pth")
    more = [word.format(folder) for word in official.options] if options else []
    assert main(["import-weights", method, str(folder / "official.pth"), str(target), *more]) == 0
    return official, target


TOKENS = {
    "rde": [49406, 320, 786, 530, 736, 49407],
    "irra": [49406, 320, 786, 530, 736, 49407],
    "cm_moco": [1, 2, 3, 4],
    "cmmt": [0, 1, 2, 3, 5],
}
"""Of "a man in red": CLIP's, and the places of words in either method's list."""


@pytest.mark.parametrize("method", OFFICIAL)
def test_an_imported_checkpoint_is_enough(words: Path, method: str) -> None:
    official, path = imported(method, words)

    model = crosswalk.load(shutil.move(path, words / "renamed.safetensors"))

    steps = official.preprocessing
    assert model.preprocessing == steps
    assert_close(
        dict(model.method.encoder.state_dict()),
        dict(official.encoder.state_dict()),
        rtol=1e-3,
        atol=1e-3,
    )  # RDE's files hold a part in float16
    height, width = steps.image_size
    pixels = PHOTO.resize((width, height), Image.Resampling[steps.interpolation.upper()])
    mean, std = (torch.tensor(each) for each in (steps.mean, steps.std))
    image = ((torch.from_numpy(np.array(pixels)) / 255 - mean) / std).permute(2, 0, 1)[None]
    number = torch.zeros(1, dtype=torch.int64)
    found = model.embed_images(PHOTO)
    assert (model.tokenizer is not None) == (method in ("rde", "irra", "cm_moco", "cmmt"))
    texts = None if model.tokenizer is None else model.embed_texts(["a man in red"])
    model.method.encoder = official.encoder.eval()
    with torch.no_grad():
        views = model.method.embed(ImageBatch(image, number, number, number, None))
        assert_close(found, joined_views(views), rtol=0, atol=2e-4)
    if model.tokenizer is not None:
        tokens = model.tokenizer(["a man in red"])
        assert tokens[0, : len(TOKENS[method])].tolist() == TOKENS[method]
        assert_close(texts, model.embed_texts(["a man in red"]), rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("method", "part", "name"),
    [
        ("rde", "clip", "ViT-B-16-quickgelu"),
        ("rde", "clip", "ViT-B-32-quickgelu"),
        ("mmcl", "backbone", "resnet50"),
        ("cm_moco", "image", "RN50"),
    ],
)
def test_official_weights_of_published_sizes_are_given_the_published_network(
    method: str, part: str, name: str
) -> None:
    """Without their numbers: shapes say which one it is."""
    importer = importlib.import_module(f"crosswalk.importers.{method}")
    with torch.device("meta"):
        if method == "rde":
            size = (384, 128)
            model: Any = DualEmbedding(open_clip_vit(name, image_size=size), select_ratio=0.3)
            official = test_rde.official_state(model)
        elif method == "mmcl":
            model = ImageEncoder(resnet(name, last_stride=1))
            official = test_mmcl.official_state(model)
        else:
            model = test_cm_moco.encoder()
            model.image = clip_resnet(name, image_size=(384, 128), last_stride=1)
            official = test_cm_moco.official_state(model)

    node = importer.recipe_of(importer.architecture_of(official))[f"encoder.{part}"]

    assert node["name"] == name
    with torch.device("meta"):
        found = construct(node, {})
    wanted = model.get_submodule(part).state_dict()
    assert {key: row.shape for key, row in found.state_dict().items()} == {
        key: row.shape for key, row in wanted.items()
    }


def test_an_import_does_not_depend_on_configurations_beside_it(
    words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = imported("mmcl", words)
    expected = safetensors_header(path)
    for part, text in (
        ("data/aaa.yaml", "defaults: [market1501]\nimage_size: [64, 32]\n"),
        ("experiment/mmcl/aaa.yaml", "# @package _global_\ndata: {image_size: [64, 32]}\n"),
    ):
        (words / "configs" / part).parent.mkdir(parents=True)
        (words / "configs" / part).write_text(text)
    monkeypatch.chdir(words)

    assert safetensors_header(imported("mmcl", words)[1]) == expected


def test_a_method_that_measures_colours_does_so_where_its_import_is_evaluated(
    words: Path,
    own_images: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the training images of the data, as its published evaluation; or else as said."""
    _, path = imported("mar", words)
    told = f"take mean {[value / 255 for value in MSMT17_MEAN]}, std"
    assert told in capsys.readouterr().out
    assert main(["export", str(path), "--out", str(words / "model")]) == 0
    assert "by the colours of its own training images" in (words / "model/README.md").read_text()
    used: list[ImageTransform] = []

    def stop(run: Any, target: RunFolder, *_: object, **__: object) -> None:  # noqa: ANN401
        used.append(run.data._normalizing)

    monkeypatch.chdir(words)
    monkeypatch.setattr(train, "_evaluated", stop)
    on = ("data=own_images", f"data.root={own_images}")

    assert evaluated(str(words / "model"), *on) == 2

    assert "pass data.normalization=given, which takes" in capsys.readouterr().err
    assert evaluated(str(path), *on, "data.normalization=given") == 0
    shutil.copytree(own_images / "gallery", own_images / "train")
    assert evaluated(str(words / "model"), *on) == 0
    pixels = np.stack([np.array(Image.open(file)) for file in (own_images / "train").iterdir()])
    np.testing.assert_allclose(used[0].mean, [value / 255 for value in MSMT17_MEAN])
    # resizing moves colours a little
    np.testing.assert_allclose(used[1].mean, pixels.mean(axis=(0, 1, 2)) / 255, atol=5e-3)
    assert main(["evaluate", str(words / "model"), *on, "data.normalization=other"]) == 2
    assert "data.normalization='other' is no choice" in capsys.readouterr().err


def test_an_import_is_told_the_size_of_its_images_where_weights_do_not_show_it(
    words: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(of_rde().state, words / "official.pth")
    command = ["import-weights", "rde", str(words / "official.pth"), str(words / "o.safetensors")]

    assert main([*command, "--image-size", "24x32"]) == 0
    assert crosswalk.load(words / "o.safetensors").preprocessing.image_size == (24, 32)
    assert main([*command, "--image-size", "32x32"]) == 2
    assert "takes --image-size HxW and --stride." in capsys.readouterr().err
    command[1] = "mmcl"
    torch.save(of_mmcl().state, words / "official.pth")
    assert main([*command, "--stride", "16"]) == 2
    assert "--stride: weights of mmcl do not depend on it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words_given", "said"),
    [
        (["rdee", "o.pth", "o.safetensors"], "there is no importer for 'rdee'"),
        (["rde", "gone.pth", "o.safetensors"], "gone.pth is no file: name the official"),
        (
            ["cmmt", "o.pth", "o.safetensors", "--vocabulary", "no.txt"],
            "no.txt is no file: name --",
        ),
        (["rde", "o.pth", "o.pt"], "o.pt should end in .safetensors"),
    ],
)
def test_mistakes_in_an_import_are_answered_at_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words_given: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("crosswalk.run.weights.run_import", None)  # what is slow to import
    Path("o.pth").touch()

    assert main(["import-weights", *words_given]) == 2

    assert said in capsys.readouterr().err


@pytest.mark.parametrize("method", ["cm_moco", "cmmt"])
def test_an_import_without_its_words_says_how_to_give_them(
    words: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, path = imported(method, words, options=False)

    assert "Repeat this with --vocabulary FILE" in capsys.readouterr().out
    with pytest.raises(ValueError, match=rf"{method}\.safetensors is an import of {method} that "):
        crosswalk.load(path)


def test_words_that_no_part_of_an_import_needs_are_refused(
    words: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(of_mmcl().state, words / "official.pth")
    command = ["import-weights", "mmcl", str(words / "official.pth"), str(words / "o.safetensors")]

    assert main([*command, "--vocabulary", str(words / "words.txt")]) == 2

    assert "words.txt: this checkpoint of mmcl needs none." in capsys.readouterr().err
    assert not (words / "o.safetensors").exists()


def test_an_import_is_exported_and_the_weights_of_an_export_are_enough(words: Path) -> None:
    _, path = imported("mmcl", words)
    expected = crosswalk.load(path)

    assert main(["export", str(path), "--out", str(words / "model")]) == 0
    assert main(["export", str(words / "model"), "--out", str(words / "again")]) == 0

    file = words / "again" / "model.safetensors"
    found = crosswalk.load(file)
    assert found.fingerprint == expected.fingerprint
    assert torch.equal(found.embed_images(PHOTO), expected.embed_images(PHOTO))
    assert found.name == "again"
    assert file.stat().st_mode == (words / "again" / "config.json").stat().st_mode
    assert "official checkpoint `official.pth`" in (words / "again" / "README.md").read_text()


@pytest.mark.parametrize("form", ["mmcl.safetensors", "model", "model/model.safetensors"])
def test_a_training_starts_from_imports_and_exports_and_takes_their_encoder(
    words: Path, form: str
) -> None:
    official, path = imported("mmcl", words)
    assert main(["export", str(path), "--out", str(words / "model")]) == 0
    data = ("data=synthetic_images", "data.synthetic.size=tiny", "trainer=cpu", "logger=csv")

    config = compose(["method=mmcl", *data, f"checkpoint={words / form}"])
    method = build_method(to_plain(config), DataSpec(3, 3, 3), None)
    load_start(method, words / form)

    assert list(config.encoder.backbone.planes) == [2, 3]
    assert list(config.data.image_size) == [256, 128]
    assert_close(
        dict(method.encoder.state_dict()), dict(official.encoder.state_dict()), rtol=0, atol=0
    )


@pytest.mark.parametrize("form", ["tiny:mmcl", "hf:somebody/reid"])
def test_a_training_starts_from_models_by_name(hub: Path, form: str) -> None:
    shutil.copytree(SHIPPED / "mmcl", hub)

    config = compose(["method=mmcl", "data=market1501", f"checkpoint={form}"])
    method = build_method(to_plain(config), DataSpec(3, 3, 3), None)
    load_start(method, Path(config.checkpoint))

    expected = crosswalk.load("tiny:mmcl").method.encoder.state_dict()
    assert Path(config.checkpoint) == (hub if form.startswith("hf:") else SHIPPED / "mmcl")
    assert list(config.data.image_size) == [96, 48]
    assert_close(dict(method.encoder.state_dict()), dict(expected), rtol=0, atol=0)


@pytest.mark.parametrize(
    "config", [{"checkpoint": "hf:a/b"}, {"stage": {"overrides": {"checkpoint": "hf:a/b"}}}]
)
def test_what_was_stored_fetches_no_model(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"checkpoint=hf:a/b would be fetched; name its folder"):
        check_stored(config, "table.yaml")
    with pytest.raises(ValueError, match=r"checkpoint=hf:a/b would be fetched; name its folder"):
        check_overrides(parse_overrides(f"{k}={v}" for k, v in flatten(config).items()), "a.yaml")


def test_a_published_architecture_leaves_the_encoder_of_the_run_as_it_is(tmp_path: Path) -> None:
    torch.save({"state_dict": test_mmcl.official_state(resnet50())}, tmp_path / "o.pth")
    target = tmp_path / "mmcl.safetensors"
    assert main(["import-weights", "mmcl", str(tmp_path / "o.pth"), str(target)]) == 0
    words = ["method=mmcl", "data=market1501", f"checkpoint={target}"]

    assert compose(words) == compose([*words, "encoder=resnet50"])


def resnet50() -> ImageEncoder:
    return ImageEncoder(resnet("resnet50", last_stride=1))


def timm_weights(folder: Path) -> tuple[nn.Module, Path]:
    torch.manual_seed(1)
    model = timm.create_model("resnet10t", pretrained=False)
    torch.save(model.state_dict(), folder / "r10.pth")
    return model.eval(), folder / "r10.pth"


def test_a_model_of_timm_embeds_as_timm_does(tmp_path: Path) -> None:
    theirs, path = timm_weights(tmp_path)

    model = crosswalk.load(f"timm:resnet10t/{path}")

    settings = timm.data.resolve_model_data_config(theirs)
    steps = model.preprocessing
    assert (3, *steps.image_size) == settings["input_size"]
    assert (steps.mean, steps.std) == (settings["mean"], settings["std"])
    assert steps.interpolation == settings["interpolation"]
    image = torch.from_numpy(np.array(PHOTO.resize(steps.image_size[::-1], 3)))
    mean, std = (torch.tensor(settings[name]) for name in ("mean", "std"))
    batch = ((image / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = theirs.forward_head(theirs.forward_features(batch), pre_logits=True)
    assert_close(model.embed_images(PHOTO), nn.functional.normalize(expected), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="is a model of images alone"):
        model.embed_texts(["a man"])


def test_torchvisions_eps_is_kept_where_a_model_is_rebuilt(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = get_model("mobilenet_v3_small", weights=None)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(1e-3, 1e-1)  # as in trained networks: eps counts
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    name = f"timm:mobilenetv3_small_100/{tmp_path / 'w.pth'}"

    model = crosswalk.load(name)

    file = str(tmp_path / "w.pth")
    expected = timm_backbone("mobilenetv3_small_100", pretrained=file, eps=1e-3).eval()
    image = torch.from_numpy(np.array(PHOTO)).permute(2, 0, 1)[None]
    size = model.preprocessing.image_size
    pixels = nn.functional.interpolate(image.float(), size).byte()
    with torch.no_grad():
        rows = expected(model.preprocessing.normalized(pixels))
    found = model.embed_images(pixels)
    assert_close(found, nn.functional.normalize(rows), atol=1e-6, rtol=0)
    assert main(["export", name, "--out", str(tmp_path / "model")]) == 0
    assert torch.equal(crosswalk.load(tmp_path / "model").embed_images(pixels), found)


TINY_CLIP = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}


@pytest.fixture
def tiny_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Let open_clip know a tiny model, whose weights are in ``clip.pth``."""
    import open_clip

    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny-quickgelu", TINY_CLIP)
    torch.manual_seed(1)
    model = open_clip.create_model("ViT-tiny-quickgelu", pretrained=None)
    torch.save(model.state_dict(), tmp_path / "clip.pth")
    return model.eval()


def test_a_model_of_open_clip_embeds_as_open_clip_does(
    tiny_clip: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip

    model = crosswalk.load(f"open_clip:ViT-tiny-quickgelu/{tmp_path / 'clip.pth'}")

    sentences = ["a man in a red coat", "a woman with a bag"]
    steps = model.preprocessing
    image = torch.from_numpy(np.array(PHOTO.resize((32, 32), 3))).permute(2, 0, 1)[None]
    tokens = open_clip.get_tokenizer("ViT-B-32")(sentences)
    with torch.no_grad():
        texts = tiny_clip.encode_text(tokens, normalize=True)
        images = tiny_clip.encode_image(steps.normalized(image), normalize=True)
    assert (steps.image_size, steps.interpolation) == ((32, 32), "bicubic")
    assert_close(model.embed_texts(sentences), texts, atol=1e-5, rtol=0)
    assert_close(model.embed_images(PHOTO), images, atol=1e-6, rtol=0)
    shutil.copy(tmp_path / "clip.pth", tmp_path / "openai")
    monkeypatch.chdir(tmp_path)
    assert clip_weights.pretrained_file("ViT-B-32", "./openai") == "./openai"
    with clip_weights.downloading(False):  # a file does not take the place of published weights
        assert clip_weights.pretrained_file("ViT-B-32", "openai") is None
    assert (
        named_model("open_clip:ViT-B-32-quickgelu/openai").config["encoder"]["clip"]["pretrained"]
        == "openai"
    )
    assert main(["export", model.name, "--out", str(tmp_path / "model")]) == 0
    again = crosswalk.load(tmp_path / "model")
    assert torch.equal(again.embed_texts(sentences), model.embed_texts(sentences))


def test_a_description_that_asks_for_more_than_weights_is_refused(
    tiny_clip: nn.Module, tmp_path: Path
) -> None:
    name = f"open_clip:ViT-tiny-quickgelu/{tmp_path / 'clip.pth'}"
    assert main(["export", name, "--out", str(tmp_path / "model")]) == 0
    place = tmp_path / "model" / "config.json"
    whole = json.loads(place.read_text())
    table = {"_target_": "crosswalk.encoders.word_table.clip_word_table", "_partial_": True}
    clip = whole["encoder"]["clip"]
    for part, value, words in (
        ("data", whole["data"] | {"context_length": "x"}, "data.context_length='x' is no number"),
        ("data", whole["data"] | {"context_length": 400}, "take captions of data.context_length="),
        ("encoder", {**whole["encoder"], "clip": clip | {"name": "hf-hub:a/b"}}, "has no model"),
        ("encoder", {**whole["encoder"], "clip": clip | {"name": "local-dir:/"}}, "has no model"),
        ("encoder", {**whole["encoder"], "clip": table}, "gives a partial function"),
        ("encoder", {**whole["encoder"], "clip": {**clip, "table": table}}, "config.json: "),
    ):
        place.write_text(json.dumps({**whole, part: value}))
        with pytest.raises(ValueError, match=re.escape(words)):
            crosswalk.load(tmp_path / "model")


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_word_vectors_are_those_of_the_weights_alone(rows: int) -> None:
    maker = "crosswalk.encoders.word_table.clip_word_table"
    node = {"table": {"_target_": maker, "folder": "/", "_partial_": True}}
    weights = {f"{number}.table": torch.zeros(3, 5) for number in range(rows)}

    if rows == 1:
        size = {"_target_": MISSING, "_partial_": True, "size": 5}
        assert without_start(node, weights) == {"table": size}
    else:
        with pytest.raises(ValueError, match=f"the weights hold {rows} tables of word vectors"):
            without_start(node, weights)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:resnt18", "timm has no model 'resnt18'. Near: resnet18,"),
        ("timm:resnet18.foo", "timm has no weights 'foo' of resnet18; it has the tags a1_in1k,"),
        ("timm:resnet18/gone.pth", "gone.pth is missing. Name a file of weights."),
        ("open_clip:ViT-B-16", "names no weights. open_clip has the tags openai, laion400m_e31,"),
        ("open_clip:ViT-B-16/opnai", "opnai is no tag of it: open_clip has the tags openai,"),
        ("open_clip:ViT-B-16/openai", "Write open_clip:ViT-B-16-quickgelu/openai."),
        ("open_clip:ViT-B-61/openai", "open_clip has no model 'ViT-B-61'. Near: ViT-B-16"),
    ],
)
def test_a_name_that_a_library_does_not_know_is_refused_with_those_it_knows(
    name: str, words: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(words)):
        crosswalk.load(name)


def test_openais_archives_are_refused_for_a_network_with_another_activation(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))
        torch.jit.trace(nn.Linear(1, 1), torch.zeros(1, 1)).save(tmp_path / "clip.pt")

    with pytest.raises(ValueError, match=r"Write open_clip:ViT-B-16-quickgelu/\S+clip\.pt\.$"):
        crosswalk.load(f"open_clip:ViT-B-16/{tmp_path / 'clip.pt'}")
    named_model(f"open_clip:ViT-B-16-quickgelu/{tmp_path / 'clip.pt'}")


def test_weights_that_cannot_be_fetched_are_asked_for_as_a_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(FileNotFoundError, match=r"and name it: timm:resnet10t/<file>\.$"):
        crosswalk.load("timm:resnet10t.c3_in1k")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a model in the cache of a hub that cannot be reached."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    cached, revision = tmp_path / "hub" / "models--somebody--reid", "a" * 40
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(revision)
    return cached / "snapshots" / revision


@pytest.mark.parametrize("name", ["hf:somebody/reid", "hf:somebody/reid@main"])
def test_a_model_of_the_hub_is_read_from_its_cache(hub: Path, tmp_path: Path, name: str) -> None:
    _, path = timm_weights(tmp_path)
    assert main(["export", f"timm:resnet10t/{path}", "--out", str(hub)]) == 0

    model = crosswalk.from_pretrained(name)

    assert model.name == "somebody/reid"
    assert torch.equal(model.embed_images(PHOTO), crosswalk.load(hub).embed_images(PHOTO))


def test_the_card_of_a_model_of_the_hub_is_fetched_with_it(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub

    hub.mkdir(parents=True)
    for file in (SHIPPED / "mmcl").iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "README.md").write_text("What somebody measured.")

    def fetch(repository: str, name: str, revision: str | None) -> str:
        return str(shutil.copy(tmp_path / name, hub / name))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)

    assert main(["card", "hf:somebody/reid"]) == 0

    assert capsys.readouterr().out == "What somebody measured."


def test_a_model_that_is_not_in_the_cache_is_refused_in_one_line(hub: Path) -> None:
    with pytest.raises(FileNotFoundError, match="somebody/else is no folder here, and someb"):
        crosswalk.load("hf:somebody/else")


def test_a_model_of_the_hub_that_is_none_of_ours_is_refused(hub: Path) -> None:
    hub.mkdir(parents=True)
    (hub / "config.json").write_text('{"model_type": "bert"}')
    (hub / "model.safetensors").write_bytes(b"")

    with pytest.raises(ValueError, match="somebody/reid of the Hugging Face hub is no model of cr"):
        crosswalk.load("hf:somebody/reid")


MISTAKES = {
    "runs/nowhere": "does not exist",
    "tim:resnet18": "tim: is no library of models. Did you mean timm:<name>",
    "openclip:ViT-B-16/openai": "Did you mean open_clip:<name>/<tag>",
    "timm:": "is not of the form timm:<name>",
    "hf:reid": "is not of the form hf:<user>/<repository>",
    "hf:somebody/reid": "is no folder here, and somebody/reid could not be had",
    "model.onnx": "is a model of ONNX",
    "photos": "is no model: it holds images",
}


STARTS = {
    "timm:resnet18.a1": "published weights are those of a part of the encoder. Write encoder=timm "
    "encoder.backbone.name=resnet18.a1 for",
    "open_clip:ViT-B-32/openai": "published weights are those of a part of the encoder. Write "
    "encoder=clip_vit_b16 encoder.clip.name=ViT-B-32 encoder.clip.pretrained=openai for pairs.",
    "tiny:mmlc": "tiny:mmlc is no model of this package, which has tiny:clip_reid, ",
    "tin:mmcl": "tin:mmcl does not exist, and tin: is no library",
    "hf:somebody/reid": "hf:somebody/reid is no folder here, and somebody/reid could not",
}
"""Names that no training starts from, and what is said of them."""


TABLE = "experiments/rde/table2.yaml --data synthetic_pairs"
PARTS = {
    "train method=mmcl encoder=clip_tiny": "encoder=clip_tiny does not go with method=mmcl",
    "config show encoder=resnet_tiny": "encoder=resnet_tiny does not go with method=rde",
    f"ablate {TABLE} optim.lr=x --dry-run": "crosswalk: optim.lr='x' is of type str",
    f"ablate {TABLE} encoder=resnet_tiny --show": "encoder=resnet_tiny does not go with method=rde",
}


def test_mistakes_are_answered_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    """All in one process, as it takes a second to start one."""
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07")
    (tmp_path / "photos").mkdir()
    PHOTO.save(tmp_path / "photos" / "1.png")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    description = {"format": 1, "method": {"_target_": "x"}, "data": {}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(description))
    (tmp_path / "pairs.csv").write_text("image,caption,person_id,split\n1.jpg,a man,1,test\n")
    commands = [["embed", name, "photos", "--out", "o.npz"] for name in MISTAKES]
    commands += [[command, name] for command in ("card", "evaluate") for name in MISTAKES]
    commands += [["export", name, "--out", "out"] for name in MISTAKES]
    told = list(MISTAKES.values())
    told = told * 4
    for name in ("model", "timm:resnet18"):
        commands += [
            ["embed", name, "pairs.csv", "--out", "o.npz"],
            ["evaluate", name, "data=own_pairs", "data.root=pairs.csv"],
            ["evaluate", name],
        ]
        told += ["reads no sentences", "knows no captions", "is of no run here, so its data are"]
    for name, said in STARTS.items():
        commands.append(["train", "method=mmcl", f"checkpoint={name}"])
        told.append(f"checkpoint={name}: {said}")
    for line, said in PARTS.items():
        commands.append(line.split())
        told.append(said)
    program = (
        "import json, sys\n"
        "from crosswalk.cli import main\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    print('#', file=sys.stderr)\n"
        "    assert main(words) == 2, words\n"
        "    heavy = {'torch', 'lightning', 'timm', 'open_clip'} & set(sys.modules)\n"
        "    assert not heavy, (words, heavy)\n"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}

    found = subprocess.run(
        [sys.executable, "-c", program, json.dumps(commands)],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )

    assert found.returncode == 0, found.stderr
    assert not (tmp_path / "runs").exists()
    for words, said in zip(told, found.stderr.split("#\n")[1:], strict=True):
        assert words in said


@pytest.fixture
def own_images(tmp_path: Path) -> Path:
    """Return a folder of queries and a gallery, without anything to train on."""
    random = np.random.default_rng(2)
    for split, camera in (("query", 1), ("gallery", 2)):
        for person in (1, 2, 3):
            folder = tmp_path / "own" / split
            folder.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 255, (64, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{person:04}_c{camera}_1.png")
    return tmp_path / "own"


def evaluated(name: str, *overrides: str) -> int:
    return main(["evaluate", name, "trainer=cpu", "data.num_workers=0", *overrides])


def test_a_model_is_evaluated_without_a_run_and_without_training_images(
    own_images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate_command, "leave_report", lambda folder, data: None)
    name = f"timm:resnet10t/{timm_weights(tmp_path)[1]}"

    assert evaluated(name, "data=own_images", f"data.root={own_images}") == 0

    told = capsys.readouterr().out
    (folder,) = map(RunFolder, (tmp_path / "runs").iterdir())
    model = crosswalk.load(name)
    files = {side: sorted((own_images / side).iterdir()) for side in ("query", "gallery")}
    scores = model.embed_images(files["query"]) @ model.embed_images(files["gallery"]).T
    rank1 = (scores.argmax(dim=1) == torch.arange(3)).float().mean().item()
    assert folder.name.startswith("zero-shot-timm-resnet10t-r10.pth-own_images-last-")
    assert folder.results()["start"]["test/rank1"] == pytest.approx(rank1)
    assert folder.queries("test", "start")["image_to_image"].person_id.shape == (3,)
    assert (folder.record()["evaluates"], folder.record()["zero_shot"]) == (name, True)
    assert "zero-shot:" in told
    assert main(["evaluate", str(folder.path)]) == 2
    assert f"Name the model: crosswalk evaluate {name}" in capsys.readouterr().err
    with pytest.raises(ValueError, match=re.escape(f"Name its model: {name}")):
        crosswalk.load(folder.path)


def test_an_evaluation_of_a_model_looks_for_no_camera_style_images() -> None:
    source = source_of("tiny:mmcl")
    described = described_by(source)
    content = described.content(weights_of(source, described))

    config = evaluation_config(source, described, content, ["data=market1501", "data.root=here"])

    assert compose(["method=mmcl", "data=market1501"])["data"]["camstyle"] == "auto"
    assert config["data"]["camstyle"] == "off"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("method=mmcl", "method belongs to the model, which is evaluated as it is"),
        ("encoder=resnet50", "encoder belongs to the model"),
        ("encoder.select_ratio=0.5", "encoder.select_ratio belongs to the model"),
        ("checkpoint=a.ckpt", "checkpoint belongs to the model"),
        ("data.image_size=[64,32]", "data.image_size belongs to the model"),
        ("data.eval_interpolation=nearest", "data.eval_interpolation belongs to the model"),
        ("data.normalization=dataset", "data.normalization belongs to the model"),
        ("data.transform.std=[1,1,1]", "data.transform.std belongs to the model"),
        ("+data.transform={mean: [0,0,0]}", "data.transform.mean belongs to the model"),
        ("protocol=val", "protocol=val chooses an epoch, and tiny:mmcl has none to choose"),
        ("optim.lr=3", "optim.lr would have no effect: an evaluation does not read it"),
        ("+split=val", "split would have no effect"),
    ],
)
def test_overrides_that_change_an_evaluated_model_are_refused(
    capsys: pytest.CaptureFixture[str], override: str, words: str
) -> None:
    assert evaluated("tiny:mmcl", "data=own_images", "data.root=nowhere", override) == 2
    assert words in capsys.readouterr().err


def test_overrides_that_say_what_a_model_has_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    same = ("data.image_size=[96,48]", "protocol=official", "output_dir=there")

    assert evaluated("tiny:mmcl", "data=own_images", "data.root=nowhere", *same) == 2
    assert "data.root=nowhere does not exist" in capsys.readouterr().err


def test_a_model_of_open_clip_is_evaluated_on_test_pairs_alone(
    tiny_clip: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate_command, "leave_report", lambda folder, data: None)
    entries = []
    (tmp_path / "CUHK-PEDES" / "imgs").mkdir(parents=True)
    for person, words in enumerate(("a man in red", "a woman in blue", "a child"), 1):
        pixels = np.full((64, 32, 3), 60 * person, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "CUHK-PEDES" / "imgs" / f"{person}.png")
        entry = {"split": "test", "captions": [words], "file_path": f"{person}.png", "id": person}
        entries.append(entry)
    (tmp_path / "CUHK-PEDES" / "reid_raw.json").write_text(json.dumps(entries))
    name = f"open_clip:ViT-tiny-quickgelu/{tmp_path / 'clip.pth'}"

    assert evaluated(name, "data=cuhk_pedes", "data.root=CUHK-PEDES") == 0

    (folder,) = map(RunFolder, (tmp_path / "runs").iterdir())
    model = crosswalk.load(name)
    images = [tmp_path / "CUHK-PEDES" / "imgs" / f"{person}.png" for person in (1, 2, 3)]
    texts = model.embed_texts([entry["captions"][0] for entry in entries])  # type: ignore[index]
    scores = texts @ model.embed_images(images).T
    rank1 = (scores.argmax(dim=1) == torch.arange(3)).float().mean().item()
    assert folder.results()["start"]["test/rank1"] == pytest.approx(rank1)
    assert "val/rank1" not in folder.results()["start"]
