from itertools import pairwise
from pathlib import Path

import pytest

from crosswalk.data.readers.msmt17 import FOLDERS, read_msmt17, read_msmt17_whole
from crosswalk.data.readers.records import ImageSplits
from tests.unit.data.image_trees import (
    MSMT17_LISTS,
    MSMT17_MARKET,
    names,
    write_files,
    write_lists,
)
from tests.unit.data.trees import untouched, write_json

ROOTS = [
    "msmt17/MSMT17_V1",
    "msmt17/MSMT17_V2",
    "MSMT17_V1",
    "MSMT17_V2",
    "MSMT17",
    "msmt17",
    ".",
]
V2 = ("mask_train_v2", "mask_test_v2")


def labels(splits: ImageSplits, name: str) -> list[tuple[int, int]]:
    return [(record.person_id, record.camera_id) for record in splits.split(name)]


@pytest.mark.parametrize("images", [("train", "test"), V2])
@pytest.mark.parametrize("folder", ROOTS)
def test_lists_are_read_at_every_accepted_root(
    tmp_path: Path, folder: str, images: tuple[str, str]
) -> None:
    write_lists(tmp_path / folder, folders=images)

    with untouched(tmp_path):
        splits = read_msmt17(tmp_path)

    assert splits.root == tmp_path / folder
    assert splits.layout == ("" if folder == "." else f"{folder}/") + "list_*.txt"
    assert labels(splits, "train") == [(0, 1), (0, 1), (0, 5), (1, 14)]
    assert labels(splits, "query") == [(0, 2)]
    assert labels(splits, "gallery") == [(0, 15), (1, 11)]
    assert all(record.image_path.is_file() for _, record in splits)
    assert [path.name for path in splits.annotation_files] == [
        f"list_{name}.txt" for name in ("train", "val", "query", "gallery")
    ]


@pytest.mark.parametrize("folder", ROOTS)
def test_a_market_style_conversion_is_read_at_every_root(tmp_path: Path, folder: str) -> None:
    write_files(tmp_path / folder, MSMT17_MARKET)

    with untouched(tmp_path):
        splits = read_msmt17(tmp_path)

    assert splits.root == tmp_path / folder
    assert splits.layout == ("" if folder == "." else f"{folder}/") + "bounding_box_*"
    assert names(splits.train) == ["0000_c14_0030.jpg", "0000_c1_0030.jpg", "0001_c9_0002.jpg"]
    assert labels(splits, "train") == [(0, 14), (0, 1), (1, 9)]
    assert labels(splits, "query") == [(0, 15)]
    assert labels(splits, "gallery") == [(0, 1), (1, 2)]


@pytest.mark.parametrize(("first", "second"), list(pairwise(ROOTS)))
def test_the_first_match_wins(tmp_path: Path, first: str, second: str) -> None:
    write_lists(tmp_path / second)
    write_files(tmp_path / first, MSMT17_MARKET)

    assert read_msmt17(tmp_path).root == tmp_path / first


def test_lists_win_over_a_conversion_in_the_same_folder(tmp_path: Path) -> None:
    write_files(write_lists(tmp_path), MSMT17_MARKET)

    assert read_msmt17(tmp_path).layout == "list_*.txt"


def test_the_documented_roots_are_all_there_are() -> None:
    assert list(FOLDERS) == ROOTS


def test_train_images_are_sorted_with_those_of_val_among_them(tmp_path: Path) -> None:
    write_lists(tmp_path)

    both = read_msmt17(tmp_path, train_split="trainval")
    alone = read_msmt17(tmp_path, train_split="train")

    sorted_names = [
        "0000_000_01_0303morning_0008_0.jpg",
        "0000_001_01_0303morning_0015_0.jpg",
        "0000_004_05_0303noon_0020_1.jpg",
        "0001_000_14_0303morning_0008_0.jpg",
    ]
    assert names(both.train) == sorted_names
    assert names(alone.train) == [sorted_names[n] for n in (0, 1, 3)]
    assert both.train[2].origin == "list_val.txt, line 1"
    assert both.train[0].origin == "list_train.txt, line 3"
    assert (alone.query, alone.gallery) == (both.query, both.gallery)


def test_published_counts_follow_the_train_split(tmp_path: Path) -> None:
    write_lists(tmp_path)
    (tmp_path / "list_val.txt").unlink()

    splits = read_msmt17(tmp_path, train_split="train")

    assert splits.notices == (
        "train has 2 person ids, expected 1,041; 3 images, expected 30,248.",
        "query has 1 person ids, expected 3,060; 1 images, expected 11,659.",
        "gallery has 2 person ids, expected 3,060; 2 images, expected 82,161.",
    )


@pytest.mark.parametrize("write", [write_lists, lambda root: write_files(root, MSMT17_MARKET)])
def test_with_val_32_621_images_are_expected(tmp_path: Path, write: object) -> None:
    write(tmp_path)  # type: ignore[operator]

    published = read_msmt17(tmp_path).published

    assert published is not None
    assert published["train"] == {"person_ids": 1_041, "images": 32_621}


@pytest.mark.parametrize("train_split", ["train", "trainval"])
def test_counts_of_a_generated_set_include_val(tmp_path: Path, train_split: str) -> None:
    counts = {"train": {"person_ids": 2, "images": 4}, "query": {"images": 1}}
    write_json(write_lists(tmp_path) / "expected_counts.json", {"splits": counts})

    splits = read_msmt17(tmp_path, train_split=train_split)  # type: ignore[arg-type]

    assert splits.notices == ()
    assert ("train" in (splits.published or {})) == (train_split == "trainval")


def test_a_conversion_cannot_leave_val_out(tmp_path: Path) -> None:
    write_files(tmp_path / "msmt17", MSMT17_MARKET)

    with pytest.raises(ValueError, match=r"train_split=train needs list_train\.txt.*=trainval"):
        read_msmt17(tmp_path, train_split="train")


def test_an_unknown_train_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train_split='val' should be one of train, trainval"):
        read_msmt17(tmp_path, train_split="val")  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", ["list_query.txt", "list_val.txt", "list_gallery.txt"])
def test_a_missing_list_is_told(tmp_path: Path, missing: str) -> None:
    (write_lists(tmp_path / "MSMT17") / missing).unlink()

    with pytest.raises(FileNotFoundError, match=r"is missing; .* holds list_.*data\.root") as error:
        read_msmt17(tmp_path)

    assert str(error.value).startswith(str(tmp_path / "MSMT17" / missing))


def test_missing_image_folders_are_told(tmp_path: Path) -> None:
    write_lists(tmp_path, folders=("train", "mask"))

    with pytest.raises(FileNotFoundError, match=r"neither test/ nor mask_test_v2/.*holds list_"):
        read_msmt17(tmp_path)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("0000/0000_009_01_x.jpg", "line 4: should be <image> <person id>, but is '0000/0000"),
        ("0000/0000_009_01_x.jpg -1", "line 4: should be <image> <person id>"),
        ("7", "line 4: should be <image> <person id>, but is '7'"),
        ("0000/0000_c1_0030.jpg 0", "line 4: the third field of '0000_c1_0030.jpg' should be"),
        (f"0000/0000_009_01_x.jpg {10**19}", "line 4: person id 10000000000000000000; ids are"),
        (f"0000/0000_009_{10**19}_x.jpg 0", "line 4: the third field of"),
        ("../0000_009_01_x.jpg 0", "line 4: '../0000_009_01_x.jpg' should lie inside train/"),
        ("/0000_009_01_x.jpg 0", "line 4: '/0000_009_01_x.jpg' should lie inside train/"),
        (MSMT17_LISTS["train"][1], "line 4: the same image as list_train.txt, line 2"),
    ],
)
def test_a_wrong_line_is_told(tmp_path: Path, line: str, told: str) -> None:
    write_lists(tmp_path, {**MSMT17_LISTS, "train": [*MSMT17_LISTS["train"], line]})

    with pytest.raises(ValueError, match="Fetch the list again") as error:
        read_msmt17(tmp_path)

    assert f"{tmp_path / 'list_train.txt'}, {told}" in str(error.value)


def test_an_image_of_train_and_val_is_told(tmp_path: Path) -> None:
    write_lists(tmp_path, {**MSMT17_LISTS, "val": [MSMT17_LISTS["train"][0]]})

    with pytest.raises(ValueError, match=r"list_val\.txt, line 1: the same image as list_train"):
        read_msmt17(tmp_path)


@pytest.mark.parametrize(
    ("content", "told"), [(b"\n", "is empty"), (b"0000/\xff.jpg 0", "is not UTF-8 text")]
)
def test_a_damaged_list_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    (write_lists(tmp_path) / "list_query.txt").write_bytes(content)

    with pytest.raises(ValueError, match=rf"list_query\.txt {told}.*etch"):
        read_msmt17(tmp_path)


def test_tabs_blank_lines_and_line_ends_of_windows_are_read(tmp_path: Path) -> None:
    path = write_lists(tmp_path) / "list_query.txt"
    path.write_bytes(b"\xef\xbb\xbf0000/0000_000_02_a.jpg\t0\r\n\r\n0000/0000_001_03_a.jpg   0\r\n")

    splits = read_msmt17(tmp_path)

    assert labels(splits, "query") == [(0, 2), (0, 3)]
    assert splits.query[1].origin == "list_query.txt, line 3"


def test_the_whole_set_of_the_lists_is_train_then_gallery_then_query(tmp_path: Path) -> None:
    write_lists(tmp_path / "MSMT17_V1")
    (tmp_path / "MSMT17_V1/list_val.txt").unlink()

    splits = read_msmt17_whole(tmp_path)

    # two training people, 0 and 1, so test people are 2 and 3
    assert labels(splits, "train") == [(0, 1), (0, 1), (1, 14), (2, 15), (3, 11), (2, 2)]
    assert [record.image_path.parent.parent.name for record in splits.train] == [
        *3 * ["train"],
        *3 * ["test"],
    ]
    assert (splits.query, splits.gallery, splits.junk) == ((), (), {"train": 0})
    assert splits.notices == (
        "All of MSMT17 is training data here, its 3 test images included (their person ids + 2): "
        "results on MSMT17 itself would mean nothing.",
        "train has 4 person ids, expected 4,101; 6 images, expected 124,068.",
    )


def test_the_whole_set_of_a_conversion_is_in_the_same_order(tmp_path: Path) -> None:
    write_files(tmp_path / "msmt17", MSMT17_MARKET)
    write_files(tmp_path / "msmt17", {"bounding_box_test": ["-1_c1_0001.jpg"]})

    splits = read_msmt17_whole(tmp_path)

    assert labels(splits, "train") == [(0, 14), (0, 1), (1, 9), (2, 1), (3, 2), (2, 15)]
    assert splits.junk == {"train": 1}
    assert splits.published == {"train": {"person_ids": 4_101, "images": 126_441}}


def test_ids_with_gaps_do_not_meet_in_the_whole_set(tmp_path: Path) -> None:
    tree = {**MSMT17_MARKET, "bounding_box_train": ["0000_c1_1.jpg", "0003_c1_1.jpg"]}

    splits = read_msmt17_whole(write_files(tmp_path, tree))

    assert [record.person_id for record in splits.train] == [0, 3, 4, 5, 4]


def test_a_generated_whole_set_expects_nothing(tmp_path: Path) -> None:
    counts = {"splits": {"train": {"images": 4}, "query": {"images": 1}}}
    write_json(write_lists(tmp_path) / "expected_counts.json", counts)

    splits = read_msmt17_whole(tmp_path)

    assert splits.published is None
    assert len(splits.notices) == 1
