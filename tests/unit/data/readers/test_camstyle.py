from pathlib import Path

import pytest

from crosswalk.data.readers.camstyle import (
    CAMSTYLE_FOLDER,
    CamStyleFiles,
    camstyle_files,
    find_camstyle,
)
from crosswalk.data.readers.market1501 import read_market1501
from crosswalk.data.readers.msmt17 import read_msmt17
from crosswalk.data.readers.records import ImageSplits, Record
from tests.unit.data.image_trees import MARKET, MSMT17_MARKET, write_files

TRAIN = {"bounding_box_train": ["0002_c1s1_000451_03.jpg", "0007_c3s2_012345_01.jpg"]}

FAKES = [
    "0002_c1s1_000451_03_fake_1to2.jpg",
    "0002_c1s1_000451_03_fake_1to3.jpg",
    "0007_c3s2_012345_01_fake_3to1.jpg",
    "0007_c3s2_012345_01_fake_3to2.jpg",
]


def market(root: Path, fakes: list[str] | None = None) -> ImageSplits:
    write_files(root, {**MARKET, **TRAIN})
    if fakes is not None:
        write_files(root, {CAMSTYLE_FOLDER: fakes})
    return read_market1501(root)


def test_without_the_folder_there_are_none(tmp_path: Path) -> None:
    assert find_camstyle(market(tmp_path), num_cameras=3) is None


def test_each_image_has_one_file_per_other_camera(tmp_path: Path) -> None:
    splits = market(tmp_path, [*FAKES, "Thumbs.db"])

    files = find_camstyle(splits, num_cameras=3)

    assert files is not None
    found = [[files.path(record, camera) for camera in (1, 2, 3)] for record in splits.train]
    fakes, real = tmp_path / "bounding_box_train_camstyle", tmp_path / "bounding_box_train"
    assert found == [
        [real / TRAIN["bounding_box_train"][0], fakes / FAKES[0], fakes / FAKES[1]],
        [fakes / FAKES[2], fakes / FAKES[3], real / TRAIN["bounding_box_train"][1]],
    ]
    assert all(path.is_file() for row in found for path in row)


def test_msmt17_names_the_new_camera_only(tmp_path: Path) -> None:
    train = {"bounding_box_train": ["0000_c14_0030.jpg"]}
    others = [number for number in range(1, 16) if number != 14]
    fakes = {CAMSTYLE_FOLDER: [f"0000_c14_0030_fake_{number}.jpg" for number in others]}
    write_files(tmp_path / "msmt17", {**MSMT17_MARKET, **train, **fakes})
    splits = read_msmt17(tmp_path)

    files = find_camstyle(splits, num_cameras=15)

    assert files is not None
    assert files.path(splits.train[0], 9).name == "0000_c14_0030_fake_9.jpg"
    assert files.path(splits.train[0], 9).is_file()


def test_the_naming_follows_the_data_set_and_not_its_path(tmp_path: Path) -> None:
    splits = market(tmp_path / "msmt17" / "MSMT17", FAKES)

    files = find_camstyle(splits, num_cameras=3)

    assert files is not None
    assert files.naming == "from_to"
    elsewhere = ImageSplits("MSMT17", Path("market"), ".", (), (), ())
    assert camstyle_files(elsewhere, 15).naming == "to"


def test_an_incomplete_folder_is_told_with_what_it_lacks(tmp_path: Path) -> None:
    splits = market(tmp_path, FAKES[1:3])

    with pytest.raises(FileNotFoundError) as error:
        find_camstyle(splits, num_cameras=3)

    assert str(error.value).startswith(
        f"{tmp_path / CAMSTYLE_FOLDER} lacks 2 of 4 camera-style images: {FAKES[0]}, {FAKES[3]}. "
    )
    assert "data.camstyle=off" in str(error.value)


def test_of_many_missing_files_three_are_named(tmp_path: Path) -> None:
    splits = market(tmp_path, [])

    with pytest.raises(FileNotFoundError, match=r"lacks 10 of 10 .*fake_1to4\.jpg and 7 more\."):
        find_camstyle(splits, num_cameras=6)


@pytest.mark.parametrize(("own", "new"), [(0, 1), (7, 1), (-1, 2), (1, 0), (1, 7), (1, -1)])
def test_cameras_count_from_1_to_their_number(own: int, new: int) -> None:
    files = CamStyleFiles(Path("fakes"), 6, "from_to")

    with pytest.raises(ValueError, match=r"cameras are 1 to 6\. Pass data\.camstyle=off"):
        files.path(Record(Path("a.jpg"), 3, camera_id=own), new)
