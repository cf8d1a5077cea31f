import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from crosswalk.data.readers.cuhk_pedes import read_cuhk_pedes
from crosswalk.data.readers.own_images import REQUIRED as IMAGE_COLUMNS
from crosswalk.data.readers.own_images import read_own_images
from crosswalk.data.readers.own_pairs import read_own_pairs
from tests.unit.data.trees import untouched

HEADER = "image,caption,person_id,split"


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def as_json(**row: object) -> str:
    return json.dumps(
        {"image": "a/1.jpg", "caption": "A man.", "person_id": 1, "split": "train"} | row
    )


def test_a_csv_becomes_one_record_per_image(tmp_path: Path) -> None:
    path = write(
        tmp_path / "pairs.csv",
        "split,image,camera_id,caption,person_id",
        'train,a/1.jpg,3,"A man, in red.",12',
        "val,v.jpg,,A woman.,7",
        "train,a/2.jpg,0,A boy.,12",
        "train,a/1.jpg,3,He wears red.,12",
        "test,t.jpg,2,A girl.,9",
    )

    with untouched(tmp_path):
        splits = read_own_pairs(path)

    assert [
        (r.image_path, r.person_id, r.camera_id, r.captions, r.origin) for r in splits.train
    ] == [
        (tmp_path / "a/1.jpg", 12, 3, ("A man, in red.", "He wears red."), "pairs.csv, line 2"),
        (tmp_path / "a/2.jpg", 12, 0, ("A boy.",), "pairs.csv, line 4"),
    ]
    assert [(r.person_id, r.camera_id) for r in splits.val + splits.test] == [(7, -1), (9, 2)]
    assert splits.image_folder == tmp_path
    assert splits.published is None
    assert splits.notices == ()


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.ndjson", "PAIRS.JSONL"])
def test_json_lines_are_read_like_a_csv(tmp_path: Path, name: str) -> None:
    lines = [
        as_json(),
        "",
        as_json(caption="He runs.", extra=3),
        as_json(image="b.jpg", split="val"),
    ]

    splits = read_own_pairs(write(tmp_path / name, *lines))

    assert [record.captions for record in splits.train] == [("A man.", "He runs.")]
    assert [record.origin for record in splits.val] == [f"{name}, line 4"]
    assert "Columns that are not used: extra." in splits.notices
    assert "No rows with split test." in splits.notices


def test_a_folder_with_one_file_is_enough(tmp_path: Path) -> None:
    write(tmp_path / "pairs.csv", HEADER, "a.jpg,A man.,1,train")

    assert read_own_pairs(tmp_path).layout == "pairs.csv"


@pytest.mark.parametrize(
    ("names", "person_ids"),
    [
        (["7", "3", "7"], [7, 3, 7]),
        (["zoe", "anna", "zoe"], [1, 0, 1]),
        (["7", "007", "p1"], [1, 0, 2]),
        (["7", "007", "3"], [2, 0, 1]),
        (["-1", "4", "4"], [0, 1, 1]),
    ],
)
def test_person_ids_may_be_numbers_or_names(
    tmp_path: Path, names: list[str], person_ids: list[int]
) -> None:
    rows = [f"{n}.jpg,A man.,{name},train" for n, name in enumerate(names)]

    splits = read_own_pairs(write(tmp_path / "pairs.csv", HEADER, *rows))

    assert [record.person_id for record in splits.train] == person_ids


GOOD = "a.jpg,A man.,1,train"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["b.jpg,A man.,1,dev"], "line 3: `split` should be train, val or test, but is 'dev'"),
        (["b.jpg,,1,train"], "line 3: `caption` is empty"),
        (["b.jpg,  ,1,train"], "line 3: `caption` is empty"),
        ([",A man.,1,train"], "line 3: `image` is empty"),
        (
            ["b.jpg,A man.,,train"],
            "line 3: `person_id` is empty, but given in line 2; all rows of train have one, or",
        ),
        (["b.jpg,A man.,,test"], "line 3: `person_id` is empty; only rows of train may go without"),
        (["b.jpg,A man.,,val"], "one, not val"),
        (["a.jpg,He.,,train"], "line 3: image 'a.jpg' has `person_id` '', but '1' in line 2"),
        (["b.jpg,A man.,1"], "line 3: `split` should be given"),
        (["b.jpg,A man, in red,1,train"], "line 3: 5 cells, the header has 4; put text that"),
        ([GOOD], "line 3: the same image and caption as line 2; remove one"),
        (["a.jpg,He.,2,train"], "line 3: image 'a.jpg' has `person_id` '2', but '1' in line 2"),
        (["a.jpg,He.,1,test"], "line 3: image 'a.jpg' has `split` 'test', but 'train' in line 2"),
        (['b.jpg,"A man,1,train'], "line 3: not readable as CSV"),
        (["", 'b.jpg,"A\nman.",1,train', "c.jpg,,1,val"], "line 6: `caption` is empty"),
    ],
)
def test_a_wrong_row_is_named_with_file_and_line(
    tmp_path: Path, rows: list[str], message: str
) -> None:
    path = write(tmp_path / "pairs.csv", HEADER, GOOD, *rows)

    with pytest.raises(ValueError, match=r"pairs\.csv, line") as error:
        read_own_pairs(path)

    assert f"{path}, " in str(error.value)
    assert message in str(error.value)
    assert "Correct the file" in str(error.value)


UNLABELLED = (
    "a.jpg,A man.,,train",
    "b.jpg,A woman.,,train",
    "a.jpg,He runs.,,train",
    "c.jpg,A boy.,{0},test",
    "d.jpg,A girl.,{1},test",
)


@pytest.mark.parametrize(
    ("names", "of_test", "of_train"),
    [(("3", "0"), [3, 0], [4, 5]), (("zoe", "anna"), [1, 0], [2, 3])],
)
def test_every_training_image_without_a_person_is_its_own(
    tmp_path: Path, names: tuple[str, str], of_test: list[int], of_train: list[int]
) -> None:
    rows = [row.format(*names) for row in UNLABELLED]

    splits = read_own_pairs(write(tmp_path / "pairs.csv", HEADER, *rows))

    assert not splits.train_is_labelled
    assert [record.person_id for record in splits.test] == of_test
    assert [record.person_id for record in splits.train] == of_train
    assert [record.captions for record in splits.train] == [("A man.", "He runs."), ("A woman.",)]
    assert any("None of the 2 training images has a person id" in text for text in splits.notices)
    assert not any("share" in text for text in splits.notices)


@pytest.mark.parametrize("nobody", [None, "", " "])
def test_json_lines_may_name_nobody(tmp_path: Path, nobody: str | None) -> None:
    lines = [as_json(person_id=nobody), as_json(image="b.jpg", split="test")]

    splits = read_own_pairs(write(tmp_path / "pairs.jsonl", *lines))

    assert [record.person_id for record in splits.train] == [2]
    assert not splits.train_is_labelled


def test_training_images_with_people_are_labelled(tmp_path: Path) -> None:
    assert read_own_pairs(write(tmp_path / "pairs.csv", HEADER, GOOD)).train_is_labelled


def test_the_first_training_image_may_be_the_one_without_a_person(tmp_path: Path) -> None:
    rows = ["a.jpg,A man.,,train", "b.jpg,He.,anna,train", "c.jpg,She.,,train"]
    path = write(tmp_path / "pairs.csv", HEADER, *rows)

    with pytest.raises(ValueError, match="2 problems") as error:
        read_own_pairs(path)

    for line in (2, 4):
        assert f"line {line}: `person_id` is empty, but given in line 3" in str(error.value)


@pytest.mark.parametrize("camera_id", ["x", "-1", "1.5"])
def test_a_wrong_camera_is_named(tmp_path: Path, camera_id: str) -> None:
    path = write(tmp_path / "pairs.csv", HEADER + ",camera_id", f"{GOOD},{camera_id}")

    with pytest.raises(ValueError, match=rf"line 2: `camera_id` .* but is '{camera_id}'"):
        read_own_pairs(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2, column 2: not valid JSON"),
        ("[1]", "line 2: not a JSON object"),
        (as_json(caption=None), "line 2: `caption` is empty"),
        ('{"image": "b.jpg", "caption": "He.", "split": "train"}', "line 2: `person_id` should be"),
        (as_json(person_id=True), "line 2: `person_id` should be given, as text or number"),
        (as_json(caption=["A man."]), "line 2: `caption` should be given, as text or number"),
        (as_json(split="Train"), "line 2: `split` should be train, val or test, but is 'Train'"),
    ],
)
def test_a_wrong_json_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "pairs.jsonl", as_json(), line)

    with pytest.raises(ValueError, match="Correct the file") as error:
        read_own_pairs(path)

    assert f"{path}, {message}" in str(error.value)


def test_several_problems_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.csv", HEADER, "a.jpg,,1,train", "b.jpg,A man.,1,dev")

    with pytest.raises(ValueError, match=r"2 problems:\n  line 2: .*\n  line 3: "):
        read_own_pairs(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("image,caption,split", "line 1: no column person_id; the header is image,caption,split."),
        ("image;caption;person_id;split", "Separate the columns by commas."),
        ("Photo,Text,ID,Set", "Is Photo meant for image? Is Text meant for caption? Is ID meant"),
        ("image,description,pid,split", "Is description meant for caption? Is pid meant for perso"),
        ("image,caption,person_id,split,split", "line 1: column split occurs twice"),
    ],
)
def test_a_wrong_header_is_named(tmp_path: Path, header: str, message: str) -> None:
    path = write(tmp_path / "pairs.csv", header, GOOD)

    with pytest.raises(ValueError, match="line 1") as error:
        read_own_pairs(path)

    assert message in str(error.value)


@pytest.mark.parametrize("content", ["", HEADER + "\n", "\n"])
def test_a_file_without_pairs_is_refused_with_an_example(tmp_path: Path, content: str) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(content)

    with pytest.raises(ValueError, match="image,caption,person_id,split"):
        read_own_pairs(path)


def test_a_table_program_that_writes_latin_1_is_told(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes(f"{HEADER}\na.jpg,A caf\xe9.,1,train\n".encode("latin-1"))

    with pytest.raises(ValueError, match=r"pairs\.csv is not UTF-8 text .*Save it again as UTF-8"):
        read_own_pairs(path)


def test_a_folder_with_two_files_asks_for_one(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", HEADER, GOOD)
    write(tmp_path / "b.jsonl", as_json())

    with pytest.raises(FileNotFoundError, match=r"but holds a\.csv, b\.jsonl\. Pass data\.root="):
        read_own_pairs(tmp_path)


def test_a_missing_file_and_an_unknown_ending_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data\.root=.*no\.csv is missing"):
        read_own_pairs(tmp_path / "no.csv")
    with pytest.raises(ValueError, match=r"pairs\.xlsx should end in \.csv or \.jsonl"):
        read_own_pairs(write(tmp_path / "pairs.xlsx", "x"))


@pytest.mark.parametrize(
    ("names", "numbers", "told"),
    [
        (["0005", "12", "12"], [5, 12, 12], []),
        (
            ["1", "0001"],
            [1, 0],
            ["Person ids '0001' and '1' are read as two people: ids are texts."],
        ),
        (["2023110512304500001", "7"], [2023110512304500001, 7], []),
        (["20231105123045000001", "7"], [0, 1], []),
        (["9" * 6_000, "7"], [1, 0], []),
        (["1.0", "1"], [1, 0], ["Person ids '1' and '1.0' are read as two people: ids are texts."]),
    ],
)
def test_own_pairs_and_own_images_number_people_alike(
    tmp_path: Path, names: list[str], numbers: list[int], told: list[str]
) -> None:
    pairs = [f"{n}.jpg,A man.,{name},train" for n, name in enumerate(names)]
    images = [f"{n}.jpg,{name},,train" for n, name in enumerate(names)]

    splits = (
        read_own_pairs(write(tmp_path / "pairs.csv", HEADER, *pairs)),
        read_own_images(
            write(tmp_path / "images.csv", "path,person_id,camera_id,split", *images),
            check_files=False,
        ),
    )

    for each in splits:
        assert [record.person_id for record in each.train] == numbers
        assert [each.people.get(number, str(number)) for number in numbers] == names
        assert [text for text in each.notices if "two people" in text] == told


@pytest.mark.parametrize(("number", "name"), [(1.0, "1"), (1, "1"), ("1.0", "1.0"), ("01", "01")])
def test_numbers_of_json_are_what_they_mean(tmp_path: Path, number: object, name: str) -> None:
    lines = [as_json(person_id=number, camera_id=2.0), as_json(image="b.jpg", person_id="anna")]

    splits = read_own_pairs(write(tmp_path / "pairs.jsonl", *lines))

    assert splits.people == {0: name, 1: "anna"}
    assert [record.camera_id for record in splits.train] == [2, -1]


HOSTILE = {
    "deep": ("[" * 100_000, "line 2: lists or objects are nested too deeply"),
    "digits": (f'{{"person_id": {"9" * 6_000}}}', "line 2: holds a number of thousands of digits"),
    "nul": (as_json(image="a\0.jpg"), "line 2: `image` holds a NUL character"),
    "name": (as_json(image="\ud800.jpg"), "line 2: `image` holds half a character"),
    "caption": (as_json(caption="A \udfff man."), "line 2: `caption` holds half a character"),
    "person": (as_json(person_id="\ud83d"), "line 2: `person_id` holds half a character"),
    "fraction": (as_json(person_id=1.5), "line 2: `person_id` should be given, as text or number"),
    "infinite": (as_json(person_id=float("inf")), "line 2: `person_id` should be given, as text"),
    "camera": (as_json(camera_id=10**19), "line 2: `camera_id` should be a whole number >= 0"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_json_line_is_named(tmp_path: Path, kind: str) -> None:
    line, message = HOSTILE[kind]
    path = write(tmp_path / "pairs.jsonl", as_json(), line)

    with pytest.raises(ValueError, match="Correct the file") as error:
        read_own_pairs(path)

    assert f"{path}, {message}" in str(error.value)


def test_a_pipe_is_no_table(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pairs.csv")

    with pytest.raises(FileNotFoundError, match=r"pairs\.csv is missing"):
        read_own_pairs(tmp_path / "pairs.csv")


def test_thousands_of_captions_of_one_image_are_compared_once_each(tmp_path: Path) -> None:
    rows = [f"a.jpg,A man in coat {n}.,1,train" for n in range(50_000)]

    splits = read_own_pairs(write(tmp_path / "pairs.csv", HEADER, *rows))

    assert splits.train[0].captions[::49_999] == ("A man in coat 0.", "A man in coat 49999.")


@pytest.mark.parametrize(
    ("read", "name", "header", "said"),
    [
        (
            read_own_pairs,
            "t.csv",
            "image,person",
            f"without captions are own_images, a CSV of {','.join(IMAGE_COLUMNS)}.",
        ),
        (
            read_own_images,
            "t.csv",
            "image,caption,id",
            f"with captions are own_pairs, a CSV of {HEADER}.",
        ),
    ],
)
def test_a_table_of_the_other_kind_is_told_the_columns_of_both(
    read: Callable[[Path], object], name: str, header: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no column") as refused:
        read(write(tmp_path / name, header, "1.jpg,3"))

    assert str(refused.value).endswith(said)
    with pytest.raises(ValueError, match="no column") as refused:  # of its own kind
        read(write(tmp_path / name, {"image,person": HEADER}.get(header, "path")[:-2], "1.jpg"))
    assert not str(refused.value).endswith(said)


def test_a_table_of_ones_own_is_named_where_another_data_set_was_looked_for(tmp_path: Path) -> None:
    table = write(tmp_path / "my pairs.csv", "image,caption,person_id,split", "1.jpg,a man,3,train")

    with pytest.raises(FileNotFoundError) as error:
        read_cuhk_pedes(tmp_path)

    assert f"A table of your own is data=own_pairs data.root='{table}'." in str(error.value)
