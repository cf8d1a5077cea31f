from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crosswalk.data.images import ImageToImageData
from crosswalk.data.pairs import TextToImageData
from crosswalk.data.readers.cuhk_pedes import read_cuhk_pedes
from crosswalk.data.readers.market1501 import read_market1501
from crosswalk.lab.compare.groups import query_groups, query_records, split_fingerprint
from crosswalk.metrics.queries import QueryResults
from tests.unit.data.image_trees import MARKET, names, write_files
from tests.unit.data.trees import CUHK_ENTRIES, write_cuhk


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


def pairs(folder: Path, **options: Any) -> TextToImageData:  # noqa: ANN401
    return TextToImageData(read_cuhk_pedes, OneWord, root=folder, **options)


def market(folder: Path, **options: Any) -> ImageToImageData:  # noqa: ANN401
    return ImageToImageData(read_market1501, root=folder, **options)


def results_of(sample_index: list[int]) -> QueryResults:
    index = np.array(sample_index)
    return QueryResults(index, index, index + 1, *[0 * index] * 6)


def members_of(groups: dict[str, Any], title: str) -> dict[str, list[int]]:
    return {name: np.flatnonzero(members).tolist() for name, members in groups[title].items()}


def test_captions_are_grouped_by_their_words(tmp_path: Path) -> None:
    data = pairs(write_cuhk(tmp_path / "CUHK-PEDES"))

    # An old man. He is old. A girl in blue. She wears blue.
    groups = query_groups(results_of([0, 1, 2, 3]), "text_to_image", data=data, split="test")

    assert members_of(groups, "length of the caption") == {"3 words": [0, 1, 3], "4 words": [2]}
    assert "camera of the described image" not in groups  # CUHK-PEDES does not tell them


def test_groups_follow_the_sample_index_of_the_queries(tmp_path: Path) -> None:
    data = pairs(write_cuhk(tmp_path / "CUHK-PEDES"))

    groups = query_groups(results_of([2, 3]), "text_to_image", data=data, split="test")

    assert members_of(groups, "length of the caption") == {"3 words": [1], "4 words": [0]}


def test_images_have_no_length(tmp_path: Path) -> None:
    data = pairs(write_cuhk(tmp_path / "CUHK-PEDES"))

    groups = query_groups(results_of([0, 1]), "image_to_text", data=data, split="test")

    assert list(groups) == ["number of matches in the gallery"]


def test_query_images_are_grouped_by_camera(tmp_path: Path) -> None:
    data = market(write_files(tmp_path / "market", MARKET))

    for each in (data, SimpleNamespace(target=data)):  # a source's cameras are others
        groups = query_groups(results_of([0, 1]), "image_to_image", data=each, split="test")
        assert members_of(groups, "camera") == {"camera 2": [0], "camera 4": [1]}


def test_images_that_were_left_out_are_no_queries(tmp_path: Path) -> None:
    folder = write_cuhk(tmp_path / "CUHK-PEDES")
    (folder / "imgs" / "test_query" / "t1.jpg").unlink()
    data = pairs(folder, allow_missing=True, image_size=(8, 4))

    assert names(query_records(data, "test", "text_to_image")) == ["t2.jpg"]


def test_people_held_out_of_training_are_the_queries_of_val(tmp_path: Path) -> None:
    data = market(write_files(tmp_path / "market", MARKET), protocol="val", val_person_ids=1)

    records = query_records(data, "val", "image_to_image")

    assert records == list(data.splits.val_query)
    assert len(records) == 1


def test_a_split_has_the_same_fingerprint_when_others_differ(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "market", MARKET)
    whole, carved = market(folder), market(folder, protocol="val", val_person_ids=1)

    assert whole.fingerprint == carved.fingerprint  # that of the files, whoever is held out
    assert split_fingerprint(whole, "test") == split_fingerprint(carved, "test")
    assert split_fingerprint(whole, "val") != split_fingerprint(carved, "val")


def test_the_folder_of_the_data_is_no_part_of_a_fingerprint(tmp_path: Path) -> None:
    one, two = (market(write_files(tmp_path / name / "market", MARKET)) for name in "ab")

    assert split_fingerprint(one, "test") == split_fingerprint(two, "test")


@pytest.mark.parametrize(
    "change",
    [{"id": 12005}, {"captions": ["An old man.", "He is very old."]}, {"file_path": "t0.jpg"}],
)
def test_another_person_caption_or_image_of_the_split_is_seen(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    before = pairs(write_cuhk(tmp_path / "before" / "CUHK-PEDES"))
    folder = write_cuhk(tmp_path / "after" / "CUHK-PEDES")
    entries = [{**entry, **(change if entry["id"] == 12004 else {})} for entry in CUHK_ENTRIES]
    (folder / "reid_raw.json").write_text(json.dumps(entries))

    after = pairs(folder)

    assert split_fingerprint(before, "test") != split_fingerprint(after, "test")
    assert split_fingerprint(before, "val") == split_fingerprint(after, "val")


def test_another_gallery_image_is_seen(tmp_path: Path) -> None:
    before = market(write_files(tmp_path / "before" / "market", MARKET))
    folder = write_files(tmp_path / "after" / "market", MARKET)
    (folder / "bounding_box_test" / "0001_c1s1_001051_03.jpg").unlink()

    assert split_fingerprint(before, "test") != split_fingerprint(market(folder), "test")
