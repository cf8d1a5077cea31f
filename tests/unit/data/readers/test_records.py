from pathlib import Path

import pytest

from crosswalk.data.readers.records import (
    ImageSplits,
    Record,
    Splits,
    count,
    count_deviations,
    images_outside,
    of_one_person,
    refuse_outside,
    relabel,
    repeated_images,
    with_notices,
)


def records(*ids: int) -> tuple[Record, ...]:
    return tuple(Record(Path(f"{n}.jpg"), id_, captions=("a",)) for n, id_ in enumerate(ids))


def splits_of(
    train: tuple[Record, ...] = (),
    val: tuple[Record, ...] = (),
    test: tuple[Record, ...] = (),
    published: dict[str, dict[str, int]] | None = None,
) -> Splits:
    return Splits("own", Path(), "pairs.csv", train, val, test, published=published)


@pytest.mark.parametrize(
    ("person_ids", "labels"),
    [
        ([5], {5: 0}),
        ([4, 1, 4, 2], {1: 0, 2: 1, 4: 2}),
        ([0, 1, 2], {0: 0, 1: 1, 2: 2}),
        ([], {}),
        ([12, 2, 100, -1], {-1: 0, 2: 1, 12: 2, 100: 3}),
    ],
)
def test_labels_have_no_gaps_and_follow_the_ids(
    person_ids: list[int], labels: dict[int, int]
) -> None:
    assert relabel(person_ids) == labels


def test_people_images_and_captions_are_counted() -> None:
    found = count([Record(Path("1"), 7, captions=("a", "b", "c")), *records(7, 8, 8)])

    assert found == {"person_ids": 2, "images": 4, "captions": 6}


def test_only_counts_that_differ_are_told() -> None:
    published = {"train": {"person_ids": 2, "images": 3}, "test": {"person_ids": 1_200}}

    sentences = count_deviations(splits_of(train=records(1, 2), published=published))

    assert sentences == [
        "train has 2 images, expected 3.",
        "test has 0 person ids, expected 1,200.",
    ]


def test_without_known_counts_nothing_deviates() -> None:
    assert count_deviations(splits_of(train=records(1))) == []


def test_people_in_two_splits_are_told() -> None:
    splits = with_notices(splits_of(records(1, 2, 3), records(4), records(2, 3)))

    assert len(splits.notices) == 1
    assert splits.notices[0].startswith("train and test share 2 person ids")


def test_an_image_named_twice_is_found_once() -> None:
    twice = Record(Path("b.jpg"), 1)

    assert repeated_images([twice, Record(Path("a.jpg"), 1), twice, twice]) == [Path("b.jpg")]


def test_splits_are_walked_in_the_order_train_val_test() -> None:
    splits = splits_of(records(1), records(2), records(3, 4))

    walked = [(name, record.person_id) for name, record in splits]

    assert walked == [("train", 1), ("val", 2), ("test", 3), ("test", 4)]


def test_an_unknown_split_is_refused_with_the_choice() -> None:
    with pytest.raises(ValueError, match="no split 'dev'; choose one of train, val, test"):
        splits_of().split("dev")


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("a.jpg", True),
        ("b/../a.jpg", True),
        ("a..b.jpg", True),
        ("link/a.jpg", True),
        ("../people/a.jpg", True),
        ("../other/a.jpg", False),
        ("b/../../a.jpg", False),
        ("../people-2/a.jpg", False),
        ("/etc/hostname", False),
        ("link/../../a.jpg", False),
        ("link/../a.jpg", False),
    ],
)
def test_images_lie_in_the_folder_of_their_data_set_or_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absolute: bool, name: str, inside: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "people").mkdir()
    (tmp_path / "people" / "link").symlink_to("/etc")
    root = tmp_path / "people" if absolute else Path("people")
    record = Record(root / name, 3, origin="pairs.csv, line 2")
    splits = Splits("own", root, "pairs.csv", (), (), (record,))

    assert images_outside(splits) == ([] if inside else [record])
    if not inside:
        with pytest.raises(ValueError, match=r"pairs\.csv, line 2.*data\.allow_outside=true"):
            refuse_outside(splits)


@pytest.mark.parametrize("root", [".", "", "link", "..", "people/../people"])
def test_an_absolute_path_into_the_folder_is_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    here = tmp_path / "people" / "sub"
    here.mkdir(parents=True)
    (here / "link").symlink_to(here)
    (here / "people").mkdir()
    monkeypatch.chdir(here)
    real = Path(root).resolve()

    for path, inside in ((real / "a.jpg", True), (real.parent / "a.jpg", False)):
        splits = Splits("own", Path(root), "f", (Record(path, 3),), (), ())
        assert (images_outside(splits) == []) is inside


@pytest.mark.parametrize("persons", [(), (3,), (3, 3, 3), (3, 5)])
def test_a_gallery_of_a_single_person_is_said_to_measure_nothing(persons: tuple[int, ...]) -> None:
    records = tuple(Record(Path(f"{n}.jpg"), person) for n, person in enumerate(persons))
    pairs = Splits("own", Path(), "pairs.csv", (), records, records, own=True)
    images = ImageSplits("own", Path(), ".", (), records, records, own=True)

    said = [text.partition(",")[0] for text in of_one_person(pairs)]
    alone = len(set(persons)) == 1
    assert said == ["val shows a single person", "test shows a single person"] * alone
    assert [text[:5] for text in of_one_person(images)] == ["test "] * alone
