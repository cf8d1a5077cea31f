from pathlib import Path

import pytest

from crosswalk.data.readers.occluded_duke import FOLDERS, read_occluded_duke
from tests.unit.data.image_trees import DUKE, MARKET, write_files
from tests.unit.data.trees import untouched, write_json

ROOTS = ["Occluded_Duke", "Occluded-DukeMTMC", "occluded_duke", "."]


@pytest.mark.parametrize("folder", ROOTS)
def test_every_accepted_root_is_read(tmp_path: Path, folder: str) -> None:
    write_files(tmp_path / folder, DUKE)

    with untouched(tmp_path):
        splits = read_occluded_duke(tmp_path)

    assert list(FOLDERS) == ROOTS
    assert splits.dataset == "Occluded-Duke"
    assert splits.layout == ("" if folder == "." else f"{folder}/") + "bounding_box_*"
    assert [(r.person_id, r.camera_id) for r in splits.train] == [(1, 1), (1, 2), (23, 6)]
    assert [(r.person_id, r.camera_id) for r in splits.query] == [(5, 2)]
    assert [(r.person_id, r.camera_id) for r in splits.gallery] == [(2, 1), (5, 5)]


def test_the_withdrawal_is_told_first_and_counts_after(tmp_path: Path) -> None:
    splits = read_occluded_duke(write_files(tmp_path, DUKE))

    assert splits.notices[0].startswith(
        "Occluded-Duke consists of images of DukeMTMC-reID. DukeMTMC-reID was withdrawn"
    )
    assert splits.notices[1:] == (
        "train has 2 person ids, expected 702; 3 images, expected 15,618.",
        "query has 1 images, expected 2,210.",
        "gallery has 2 images, expected 17,661.",
    )


def test_a_generated_set_was_never_withdrawn(tmp_path: Path) -> None:
    write_files(tmp_path, DUKE)
    write_json(tmp_path / "expected_counts.json", {"splits": {"train": {"images": 3}}})

    assert read_occluded_duke(tmp_path).notices == ()


def test_who_has_no_copy_is_told_of_the_withdrawal(tmp_path: Path) -> None:
    write_files(tmp_path / "market", MARKET)

    with pytest.raises(FileNotFoundError, match=r"No images of Occluded-Duke.*withdrawn"):
        read_occluded_duke(tmp_path)
