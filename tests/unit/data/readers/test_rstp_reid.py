from pathlib import Path

import pytest

from crosswalk.data.readers.rstp_reid import read_rstp_reid
from tests.unit.data.trees import untouched, without, write_images, write_json

ENTRIES = [
    {"split": split, "id": person_id, "img_path": name, "captions": [f"{name} one", f"{name} two"]}
    for split, person_id, name in [
        ("train", 0, "0000_c14_0033.jpg"),
        ("test", 3901, "3901_c1_0002.jpg"),
        ("train", 1, "0001_c5_0022.jpg"),
        ("val", 3701, "3701_c10_0000.jpg"),
        ("train", 0, "other.jpg"),
    ]
]


@pytest.mark.parametrize("name", ["RSTPReid", "."])
@pytest.mark.parametrize("images", ["imgs", "."])
def test_both_places_of_the_images_are_read(tmp_path: Path, name: str, images: str) -> None:
    folder = tmp_path / name
    write_json(folder / "data_captions.json", ENTRIES)
    write_images(folder / images, [str(entry["img_path"]) for entry in ENTRIES])

    with untouched(tmp_path):
        splits = read_rstp_reid(tmp_path)

    assert splits.layout == ("" if name == "." else "RSTPReid/") + "data_captions.json"
    assert splits.image_folder == folder / images
    assert [record.person_id for record in splits.train] == [0, 1, 0]
    assert [record.captions for record in splits.val] == [
        ("3701_c10_0000.jpg one", "3701_c10_0000.jpg two")
    ]
    assert all(record.image_path.is_file() for _, record in splits)


def test_cameras_come_from_the_file_names(tmp_path: Path) -> None:
    write_json(tmp_path / "data_captions.json", ENTRIES)

    splits = read_rstp_reid(tmp_path)

    assert [record.camera_id for _, record in splits] == [14, 5, -1, 10, 1]


def test_the_pairs_have_the_published_order(tmp_path: Path) -> None:
    write_json(tmp_path / "data_captions.json", ENTRIES)

    splits = read_rstp_reid(tmp_path)

    assert splits.pair_order_is_published
    assert splits.published == {
        "train": {"person_ids": 3_701, "images": 18_505, "captions": 37_010},
        "val": {"person_ids": 200, "images": 1_000, "captions": 2_000},
        "test": {"person_ids": 200, "images": 1_000, "captions": 2_000},
    }


def test_a_damaged_entry_is_named_by_the_key_of_this_data_set(tmp_path: Path) -> None:
    write_json(tmp_path / "data_captions.json", [ENTRIES[0], without(ENTRIES[1], "img_path")])

    with pytest.raises(ValueError, match=r"data_captions\.json, entry 1: `img_path` should name"):
        read_rstp_reid(tmp_path)


def test_a_missing_annotation_is_told(tmp_path: Path) -> None:
    (tmp_path / "imgs").mkdir()

    with pytest.raises(FileNotFoundError, match="No annotation file of RSTPReid") as error:
        read_rstp_reid(tmp_path)

    assert "Looked for data_captions.json, there and in RSTPReid/; " in str(error.value)
    assert "data.root=<that folder" in str(error.value)
