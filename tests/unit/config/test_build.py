from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import timm
import torch

from crosswalk.cli import main
from crosswalk.config import build as config_build
from crosswalk.config.build import build, build_method
from crosswalk.config.check import check
from crosswalk.config.compose import compose
from crosswalk.config.places import refuse_inside_data
from crosswalk.config.plain import to_plain
from crosswalk.data.images import ImageToImageData, Reader
from crosswalk.methods.base import Method, OptimFactory
from crosswalk.run.run_folder import RunFolder
from crosswalk.types import DataSpec, ImageBatch, Needs
from tests.unit.data.trees import untouched, write_cuhk, write_image

MARKET = (
    "bounding_box_train/0002_c1s1_000451_03.jpg",
    "query/0007_c2s3_070952_00.jpg",
    "bounding_box_test/0007_c1s3_070952_00.jpg",
)


def reader(name: str) -> dict[str, Any]:
    return {"_target_": f"crosswalk.data.readers.{name}.read_{name}", "_partial_": True}


@pytest.fixture
def cuhk(tmp_path: Path) -> Path:
    return write_cuhk(tmp_path / "datasets" / "CUHK-PEDES")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "own" / "pairs.csv"
    write_image(file.parent / "photos" / "1.png")
    file.write_text("image,caption,person_id,split\nphotos/1.png,A red coat.,7,train\n")
    return file


@pytest.mark.parametrize("place", [".", "runs", "imgs/runs", "../CUHK-PEDES/runs", "link/runs"])
def test_nothing_is_written_into_the_folder_of_a_data_set(cuhk: Path, place: str) -> None:
    (cuhk.parent / "link").symlink_to(cuhk)
    target = cuhk.parent / place if place.startswith("link") else cuhk / place

    for root in (cuhk, cuhk.parent):
        data = {"root": str(root), "reader": reader("cuhk_pedes")}
        with pytest.raises(ValueError, match=r"output_dir=.*lies inside the data set's folder"):
            refuse_inside_data({"data": data}, target, "output_dir")


def test_the_folder_above_data_sets_may_hold_runs_as_well(cuhk: Path) -> None:
    data = {"root": str(cuhk.parent), "reader": reader("cuhk_pedes")}

    refuse_inside_data({"data": data}, cuhk.parent / "runs", "output_dir")
    refuse_inside_data({"data": {**data, "root": None}}, cuhk / "runs", "output_dir")
    refuse_inside_data(
        {"data": {**data, "root": str(cuhk / "gone")}}, cuhk / "gone/runs", "output_dir"
    )


@pytest.mark.parametrize(
    ("folder", "root", "place"),
    [
        (".", "own/pairs.csv", "own/runs"),
        ("own", ".", "runs"),
        ("own", "pairs.csv", "photos/runs"),
        ("own", "pairs.csv", None),
    ],
)
def test_a_table_in_the_folder_one_works_in_leaves_it_to_the_work(
    table: Path, monkeypatch: pytest.MonkeyPatch, folder: str, root: str, place: str | None
) -> None:
    monkeypatch.chdir(table.parent.parent / folder)
    data = {"root": root, "reader": reader("own_pairs")}

    if place is None:
        refuse_inside_data({"data": data}, Path("runs"), "output_dir")
    else:
        with pytest.raises(ValueError, match="lies inside the data set's folder"):
            refuse_inside_data({"data": data}, Path(place), "output_dir")


def test_images_beside_a_table_in_that_folder_leave_it_to_the_work_too(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = table.parent / "flat"
    write_image(flat / "1.png")
    (flat / "pairs.csv").write_text("image,caption,person_id,split\n1.png,A red coat.,7,train\n")
    monkeypatch.chdir(flat)

    refuse_inside_data(
        {"data": {"root": "pairs.csv", "reader": reader("own_pairs")}}, Path("runs"), "output_dir"
    )


@pytest.mark.parametrize("part", ["source", "target"])
def test_source_and_target_are_both_looked_at(cuhk: Path, tmp_path: Path, part: str) -> None:
    other = tmp_path / "Market-1501"
    for name in MARKET:
        write_image(other / name)
    parts = {
        "source": {"root": str(cuhk), "reader": reader("cuhk_pedes")},
        "target": {"reader": reader("market1501")},
    }
    place = {"source": cuhk, "target": other}[part]

    with pytest.raises(ValueError, match="lies inside the data set's folder"):
        refuse_inside_data({"data": {"root": str(tmp_path), **parts}}, place / "x.csv", "--out")


@pytest.mark.parametrize(
    "words",
    [
        ("train", "method=rde", "data=cuhk_pedes", "data.root=."),
        ("train", "method=rde", "data=cuhk_pedes", f"data.root=..{os.sep}"),
        ("sweep", "rde", "--local", "data=cuhk_pedes", "data.root=."),
        ("ablate", "{tables}/rde/table2.yaml", "data.root=.", "trainer=cpu"),
        ("data", "check", ".", "--json", "report.json"),
    ],
)
def test_commands_given_inside_a_data_set_write_nothing_there(
    cuhk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
) -> None:
    tables = Path(__file__).parents[3] / "experiments"
    monkeypatch.chdir(cuhk)

    with untouched(cuhk):
        status = main([word.format(tables=tables) for word in words])

    assert status in (1, 2)
    assert str(cuhk) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *(("report {} --out", "x.html"), ("compare {} {} --out", "x.html")),
        *(("audit {} --out", "x.csv"), ("card {} --out", "x.md"), ("export {} --out", "model")),
        *(("calibrate {} --out", "x.json"), ("benchmark {} --out", "x.json")),
        ("export-weights {}", "x.safetensors"),
    ],
)
def test_what_is_made_of_a_run_is_not_written_into_its_data(
    cuhk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    name: str,
) -> None:
    monkeypatch.setattr("crosswalk.lab.compare.audit.division_of", lambda *_: None)
    monkeypatch.setattr("crosswalk.lab.compare.runs._queries", lambda *_: None)
    config = to_plain(compose(["method=rde", "data=cuhk_pedes", f"data.root={cuhk}"]))
    run, out = RunFolder(tmp_path / "run"), cuhk / name
    run.save_config(config)
    run.last_checkpoint.touch()
    other = shutil.copytree(run.path, tmp_path / "other")

    with untouched(cuhk):
        assert main([*command.format(run.path, other).split(), str(out)]) == 2

    said = f"={out} lies inside the data set's folder {cuhk}"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size", "named"),
    [
        ("[16,8]", "encoder.backbone.name=densenet121"),
        ("[8,4]", "encoder.backbone.name=vit_tiny_patch16_224"),
        ("[20,10]", "encoder.backbone.name=xcit_nano_12_p16_224"),  # while it is made
    ],
)
def test_an_encoder_names_images_that_are_too_small_for_it(
    tmp_path: Path, size: str, named: str
) -> None:
    for name in MARKET:
        write_image(tmp_path / name)
    words = ["encoder=timm", f"data.image_size={size}", named]
    data = ["data=market1501", f"data.root={tmp_path}"]
    checked = check(compose(["method=mmcl", *data, *words, "encoder.backbone.pretrained=false"]))

    with pytest.raises(ValueError, match=r"takes no images of data\.image_size=") as refused:
        build(checked)

    assert str(refused.value).startswith(named)
    assert "or another encoder.backbone.name." in str(refused.value)


def test_an_encoder_of_other_images_names_both_keys() -> None:
    words = ["method=rde", "data=synthetic_pairs", "data.synthetic.size=tiny"]
    checked = check(compose([*words, "data.image_size=[48,32]", "encoder.clip.image_size=[96,32]"]))

    with pytest.raises(
        ValueError, match=r"encoder\.clip\.image_size=\[96, 32\], and not of data\."
    ):
        build(checked)


class Square(ImageToImageData):
    """Data of one's own whose images are as high as wide."""

    def __init__(
        self, reader: Reader, *, root: str, image_size: int, identities: bool = True
    ) -> None:
        super().__init__(
            reader, root=root, image_size=(image_size, image_size), identities=identities
        )


class KnowsItsTrainer(Method[ImageBatch]):
    """A method of one's own that looks at what it has in a run only."""

    needs = Needs(batches=(ImageBatch,))

    def __init__(self, data: DataSpec, optim: OptimFactory, encoder: torch.nn.Module) -> None:
        super().__init__(optim)
        self.encoder = encoder

    def embed(self, batch: ImageBatch) -> torch.Tensor:
        assert self.trainer.training
        return torch.zeros(1)


class OfOneSize(KnowsItsTrainer):
    """A method of one's own that says itself which images it takes."""

    def embed(self, batch: ImageBatch) -> torch.Tensor:
        raise ValueError(f"images {batch.image.shape[-1]} wide are none of mine")


class Refuses(torch.nn.Module):
    """An encoder with a mistake of its own."""

    def __init__(self) -> None:
        raise AssertionError("a mistake")


def of_ones_own(root: Path, **parts: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the configuration of a run with parts of this module."""
    for name in MARKET:
        write_image(root / name)
    words = ["method=mmcl", "encoder=resnet_tiny", "data=market1501", f"data.root={root}"]
    config = to_plain(compose([*words, "data.image_size=[16,8]"]))
    for key, name in parts.items():
        config[key] = {"_target_": f"{__name__}.{name}"}
    if "data" in parts:
        config["data"] |= {"reader": reader("market1501"), "root": str(root), "image_size": 16}
    return config


@pytest.mark.parametrize("parts", [{"data": "Square"}, {"method": "KnowsItsTrainer"}], ids=str)
def test_what_says_nothing_about_the_image_size_refuses_no_run(
    tmp_path: Path, parts: dict[str, str]
) -> None:
    run = build(check(of_ones_own(tmp_path, **parts)))

    assert all(module.training for module in run.method.modules())


def test_a_method_says_in_its_own_words_which_images_it_takes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^images 8 wide are none of mine$"):
        build(check(of_ones_own(tmp_path, method="OfOneSize")))


@pytest.mark.parametrize(
    ("checkpoint", "loads_weights", "downloads"),
    [(None, False, True), ("run.ckpt", False, False), (None, True, False)],
)
def test_nothing_is_downloaded_where_all_weights_come_from_elsewhere(
    checkpoint: str | None,
    loads_weights: bool,
    downloads: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bool] = []
    make = timm.create_model

    def create_model(name: str, *, pretrained: bool, **arguments: Any) -> torch.nn.Module:  # noqa: ANN401
        asked.append(pretrained)
        return make("resnet10t", pretrained=False, **arguments)

    monkeypatch.setattr(timm, "create_model", create_model)
    node = {"_target_": "crosswalk.encoders.resnet.timm_backbone", "name": "resnet10t.c3_in1k"}
    config = of_ones_own(tmp_path)
    config["encoder"]["backbone"] = {**node, "pretrained": True}

    build(check({**config, "checkpoint": checkpoint}), loads_weights=loads_weights)

    assert asked == [downloads]


def test_a_mistake_in_an_encoder_is_not_put_down_to_the_image_size(tmp_path: Path) -> None:
    config = of_ones_own(tmp_path, method="KnowsItsTrainer", encoder="Refuses")

    with pytest.raises(AssertionError, match="a mistake"):
        build(check(config))


@pytest.mark.parametrize(
    ("method", "encoder", "key", "other"),
    [
        ("cm_moco", "resnet50_two_stream", "encoder.image.pretrained", "encoder.backbone"),
        ("supervised", "resnet50", "encoder.backbone.pretrained", "encoder.image"),
    ],
)
def test_weights_that_cannot_be_had_are_told_with_the_key_of_the_method_alone(
    method: str, encoder: str, key: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timm, "create_model", no_network)
    config = to_plain(compose([f"method={method}", f"encoder={encoder}"]))
    config["encoder"][key.split(".")[1]]["pretrained"] = "resnet50.tv_in1k"

    with pytest.raises(FileNotFoundError, match="could not be downloaded") as refused:
        build_method(config, mock.Mock(), mock.Mock(words=("a",)))

    assert f"pass {key}=<file>" in str(refused.value)
    assert other not in str(refused.value)


def no_network(name: str, **arguments: object) -> torch.nn.Module:
    raise OSError("no network")


def test_weights_that_cannot_be_had_for_a_training_are_told_with_the_way_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in MARKET:
        write_image(tmp_path / name)
    monkeypatch.setattr(timm, "create_model", no_network)
    config = compose(["method=mmcl", "data=market1501", f"data.root={tmp_path}"])

    with pytest.raises(
        FileNotFoundError, match=r"pretrained=<file>\. Or .*: checkpoint=tiny:mmcl\."
    ):
        build(check(config))
    with pytest.raises(FileNotFoundError, match=r"pretrained=<file>\.$"):
        build(check(config, trains=False))


def test_images_that_are_not_there_are_told_before_weights_are_fetched(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (table.parent / "photos" / "2.png").write_bytes(b"cut off")
    with table.open("a") as file:
        file.write("photos/2.png,A blue coat.,8,train\nphotos/3.png,A coat.,9,val\n")
    monkeypatch.setattr(timm, "create_model", no_network)
    words = ["method=cmmt", "data=own_pairs", f"data.root={table}", "encoder=resnet50_normed"]

    with pytest.raises(ValueError, match=r"1 of 2 images cannot be read:\n.*2\.png: cut off"):
        build(check(compose(words)))
    with pytest.raises(FileNotFoundError, match="could not be downloaded"):
        build(check(compose([*words, "data.allow_missing=true"])))


def test_an_encoder_is_left_as_it_was_made(tmp_path: Path) -> None:
    for name in MARKET:
        write_image(tmp_path / name)
    checked = check(
        compose(["method=mmcl", "encoder=resnet_tiny", "data=market1501", f"data.root={tmp_path}"])
    )
    torch.manual_seed(3)
    with mock.patch.object(config_build, "_embed_one_image"):
        expected = build(checked).method
    drawn = torch.rand(3)
    torch.manual_seed(3)

    method = build(checked).method

    assert torch.equal(torch.rand(3), drawn)
    assert all(module.training for module in method.modules())
    for name, value in expected.state_dict().items():
        assert torch.equal(method.state_dict()[name], value), name
