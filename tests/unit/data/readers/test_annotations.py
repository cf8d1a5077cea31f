import json
import os
from pathlib import Path
from typing import Any

import pytest

from crosswalk.config.construct import construct
from crosswalk.config.search import read_group_file
from crosswalk.data.readers.annotations import (
    OF_PAIRS,
    PUBLISHED,
    expected_counts,
    image_folder,
    looks_like,
    merge_captions,
    parse_entries,
    read_entries,
    read_json,
)
from tests.unit.data.trees import without, write_json

ENTRY = {"split": "train", "id": 1, "file_path": "a/1.jpg", "captions": ["A man."]}


def parse(*entries: Any) -> Any:  # noqa: ANN401
    return parse_entries(Path("reid_raw.json"), entries, image_keys=("file_path", "img_path"))


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("A man.", "entry 1 is 'A man.', not an object"),
        (without(ENTRY, "file_path"), "`file_path` should name the image, but is missing"),
        (ENTRY | {"file_path": " "}, "`file_path` should name the image, but is ' '"),
        (ENTRY | {"file_path": "/abs/1.jpg"}, "should lie inside the image folder"),
        (ENTRY | {"file_path": "../1.jpg"}, "should lie inside the image folder"),
        (without(ENTRY, "id"), "`id` should be a whole number, but is missing"),
        (ENTRY | {"id": "p1"}, "`id` should be a whole number, but is 'p1'"),
        (ENTRY | {"id": True}, "`id` should be a whole number, but is True"),
        (ENTRY | {"id": 1.5}, "`id` should be a whole number, but is 1.5"),
        *(
            (ENTRY | {"id": wrong}, "`id` should be a whole number, but is ")
            for wrong in ("--7", "\u00b2", "9" * 6_000, 10**19, "1" * 20, float("inf"))
        ),
        (ENTRY | {"id": 10**19}, "ids are numbers below 2**63"),
        (ENTRY | {"file_path": "a\0.jpg"}, "`file_path` 'a\\x00.jpg' holds a NUL character"),
        (ENTRY | {"file_path": "\ud800.jpg"}, "`file_path` '\\ud800.jpg' holds half a character"),
        (ENTRY | {"captions": ["A.", "\udc80"]}, "a caption holds half a character"),
        (without(ENTRY, "captions"), "`captions` should be a list of sentences, but is missing"),
        (ENTRY | {"captions": []}, "`captions` should be a list of sentences, but is []"),
        (ENTRY | {"captions": ["a", 3]}, "`captions` holds something that is not a sentence"),
        (ENTRY | {"split": "trian"}, "`split` should be train, val or test, but is 'trian'"),
    ],
)
def test_a_wrong_entry_is_named_with_its_file(entry: object, complaint: str) -> None:
    with pytest.raises(ValueError, match="entry 1") as error:
        parse(ENTRY, entry, ENTRY)

    assert "reid_raw.json" in str(error.value)
    assert complaint in str(error.value)
    assert "Fetch the file again, or correct" in str(error.value)


def test_of_many_wrong_entries_the_first_are_named_and_all_counted() -> None:
    wrong = [without(ENTRY, "id")] * 7

    with pytest.raises(ValueError, match="7 problems") as error:
        parse(*wrong)

    assert "entry 4:" in str(error.value)
    assert "entry 5:" not in str(error.value)
    assert "... and 2 more" in str(error.value)


def test_digits_written_as_text_are_a_person_id() -> None:
    assert parse(ENTRY | {"id": "12"})[0].person_id == 12


def test_entries_of_one_image_and_person_are_merged_in_order() -> None:
    entries = parse(
        ENTRY,
        ENTRY | {"file_path": "a/2.jpg"},
        without(ENTRY, "captions") | {"sentence": "He runs."},
        ENTRY | {"id": 2},
    )

    merged = merge_captions(entries)

    assert [(entry.name, entry.person_id, entry.captions) for entry in merged] == [
        ("a/1.jpg", 1, ("A man.", "He runs.")),
        ("a/2.jpg", 1, ("A man.",)),
        ("a/1.jpg", 2, ("A man.",)),
    ]


def test_a_file_that_was_cut_off_is_named_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "reid_raw.json"
    path.write_text('[\n {"id": 1},\n {"id": ', encoding="utf-8")

    with pytest.raises(ValueError, match=r"reid_raw\.json, line 3, column 9: not valid JSON") as e:
        read_json(path)

    assert "fetch the file again" in str(e.value)


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "reid_raw.json"
    path.touch()

    with pytest.raises(ValueError, match=r"reid_raw\.json is empty\. .* fetch it again"):
        read_json(path)


def test_an_archive_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "reid_raw.json"
    path.write_bytes(b"PK\x03\x04\xff\xfe")

    with pytest.raises(ValueError, match=r"is not UTF-8 text \(line 1, byte 4\)\. If it is an"):
        read_json(path)


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "reid_raw.json"
    path.write_text(json.dumps([ENTRY]), encoding="utf-8-sig")

    assert read_entries(path) == [ENTRY]


@pytest.mark.parametrize("content", [{}, [], {"annotations": []}, "text", 3])
def test_a_file_without_a_list_is_refused(tmp_path: Path, content: object) -> None:
    path = write_json(tmp_path / "reid_raw.json", content)

    with pytest.raises(ValueError, match=r"reid_raw\.json holds no list of annotations"):
        read_entries(path)


def test_images_beside_the_annotation_are_found_only_without_imgs(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    assert image_folder(tmp_path, ["train/1.jpg"]) == tmp_path

    (tmp_path / "imgs").mkdir()
    assert image_folder(tmp_path, ["train/1.jpg"]) == tmp_path / "imgs"


def test_where_no_image_is_found_imgs_is_named(tmp_path: Path) -> None:
    assert image_folder(tmp_path, ["train/1.jpg"]) == tmp_path / "imgs"


def test_a_generated_set_carries_its_own_counts(tmp_path: Path) -> None:
    own = {"val": {"person_ids": 3, "images": 6, "captions": 12}}
    write_json(tmp_path / "expected_counts.json", {"dataset": "synthetic", "splits": own})

    assert expected_counts(tmp_path, {"val": {"images": 3_078}}) == own


@pytest.mark.parametrize("content", [[], {}, {"splits": {"dev": {}}}, {"splits": {"val": 3}}])
def test_damaged_counts_are_named(tmp_path: Path, content: object) -> None:
    write_json(tmp_path / "expected_counts.json", content)

    with pytest.raises(ValueError, match=r"expected_counts\.json should hold .*synthesize"):
        expected_counts(tmp_path, None)


@pytest.mark.parametrize(
    ("written", "number"), [("-3", -3), (7.0, 7), (" 12 ", 12), ("\u0663", 3), (2**62, 2**62)]
)
def test_whole_numbers_are_ids_however_they_are_written(written: object, number: int) -> None:
    assert parse(ENTRY | {"id": written})[0].person_id == number


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[" + "9" * 6_000 + "]", "a number of thousands of digits"),
    ],
)
def test_json_that_python_cannot_take_is_named(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "reid_raw.json"
    path.write_text(content)

    with pytest.raises(ValueError, match=rf"reid_raw\.json: .*{told}\. It is not this annotation"):
        read_entries(path)


def test_a_pipe_is_no_annotation(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "reid_raw.json")

    with pytest.raises(ValueError, match=r"reid_raw\.json is no plain file"):
        read_entries(tmp_path / "reid_raw.json")


@pytest.mark.parametrize("number", ["null", '"many"', "Infinity", "NaN", "1.5", "-1", "true", "[]"])
def test_counts_that_are_none_are_named(tmp_path: Path, number: str) -> None:
    path = tmp_path / "expected_counts.json"
    path.write_text(f'{{"splits": {{"val": {{"images": {number}}}}}}}')

    with pytest.raises(ValueError, match=r"counts\.json, `splits`, `val`: `images` should"):
        expected_counts(tmp_path, None)


def test_captions_of_one_image_are_merged_in_linear_time() -> None:
    entries = parse(*(ENTRY | {"captions": [f"A man {n}."]} for n in range(100_000)))

    [merged] = merge_captions(entries)

    assert merged.captions[::99_999] == ("A man 0.", "A man 99999.")


FOLDERS = {
    "Market-1501-v15.09.15/bounding_box_train/a.jpg": ["market1501"],
    "CUHK-PEDES/reid_raw.json": ["cuhk_pedes"],
    "MSMT17_V1/list_train.txt": ["msmt17"],
    "data_captions.json": ["rstp_reid"],
    "bounding_box_train/a.jpg": ["market1501", "dukemtmc", "msmt17", "occluded_duke"],
}


@pytest.mark.parametrize(
    ("data", "file", "meant"),
    [
        (data, file, meant)
        for data in (*PUBLISHED, "own_pairs", "own_images")
        for file, meant in FOLDERS.items()
        if data not in meant
    ],
)
def test_the_folder_of_another_data_set_is_told_what_it_looks_like(
    data: str, file: str, meant: list[str], tmp_path: Path
) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()

    with pytest.raises(FileNotFoundError) as refused:
        construct(read_group_file("data", data)["reader"], {})(tmp_path)

    names = " or ".join(PUBLISHED[each] for each in meant)
    ends = " or ".join(f"data={each}" for each in meant)
    assert f"holds {Path(file).parts[0]}" in str(refused.value)
    pairs = {True: "image-caption pairs", False: "images of people"}
    wants, has = ({each in (*OF_PAIRS, "own_pairs") for each in sets} for sets in ([data], meant))
    kind = "" if wants <= has else f", for methods that train on {pairs[has.pop()]}"
    assert f" That looks like {names}: {ends}{kind}." in str(refused.value)
    assert "Looked for" not in str(refused.value)


def test_a_folder_of_a_data_sets_own_name_is_taken_for_that_one(tmp_path: Path) -> None:
    root = tmp_path / "DukeMTMC-reID"
    (root / "bounding_box_train").mkdir(parents=True)

    assert looks_like(root, pairs=False) == "That looks like DukeMTMC-reID: data=dukemtmc."
    assert looks_like(tmp_path, pairs=False) == "That looks like DukeMTMC-reID: data=dukemtmc."
    assert looks_like(tmp_path / "nowhere", pairs=True) == ""
    assert looks_like(tmp_path, pairs=True).endswith(
        "data=dukemtmc, for methods that train on images of people."
    )
