from pathlib import Path

import pytest

from crosswalk.data.readers.camera_names import list_images, parse_name
from tests.unit.data.image_trees import MARKET, names, write_files


@pytest.mark.parametrize(
    ("name", "person_id", "camera_id"),
    [
        ("0002_c1s1_000451_03.jpg", 2, 1),
        ("0005_c2_f0046985.jpg", 5, 2),
        ("0000_c14_0030.jpg", 0, 14),
        ("0000_c1_0030.jpg", 0, 1),
        ("-1_c5s3_000001_00.jpg", -1, 5),
        ("12345_c123.jpg", 12345, 123),
        ("7_c1.png", 7, 1),
        ("0002_c1s1_000451_03.jpg.jpg", 2, 1),
        ("0002_c1s1_-1_c9.jpg", 2, 1),
    ],
)
def test_a_name_says_person_and_camera(name: str, person_id: int, camera_id: int) -> None:
    assert parse_name(name) == (person_id, camera_id)


@pytest.mark.parametrize("folder", ["1_c2", "/data/1_c2/-1_c3", "0009_c9.jpg", "."])
def test_folders_above_do_not_take_part(folder: str) -> None:
    assert parse_name(f"{folder}/0002_c6s1_000451_03.jpg") == (2, 6)


@pytest.mark.parametrize(
    "name",
    [
        "0002.jpg",
        "c1_0002.jpg",
        "0002_c.jpg",
        "0002_cs1.jpg",
        "x0002_c1.jpg",
        "-2_c1.jpg",
        "+2_c1.jpg",
        "--1_c1.jpg",
        "1_c2/portrait.jpg",
        "_c1.jpg",
        "٣_c1.jpg",
        "",
    ],
)
def test_other_names_are_refused_with_the_grammar_and_a_way_out(name: str) -> None:
    with pytest.raises(ValueError, match=r"does not follow <person id>_c<camera>.*Rename the file"):
        parse_name(name)


def test_images_are_listed_by_name_without_junk(tmp_path: Path) -> None:
    write_files(tmp_path, MARKET)

    records, junk, others = list_images(tmp_path / "bounding_box_test")

    assert names(records) == [
        "0000_c1s1_000151_01.jpg",
        "0000_c2s1_000151_01.jpg",
        "0000_c6s1_000151_01.jpg",
        "0001_c1s1_001051_03.jpg",
        "0003_c6s4_002452_10.jpg",
    ]
    assert [record.person_id for record in records] == [0, 0, 0, 1, 3]
    assert [record.camera_id for record in records] == [1, 2, 6, 1, 6]
    assert (junk, others) == (2, ())
    assert all(record.image_path.is_file() for record in records)
    assert {record.origin for record in records} == {"bounding_box_test"}


def test_two_digit_cameras_sort_by_character(tmp_path: Path) -> None:
    write_files(tmp_path, {".": ["0000_c1_1.jpg", "0000_c2_1.jpg", "0000_c14_1.jpg"]})

    records = list_images(tmp_path).records

    assert [record.camera_id for record in records] == [14, 1, 2]


def test_stray_files_and_folders_are_not_looked_at(tmp_path: Path) -> None:
    stray = ["Thumbs.db", "desktop.ini", ".DS_Store", "._0002_c1s1_1.jpg", "readme.txt"]
    write_files(tmp_path, {".": ["0002_c1s1_1.jpg", *stray], "0003_c1.jpg": ["inside.jpg"]})

    records, junk, others = list_images(tmp_path)

    assert (names(records), junk, others) == (["0002_c1s1_1.jpg"], 0, ())


def test_images_of_other_endings_are_left_out_and_named(tmp_path: Path) -> None:
    write_files(tmp_path, {".": ["0002_c1_1.jpg", "0003_c1_1.png", "0002_c1_1.JPG"]})

    listing = list_images(tmp_path)

    assert names(listing.records) == ["0002_c1_1.JPG", "0002_c1_1.jpg"]
    assert listing.others == ("0003_c1_1.png",)


def test_a_link_to_nowhere_is_an_image(tmp_path: Path) -> None:
    (tmp_path / "0002_c1_1.jpg").symlink_to(tmp_path / "nowhere")

    assert names(list_images(tmp_path).records) == ["0002_c1_1.jpg"]


def test_names_outside_the_grammar_are_listed(tmp_path: Path) -> None:
    odd = [f"portrait{number}.jpg" for number in range(7)]
    write_files(tmp_path / "1_c2", {".": [*odd, "0002_c1_1.jpg"]})

    with pytest.raises(ValueError, match=r"7 problems") as error:
        list_images(tmp_path / "1_c2")

    message = str(error.value)
    assert "portrait4.jpg" in message
    assert "and 2 more" in message
    assert "0002_c1s1_000451_03.jpg" in message
    assert "move them out" in message
    assert "0002_c1_1.jpg:" not in message


@pytest.mark.parametrize(
    ("held", "told"), [([], "holds no .jpg image."), (["a.png", "b.png"], "2 images of other")]
)
def test_a_folder_without_images_is_refused(tmp_path: Path, held: list[str], told: str) -> None:
    write_files(tmp_path, {".": held})

    with pytest.raises(FileNotFoundError, match="Unpack the images") as error:
        list_images(tmp_path)

    assert told in str(error.value)


def test_a_folder_of_nothing_but_junk_has_no_records(tmp_path: Path) -> None:
    write_files(tmp_path, {".": ["-1_c1_1.jpg", "-1_c1_2.jpg", "-1_c2_1.jpg"]})

    assert list_images(tmp_path) == ((), 3, ())


@pytest.mark.parametrize("name", [f"{10**19}_c1_1.jpg", f"7_c{10**19}_1.jpg"])
def test_ids_that_no_64_bits_hold_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()

    with pytest.raises(ValueError, match=rf"{name}: ids are numbers below 2\*\*63"):
        list_images(tmp_path)


def test_a_name_may_hold_a_line_break(tmp_path: Path) -> None:
    (tmp_path / "0002_c1_\n1.jpg").touch()
    (tmp_path / "bad\nname.jpg").touch()

    assert parse_name("0002_c1_\n1.jpg") == (2, 1)
    with pytest.raises(ValueError, match=r"bad\\nname\.jpg: the name does not follow the grammar"):
        list_images(tmp_path)
