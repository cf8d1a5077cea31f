import json
from pathlib import Path

import pytest

from crosswalk.data.readers.annotations import Layout, contents, expected_counts, find_layout
from crosswalk.data.readers.image_folders import (
    MARKET_FORM,
    read_market_folders,
    with_image_notices,
)
from crosswalk.data.readers.records import IMAGE_SPLITS, ImageSplits, Record
from tests.unit.data.image_trees import MARKET, write_files

MARKET_SPLITS = ("train", "query", "gallery")

FORMS = {"lists": ("list_a.txt", "list_b.txt"), "boxes": ("boxes",)}


def read(folder: Path) -> ImageSplits:
    layout = Layout(folder, (), MARKET_FORM, MARKET_FORM)
    return read_market_folders(layout, "Market-1501", {"query": {"images": 2}}, "Get it.")


def test_the_first_folder_and_form_win(tmp_path: Path) -> None:
    write_files(tmp_path, {"a/boxes": [], "b/boxes": [], "b": ["list_b.txt"], ".": ["list_a.txt"]})

    def name(*folders: str) -> str:
        return find_layout(tmp_path, "X", folders, FORMS, "", what="images").name

    assert name("no", "a", "b", ".") == "a/boxes"
    assert name("b", "a") == "b/lists"
    assert name(".", "a") == "lists"
    assert find_layout(tmp_path, "X", ["b"], FORMS, "", what="images").files == (
        tmp_path / "b/list_b.txt",
    )


def test_nothing_found_says_what_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    write_files(tmp_path, {"images": ["1.jpg"], ".": ["readme.txt"]})

    with pytest.raises(FileNotFoundError) as error:
        find_layout(tmp_path, "X", ["X", "."], FORMS, "Ask for it.", what="images")

    assert str(error.value) == (
        f"No images of X below data.root={tmp_path}. Looked for lists, boxes, there and in X/; "
        "the folder holds images/, readme.txt. Ask for it."
    )


def test_a_root_that_is_no_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data\.root=.*nowhere is not a folder.*Ask"):
        find_layout(tmp_path / "nowhere", "X", ["."], FORMS, "Ask for it.", what="images")


def test_long_contents_are_cut() -> None:
    assert contents(Path(__file__).parent).endswith(" more")


def test_market_folders_become_three_splits(tmp_path: Path) -> None:
    splits = read(write_files(tmp_path, MARKET))

    ids = {name: [record.person_id for record in splits.split(name)] for name in MARKET_SPLITS}
    assert ids == {"train": [2, 2, 7, 7, 10], "query": [1, 3], "gallery": [0, 0, 0, 1, 3]}
    assert [record.camera_id for record in splits.train] == [1, 5, 10, 3, 6]
    assert splits.junk == {"train": 0, "query": 0, "gallery": 2}
    assert splits.published == {"query": {"images": 2}}
    assert (splits.val_query, splits.val_gallery, splits.notices) == ((), (), ())


@pytest.mark.parametrize("missing", [["query"], ["bounding_box_test"], ["bounding_box_train"]])
def test_a_missing_folder_is_named(tmp_path: Path, missing: list[str]) -> None:
    write_files(tmp_path, {name: files for name, files in MARKET.items() if name not in missing})

    with pytest.raises(FileNotFoundError, match=r"is missing; .* holds .*Get it") as error:
        read(tmp_path)

    assert str(error.value).startswith(f"{tmp_path / missing[0]}/ of Market-1501 is missing")


def test_left_out_images_are_told(tmp_path: Path) -> None:
    write_files(tmp_path, MARKET)
    write_files(tmp_path, {"query": ["0003_c4_1.png", "0003_c1_1.png"]})

    notices = read(tmp_path).notices

    assert notices == (
        "query holds 2 images not ending in .jpg, e.g. 0003_c1_1.png, which are left out.",
    )


def test_a_generated_set_brings_its_name_and_counts(tmp_path: Path) -> None:
    write_files(tmp_path, MARKET)
    counts = {"train": {"person_ids": 3, "images": 5}, "gallery": {"images": 9, "captions": 0}}
    content = {"dataset": "synthetic images", "seed": 1, "splits": counts}
    (tmp_path / "expected_counts.json").write_text(json.dumps(content))

    splits = read(tmp_path)

    assert splits.dataset == "synthetic images"
    assert splits.published == {
        "train": {"person_ids": 3, "images": 5},
        "gallery": {"images": 9},
    }


@pytest.mark.parametrize("content", ["[]", "{}", '{"splits": {"test": {}}}', '{"splits": []}'])
def test_other_expected_counts_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "expected_counts.json").write_text(content)

    with pytest.raises(ValueError, match=r"expected_counts\.json should hold an object `splits`"):
        expected_counts(tmp_path, None, IMAGE_SPLITS)


def made(**person_ids: list[int]) -> ImageSplits:
    records = {
        name: tuple(Record(Path(f"{name}{n}.jpg"), number) for n, number in enumerate(numbers))
        for name, numbers in person_ids.items()
    }
    parts = {name: records.pop(name, ()) for name in MARKET_SPLITS}
    published = {"train": {"images": 1}}
    return ImageSplits("own", Path(), ".", **parts, **records, published=published)


def test_notices_tell_odd_counts_and_lonely_queries() -> None:
    splits = made(train=[1, 2], query=[3, 4, 4, 5], gallery=[4, 9], val_query=[7], val_gallery=[8])

    assert with_image_notices(splits).notices == (
        "train has 2 images, expected 1.",
        "2 of 3 query identities have no image in the gallery.",
        "1 of 1 val_query identities have no image in the val_gallery.",
    )


def test_a_sound_set_has_no_notices() -> None:
    assert with_image_notices(made(train=[1], query=[3], gallery=[3, 3, 0])).notices == ()
