from pathlib import Path

import pytest

from crosswalk.data.readers.own_images import read_own_images
from crosswalk.data.readers.records import ImageSplits
from crosswalk.data.readers.tables import number_people
from tests.unit.data.image_trees import names, write_files
from tests.unit.data.trees import untouched

HEADER = "path,person_id,camera_id,split"

NAMED = {
    "train": ["0007_c12_1.jpg", "0002_c1.png", "-1_c1_1.jpg"],
    "query": ["0003_c4s6.jpg"],
    "gallery": ["0000_c1_1.jpeg", "0003_c6_1.JPG", "Thumbs.db"],
}

BY_PERSON = {
    "train/ben": ["c3_17.png", "b.jpg"],
    "train/anna": ["lobby_c12.png"],
    "query/carl": ["c1.jpg"],
    "gallery/carl": ["x_c2_c9.jpg", "notes.txt"],
    "gallery/-1": ["c1_1.jpg", "c1_2.jpg"],
    "gallery/anna": ["abc3_1.jpg"],
}


def labels(splits: ImageSplits, name: str) -> list[tuple[str, int, int]]:
    records = splits.split(name)
    return [(r.image_path.name, r.person_id, r.camera_id) for r in records]


def write_csv(root: Path, *rows: str, header: str = HEADER, name: str = "images.csv") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    path = root / name
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_folders_with_names_like_market_1501_are_read(tmp_path: Path) -> None:
    write_files(tmp_path, NAMED)

    with untouched(tmp_path):
        splits = read_own_images(tmp_path)

    assert labels(splits, "train") == [("0002_c1.png", 2, 1), ("0007_c12_1.jpg", 7, 12)]
    assert labels(splits, "query") == [("0003_c4s6.jpg", 3, 4)]
    assert labels(splits, "gallery") == [("0000_c1_1.jpeg", 0, 1), ("0003_c6_1.JPG", 3, 6)]
    assert splits.junk == {"train": 1, "query": 0, "gallery": 0}
    assert (splits.dataset, splits.root, splits.layout) == (
        "own images",
        tmp_path,
        "train/, query/, gallery/",
    )
    assert (splits.published, splits.notices, splits.annotation_files) == (None, (), ())


def test_a_folder_per_person_is_read(tmp_path: Path) -> None:
    write_files(tmp_path, BY_PERSON)

    with untouched(tmp_path):
        splits = read_own_images(tmp_path)

    # anna 0, ben 1, carl 2: one numbering for all splits
    assert labels(splits, "train") == [
        ("lobby_c12.png", 0, 12),
        ("b.jpg", 1, -1),
        ("c3_17.png", 1, 3),
    ]
    assert labels(splits, "query") == [("c1.jpg", 2, 1)]
    assert labels(splits, "gallery") == [("abc3_1.jpg", 0, -1), ("x_c2_c9.jpg", 2, 2)]
    assert splits.junk == {"train": 0, "query": 0, "gallery": 2}
    assert all(record.image_path.is_file() for _, record in splits)
    assert splits.notices == (
        "3 person ids were numbered in alphabetical order.",
        "The camera of 2 images is unknown: they are never ignored for being by the query's "
        "camera.",
        "train and gallery share 1 person id; results mean little if these are the same people.",
    )


def test_splits_may_be_written_in_different_ways(tmp_path: Path) -> None:
    write_files(tmp_path, {"query": ["0003_c1.jpg"], "gallery/0003": ["c2.jpg"]})

    splits = read_own_images(tmp_path)

    assert [record.person_id for _, record in splits] == [3, 3]


def test_a_validation_set_of_its_own_is_read(tmp_path: Path) -> None:
    write_files(tmp_path, NAMED)
    write_files(tmp_path, {"val_query": ["0009_c1.jpg"], "val_gallery": ["0009_c2.jpg"]})

    splits = read_own_images(tmp_path)

    assert labels(splits, "val_query") == [("0009_c1.jpg", 9, 1)]
    assert labels(splits, "val_gallery") == [("0009_c2.jpg", 9, 2)]


@pytest.mark.parametrize(
    ("kept", "told"),
    [(["train"], "query and gallery"), (["query", "gallery"], "train")],
)
def test_a_part_is_enough_and_the_rest_is_told(tmp_path: Path, kept: list[str], told: str) -> None:
    splits = read_own_images(write_files(tmp_path, {name: NAMED[name] for name in kept}))

    assert [name for name in NAMED if splits.split(name)] == kept
    assert splits.notices == (f"There are no images of {told}.",)


def test_queries_beside_market1501s_folders_are_taken_for_it(tmp_path: Path) -> None:
    files = {"bounding_box_train": ["0001_c1.jpg"], "query": ["0001_c1.jpg"]}
    for folder, images in files.items():
        (tmp_path / folder).mkdir()
        for name in images:
            (tmp_path / folder / name).touch()

    with pytest.raises(ValueError, match=r"none of gallery\. That looks like Market-1501"):
        read_own_images(tmp_path)


@pytest.mark.parametrize(
    ("there", "absent"),
    [("query", "gallery"), ("gallery", "query"), ("val_query", "val_gallery")],
)
def test_queries_need_a_gallery(tmp_path: Path, there: str, absent: str) -> None:
    write_files(tmp_path, {"train": NAMED["train"], there: ["0001_c1.jpg"]})

    with pytest.raises(ValueError, match=rf"has images of {there}, but none of {absent}\."):
        read_own_images(tmp_path)


def test_a_name_outside_the_grammar_is_told_with_both_ways(tmp_path: Path) -> None:
    write_files(tmp_path, {**NAMED, "query": ["anna.jpg"]})

    with pytest.raises(ValueError, match=r"query, anna\.jpg: the name .*one folder per person"):
        read_own_images(tmp_path)


def test_training_images_in_a_csv_may_have_no_labels(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path,
        "t2.jpg,,4,train",
        "q.jpg,7,1,query",
        "junk.jpg,-1,1,train",
        "t1.jpg,,,train",
        "g.jpg,7,2,gallery",
        "h.jpg,12,2,gallery",
    )

    splits = read_own_images(path, check_files=False)

    assert not splits.train_is_labelled
    assert labels(splits, "train") == [("t1.jpg", 13, -1), ("t2.jpg", 14, 4)]
    assert [record.person_id for record in splits.query + splits.gallery] == [7, 7, 12]
    assert splits.junk["train"] == 1
    assert splits.notices == (
        "The camera of 1 image is unknown: it is never ignored for being by the query's camera.",
        "None of the 2 training images has a person id: each counts as a person of its own. "
        "Train on them with a method that needs no identities.",
    )


def test_every_row_without_a_label_beside_labelled_ones_is_told(tmp_path: Path) -> None:
    rows = ["a.jpg,,1,train", "b.jpg,ben,1,train", "c.jpg,,1,train", "d.jpg,carl,1,train"]

    with pytest.raises(ValueError, match=r"2 problems:\s+line 2: .*line 3; .*\s+line 4: .*line 3;"):
        read_own_images(write_csv(tmp_path, *rows), check_files=False)


def test_training_images_in_a_folder_may_have_no_labels(tmp_path: Path) -> None:
    write_files(tmp_path, {**NAMED, "train": ["lobby_c12.png", "b.jpg", "2024-05-01.jpg"]})

    with untouched(tmp_path):
        splits = read_own_images(tmp_path)

    assert not splits.train_is_labelled
    assert labels(splits, "train") == [
        ("2024-05-01.jpg", 4, -1),
        ("b.jpg", 5, -1),
        ("lobby_c12.png", 6, 12),
    ]
    assert labels(splits, "query") == [("0003_c4s6.jpg", 3, 4)]
    assert splits.notices[-1].startswith("None of the 3 training images has a person id")


@pytest.mark.parametrize(
    "tree", [NAMED, BY_PERSON, {"query": ["1_c1.jpg"], "gallery": ["1_c2.jpg"]}]
)
def test_other_sets_are_labelled(tmp_path: Path, tree: dict[str, list[str]]) -> None:
    assert read_own_images(write_files(tmp_path, tree)).train_is_labelled


def test_one_labelled_image_among_others_is_refused(tmp_path: Path) -> None:
    write_files(tmp_path, {**NAMED, "train": ["b.jpg", "0002_c1.jpg"]})

    with pytest.raises(ValueError, match=r"train, b\.jpg: the name .*[\s\S]*without labels\."):
        read_own_images(tmp_path)


def test_images_beside_folders_of_people_are_refused(tmp_path: Path) -> None:
    write_files(tmp_path, {"train/anna": ["c1.jpg"], "train": ["0002_c1.jpg"]})

    with pytest.raises(ValueError, match=r"holds images, e\.g\. 0002_c1\.jpg, beside folders"):
        read_own_images(tmp_path)


def test_a_folder_inside_that_of_a_person_is_refused(tmp_path: Path) -> None:
    write_files(tmp_path, {"train/anna": ["c1.jpg"], "train/anna/monday": ["c2.jpg"]})

    with pytest.raises(ValueError, match=r"anna/monday: a folder inside that of a person"):
        read_own_images(tmp_path)


def test_an_empty_split_is_told(tmp_path: Path) -> None:
    write_files(tmp_path, {**NAMED, "query": ["Thumbs.db"]})

    with pytest.raises(FileNotFoundError, match=r"query holds no image; endings .* \.jpg"):
        read_own_images(tmp_path)


def test_a_csv_is_read_sorted_by_path(tmp_path: Path) -> None:
    write_files(tmp_path, {"a": ["2.png", "1.jpg"], ".": ["q.jpg", "g.jpg", "junk.jpg"]})
    path = write_csv(
        tmp_path,
        "train,3,anna,a/2.png",
        "train,,ben,a/1.jpg",
        "query,0,carl,q.jpg",
        "gallery,-1,carl,g.jpg",
        "gallery,5,-1,junk.jpg",
        header="split,camera_id,person_id,path",
    )

    with untouched(tmp_path):
        splits = read_own_images(path)

    assert labels(splits, "train") == [("1.jpg", 1, -1), ("2.png", 0, 3)]
    assert labels(splits, "query") == [("q.jpg", 2, 0)]
    assert labels(splits, "gallery") == [("g.jpg", 2, -1)]
    assert splits.train[0].origin == "images.csv, line 3"
    assert splits.junk == {"train": 0, "query": 0, "gallery": 1}
    assert (splits.root, splits.layout) == (tmp_path, "images.csv")
    assert splits.annotation_files == (path,)
    assert read_own_images(tmp_path) == splits


def test_columns_that_are_not_used_are_told(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "a.jpg,7,1,train,tall,42", header=f"{HEADER},looks,age")

    splits = read_own_images(path, check_files=False)

    assert splits.train[0].person_id == 7
    assert splits.notices[0] == "Columns that are not used: age, looks."


@pytest.mark.parametrize("column", HEADER.split(","))
def test_a_missing_column_is_told(tmp_path: Path, column: str) -> None:
    header = ",".join(name for name in HEADER.split(",") if name != column)

    with pytest.raises(ValueError, match=rf"images\.csv, line 1: no column {column}; the header"):
        read_own_images(write_csv(tmp_path, header=header))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["a.jpg,1,1,test"], "line 2: `split` should be one of train, query, gallery, val_query"),
        (["a.jpg,1,1,train", "b.jpg,1,1,"], "line 3: `split` should be one of"),
        ([",1,1,train"], "line 2: `path` is empty"),
        (["a.jpg,,1,query"], "line 2: `person_id` is empty; only training images"),
        (["a.jpg,,1,val_gallery"], "line 2: `person_id` is empty; only training images"),
        (
            ["a.jpg,,1,train", "b.jpg,anna,1,train"],
            "line 2: `person_id` is empty, but given in line 3; all training images",
        ),
        (["a.jpg,1,one,train"], "line 2: `camera_id` should be a whole number >= 0 or empty"),
        (["a.jpg,1,-2,train"], "line 2: `camera_id` should be a whole number >= 0 or empty"),
        (["a.jpg,1"], "line 2: `camera_id` and `split` should be given"),
        (["a.jpg,1,1,train", "c.jpg,1,1,train"], "line 3: there is no file"),
        (
            ["a.jpg,1,1,train", "a.jpg,1,1,train"],
            "line 3: image 'a.jpg' is in train already, by line 2; remove one",
        ),
        (
            ["a.jpg,1,1,train", "a.jpg,1,1,query"],
            "line 3: image 'a.jpg' is in query, but in line 2",
        ),
        (["a.jpg,1,1,query", "a.jpg,2,1,gallery"], "has `person_id` '2', but '1' in line 2"),
        (["a.jpg,1,1,query", "a.jpg,1,,gallery"], "has `camera_id` '', but '1' in line 2"),
    ],
)
def test_a_wrong_row_is_told_with_its_line(tmp_path: Path, rows: list[str], told: str) -> None:
    write_files(tmp_path, {".": ["a.jpg", "b.jpg"]})
    path = write_csv(tmp_path, *rows)

    with pytest.raises(ValueError, match="Correct the file; nothing was read from it") as error:
        read_own_images(path)

    assert told in str(error.value)


def test_many_wrong_rows_are_counted(tmp_path: Path) -> None:
    rows = [f"{number}.jpg,1,1,train" for number in range(9)]

    with pytest.raises(ValueError, match=r"9 problems:[\s\S]*line 6: .*[\s\S]* and 4 more"):
        read_own_images(write_csv(tmp_path, *rows))


def test_an_image_may_be_query_and_gallery(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "a.jpg,1,1,query", "a.jpg,1,1,gallery", "b.jpg,1,2,gallery")

    splits = read_own_images(path, check_files=False)

    assert (names(splits.query), names(splits.gallery)) == (["a.jpg"], ["a.jpg", "b.jpg"])


def test_a_csv_without_rows_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"images\.csv holds no images\. A folder holds train/"):
        read_own_images(write_csv(tmp_path))


def test_folders_win_over_a_csv_which_is_told(tmp_path: Path) -> None:
    write_files(tmp_path, NAMED)
    write_csv(tmp_path, "a.jpg,1,1,train")

    splits = read_own_images(tmp_path)

    assert splits.layout == "train/, query/, gallery/"
    assert splits.notices[0].startswith("images.csv is not read, as")


@pytest.mark.parametrize("tables", [[], ["a.csv", "b.csv"]])
def test_a_folder_with_neither_is_told(tmp_path: Path, tables: list[str]) -> None:
    write_files(tmp_path, {".": tables})

    with pytest.raises(FileNotFoundError, match=r"folders of splits or one \.csv file.*A folder"):
        read_own_images(tmp_path)


def test_a_missing_root_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data\.root=.*no\.csv is missing\. Pass"):
        read_own_images(tmp_path / "no.csv")


@pytest.mark.parametrize(
    ("people", "numbers"),
    [
        (["7", "12", "7"], {"7": 7, "12": 12}),
        (["0012", "0007"], {"0007": 7, "0012": 12}),
        (["7", "007"], {"007": 0, "7": 1}),
        (["7", "anna", "-3"], {"-3": 0, "7": 1, "anna": 2}),
        ([], {}),
    ],
)
def test_people_keep_plain_numbers_only_if_all_do(
    people: list[str], numbers: dict[str, int]
) -> None:
    assert number_people(people) == numbers
