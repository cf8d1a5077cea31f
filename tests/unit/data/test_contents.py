"""What data hold is the same with and without what makes batches of them."""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crosswalk.data.contents import ImageContents, PairContents, TransferContents
from crosswalk.data.images import ImageToImageData
from crosswalk.data.pairs import TextToImageData
from crosswalk.data.readers.cuhk_pedes import read_cuhk_pedes
from crosswalk.data.readers.market1501 import read_market1501
from crosswalk.data.transfer import SourceTargetData
from tests.unit.data.image_trees import MARKET, write_files
from tests.unit.data.trees import write_cuhk


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", str(tmp_path / "cache"))


class OneWord:
    """Reads every caption as the same word."""

    vocabulary_size = 3

    def __init__(self, context_length: int) -> None:
        self.context_length = context_length

    def __call__(self, captions: list[str]) -> Tensor:
        return torch.ones(len(captions), self.context_length, dtype=torch.int64)


@pytest.mark.parametrize(
    ("contents", "module"),
    [
        (PairContents, TextToImageData),
        (ImageContents, ImageToImageData),
        (TransferContents, SourceTargetData),
    ],
)
def test_contents_take_arguments_of_the_data_module_with_its_defaults(
    contents: type, module: type
) -> None:
    takes, known = (inspect.signature(each).parameters for each in (contents, module))

    assert takes.keys() <= known.keys()
    assert {name: each.default for name, each in takes.items()} == {
        name: known[name].default for name in takes
    }


@pytest.mark.parametrize("noise_rate", [0.0, 0.7])
def test_pairs_are_those_of_the_data_module(tmp_path: Path, noise_rate: float) -> None:
    folder = write_cuhk(tmp_path / "CUHK-PEDES")
    settings: dict[str, Any] = {"root": folder, "noise_rate": noise_rate, "protocol": "official"}

    contents = PairContents(read_cuhk_pedes, **settings)
    data = TextToImageData(read_cuhk_pedes, OneWord, **settings)

    for split in ("train", "val", "test"):
        assert contents.evaluation_images(split) == data.evaluation_images(split)
        assert contents.evaluation_captions(split) == data.evaluation_captions(split)
    assert contents.caption_of_sample.tolist() == data.caption_of_sample.tolist()
    assert (contents.true_pairs is None) == (data.true_pairs is None) == (noise_rate == 0)
    if data.true_pairs is not None:
        assert np.array_equal(contents.true_pairs, data.true_pairs.numpy())
    assert contents.is_fingerprint(data.fingerprint)
    assert (contents.directions, contents.people) == (data.directions, data.people)


@pytest.mark.parametrize("protocol", ["official", "val"])
def test_images_are_those_of_the_data_module(tmp_path: Path, protocol: str) -> None:
    folder = write_files(tmp_path / "market", MARKET)
    settings: dict[str, Any] = {"root": folder, "protocol": protocol, "val_person_ids": 1}

    contents = ImageContents(read_market1501, **settings)
    data = ImageToImageData(read_market1501, **settings)

    for split in ("test", "val")[: 1 + (protocol == "val")]:
        assert contents.evaluation_images(split) == data.evaluation_images(split) != []
        assert contents.evaluation_queries(split) == data.evaluation_queries(split) != []
    assert contents.is_fingerprint(data.fingerprint)
    assert contents.directions == data.directions


def test_transfer_shows_its_target_and_knows_both_fingerprints(tmp_path: Path) -> None:
    source = write_files(tmp_path / "source", {**MARKET, "bounding_box_train": ["0004_c1_0.jpg"]})
    target = write_files(tmp_path / "target", MARKET)

    def made(sets: type, module: type, **options: object) -> Any:  # noqa: ANN401
        parts = [partial(sets, read_market1501, root=each) for each in (source, target)]
        return module(*parts, protocol="val", val_person_ids=1, **options)

    contents = made(ImageContents, TransferContents)
    data = made(ImageToImageData, SourceTargetData)

    for split in ("test", "val"):
        assert contents.evaluation_images(split) == data.evaluation_images(split) != []
        assert contents.evaluation_queries(split) == data.evaluation_queries(split) != []
    assert contents.is_fingerprint(data.fingerprint)
    assert not contents.is_fingerprint(f"{data.target.fingerprint}-{data.source.fingerprint}")
