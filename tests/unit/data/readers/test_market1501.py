from itertools import pairwise
from pathlib import Path

import pytest

from crosswalk.data.readers.market1501 import FOLDERS, read_market1501
from tests.unit.data.image_trees import MARKET, names, write_files
from tests.unit.data.trees import untouched

ROOTS = [
    "market1501/Market-1501-v15.09.15",
    "Market-1501-v15.09.15",
    "market1501",
    "market",
    "Market-1501",
    ".",
]


@pytest.mark.parametrize("folder", ROOTS)
def test_every_accepted_root_is_read(tmp_path: Path, folder: str) -> None:
    write_files(tmp_path / folder, MARKET)

    with untouched(tmp_path):
        splits = read_market1501(tmp_path)

    assert splits.root == tmp_path / folder
    assert splits.layout == ("" if folder == "." else f"{folder}/") + "bounding_box_*"
    assert splits.dataset == "Market-1501"
    assert names(splits.train)[:3] == [
        "0002_c1s1_000451_03.jpg",
        "0002_c5s1_000451_01.jpg",
        "0007_c10s2_012345_01.jpg",
    ]
    assert all(record.image_path.is_file() for _, record in splits)


@pytest.mark.parametrize(("first", "second"), list(pairwise(ROOTS)))
def test_the_first_match_wins(tmp_path: Path, first: str, second: str) -> None:
    write_files(tmp_path / second, MARKET)
    write_files(tmp_path / first, MARKET)

    assert read_market1501(tmp_path).root == tmp_path / first


def test_the_documented_roots_are_all_there_are() -> None:
    assert list(FOLDERS) == ROOTS


def test_junk_and_distractors_are_counted(tmp_path: Path) -> None:
    splits = read_market1501(write_files(tmp_path, MARKET))

    assert splits.junk == {"train": 0, "query": 0, "gallery": 2}
    assert [record.person_id for record in splits.gallery] == [0, 0, 0, 1, 3]
    assert splits.notices[0] == (
        "The gallery keeps 3 distractors (person id 0); 2 junk images (person id -1) are left out."
    )


def test_other_counts_than_published_are_told(tmp_path: Path) -> None:
    splits = read_market1501(write_files(tmp_path, MARKET))

    assert splits.notices[1:] == (
        "train has 3 person ids, expected 751; 5 images, expected 12,936.",
        "query has 2 person ids, expected 750; 2 images, expected 3,368.",
        "gallery has 3 person ids, expected 751; 5 images, expected 15,913.",
    )


def test_a_folder_called_like_an_image_does_not_matter(tmp_path: Path) -> None:
    splits = read_market1501(write_files(tmp_path / "1_c2" / "-1_c3", MARKET))

    assert [record.camera_id for record in splits.train] == [1, 5, 10, 3, 6]


def test_a_set_without_query_is_told(tmp_path: Path) -> None:
    write_files(tmp_path / "market", {"bounding_box_train": MARKET["bounding_box_train"]})

    with pytest.raises(FileNotFoundError) as error:
        read_market1501(tmp_path)

    message = str(error.value)
    assert str(tmp_path / "market/query") in message
    assert str(tmp_path / "market/bounding_box_test") in message
    assert "holds bounding_box_train/." in message
    assert "data.root=" in message


def test_a_folder_with_other_names_is_told(tmp_path: Path) -> None:
    write_files(tmp_path, {"Market-1501-v15.09.15/boundingbox_train": [], "test": []})

    with pytest.raises(FileNotFoundError, match="No images of Market-1501") as error:
        read_market1501(tmp_path)

    places = "Looked for bounding_box_*, there and in market1501/Market-1501-v15.09.15/ or"
    assert places in str(error.value)
    assert "holds Market-1501-v15.09.15/, test/." in str(error.value)


def test_a_foreign_image_is_told(tmp_path: Path) -> None:
    write_files(tmp_path, MARKET)
    write_files(tmp_path, {"query": ["holiday.jpg"]})

    with pytest.raises(ValueError, match=r"query, holiday\.jpg: the name does not follow"):
        read_market1501(tmp_path)
