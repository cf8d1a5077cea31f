from itertools import pairwise
from pathlib import Path

import pytest

from crosswalk.data.readers.dukemtmc import FOLDERS, read_dukemtmc
from tests.unit.data.image_trees import DUKE, MARKET, write_files
from tests.unit.data.trees import untouched, write_json

ROOTS = [
    "dukemtmc-reid/DukeMTMC-reID",
    "dukemtmcreid/DukeMTMC-reID",
    "DukeMTMC-reID",
    "duke",
    ".",
]


@pytest.mark.parametrize("folder", ROOTS)
def test_every_accepted_root_is_read(tmp_path: Path, folder: str) -> None:
    write_files(tmp_path / folder, DUKE)

    with untouched(tmp_path):
        splits = read_dukemtmc(tmp_path)

    assert splits.root == tmp_path / folder
    assert splits.layout == ("" if folder == "." else f"{folder}/") + "bounding_box_*"
    assert [(r.person_id, r.camera_id) for r in splits.train] == [(1, 1), (1, 2), (23, 6)]
    assert [(r.person_id, r.camera_id) for r in splits.query] == [(5, 2)]
    assert [(r.person_id, r.camera_id) for r in splits.gallery] == [(2, 1), (5, 5)]
    assert all(record.image_path.is_file() for _, record in splits)


@pytest.mark.parametrize(("first", "second"), list(pairwise(ROOTS)))
def test_the_first_match_wins(tmp_path: Path, first: str, second: str) -> None:
    write_files(tmp_path / second, DUKE)
    write_files(tmp_path / first, DUKE)

    assert read_dukemtmc(tmp_path).root == tmp_path / first


def test_the_documented_roots_are_all_there_are() -> None:
    assert list(FOLDERS) == ROOTS


def test_the_withdrawal_is_told_first_and_counts_after(tmp_path: Path) -> None:
    splits = read_dukemtmc(write_files(tmp_path, DUKE))

    assert splits.notices[0].startswith("DukeMTMC-reID was withdrawn by Duke University in 2019")
    assert splits.notices[1:] == (
        "train has 2 person ids, expected 702; 3 images, expected 16,522.",
        "query has 1 person ids, expected 702; 1 images, expected 2,228.",
        "gallery has 2 person ids, expected 1,110; 2 images, expected 17,661.",
    )


def test_a_generated_set_was_never_withdrawn(tmp_path: Path) -> None:
    write_files(tmp_path, DUKE)
    write_json(tmp_path / "expected_counts.json", {"splits": {"train": {"images": 3}}})

    assert read_dukemtmc(tmp_path).notices == ()


def test_who_has_no_copy_is_told_of_the_withdrawal(tmp_path: Path) -> None:
    write_files(tmp_path / "market", MARKET)

    with pytest.raises(FileNotFoundError, match=r"No images of DukeMTMC-reID.*withdrawn"):
        read_dukemtmc(tmp_path)


def test_a_missing_gallery_is_told(tmp_path: Path) -> None:
    write_files(tmp_path / "duke", {**DUKE, "bounding_box_test": []})
    (tmp_path / "duke/bounding_box_test").rmdir()

    with pytest.raises(
        FileNotFoundError, match=r"duke/bounding_box_test/ of DukeMTMC-reID is miss"
    ):
        read_dukemtmc(tmp_path)
