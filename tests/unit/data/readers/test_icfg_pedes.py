from dataclasses import replace
from pathlib import Path

import pytest

from crosswalk.data.readers.icfg_pedes import carve_val, read_icfg_pedes
from crosswalk.data.readers.records import Record, Splits
from tests.unit.data.trees import untouched, write_images, write_json

ENTRIES = [
    {"split": split, "id": person_id, "file_path": name, "captions": [caption]}
    for split, person_id, name, caption in [
        ("train", 1, "train/0001/0001_000_14_0303morning_0008_0.jpg", "A man."),
        ("test", 3102, "test/0000/0000_002_03_0303noon_0021_1.jpg", "A woman."),
        ("train", 0, "train/0000/0000_000_01_0303morning_0008_0.jpg", "A boy."),
        ("train", 1, "train/0001/portrait.jpg", "The man."),
    ]
]


@pytest.mark.parametrize("file", ["ICFG-PEDES.json", "ICFG_PEDES.json"])
@pytest.mark.parametrize("name", ["ICFG-PEDES", "."])
@pytest.mark.parametrize("images", ["imgs", "."])
def test_both_spellings_and_places_are_read(
    tmp_path: Path, name: str, file: str, images: str
) -> None:
    folder = tmp_path / name
    write_json(folder / file, ENTRIES)
    write_images(folder / images, [str(entry["file_path"]) for entry in ENTRIES])

    with untouched(tmp_path):
        splits = read_icfg_pedes(tmp_path)

    assert splits.layout == (file if name == "." else f"{name}/{file}")
    assert splits.image_folder == folder / images
    assert [record.person_id for record in splits.train] == [1, 0, 1]
    assert [record.person_id for record in splits.test] == [3102]
    assert all(record.image_path.is_file() for _, record in splits)


def test_cameras_come_from_the_names_of_msmt17(tmp_path: Path) -> None:
    write_json(tmp_path / "ICFG-PEDES.json", ENTRIES)

    splits = read_icfg_pedes(tmp_path)

    assert [record.camera_id for record in splits.train] == [14, 1, -1]
    assert [record.camera_id for record in splits.test] == [3]


def test_the_missing_val_split_is_told_with_the_ways_out(tmp_path: Path) -> None:
    write_json(tmp_path / "ICFG-PEDES.json", ENTRIES)

    splits = read_icfg_pedes(tmp_path)

    assert splits.val == ()
    assert "no val split" in splits.notices[0]
    assert "data.val_person_ids" in splits.notices[0]
    assert "protocol=official" in splits.notices[0]


def test_published_counts_are_known(tmp_path: Path) -> None:
    write_json(tmp_path / "ICFG-PEDES.json", ENTRIES)

    assert read_icfg_pedes(tmp_path).published == {
        "train": {"person_ids": 3_102, "images": 34_674, "captions": 34_674},
        "test": {"person_ids": 1_000, "images": 19_848, "captions": 19_848},
    }


def made(num_person_ids: int) -> Splits:
    train = tuple(
        Record(Path(f"{person_id}_{n}.jpg"), person_id=10 * person_id)
        for n in range(3)
        for person_id in range(num_person_ids)
    )
    test = (Record(Path("t.jpg"), 999),)
    published = {"train": {"images": 1}, "test": {"images": 1}}
    return Splits("ICFG-PEDES", Path(), "ICFG-PEDES.json", train, (), test, published=published)


@pytest.mark.parametrize(("num_person_ids", "moved"), [(2, 1), (7, 3), (7, 6), (40, 5)])
def test_whole_identities_move_to_val_in_order(num_person_ids: int, moved: int) -> None:
    splits = made(num_person_ids)

    carved = carve_val(splits, moved, seed=3)

    chosen = {record.person_id for record in carved.val}
    assert len(chosen) == moved
    assert carved.val == tuple(r for r in splits.train if r.person_id in chosen)
    assert carved.train == tuple(r for r in splits.train if r.person_id not in chosen)
    assert carved.test == splits.test


def test_the_choice_follows_the_seed_and_not_the_order_of_records() -> None:
    splits = made(40)
    turned = Splits("ICFG-PEDES", Path(), "f", splits.train[::-1], (), splits.test)

    ids = [
        {record.person_id for record in carve_val(of, 5, seed=seed).val}
        for of, seed in ((splits, 1), (turned, 1), (splits, 2))
    ]

    assert ids[0] == ids[1]
    assert ids[0] != ids[2]


def test_nobody_can_be_held_out_of_pairs_without_people() -> None:
    splits = replace(made(7), train_is_labelled=False)

    with pytest.raises(ValueError, match=r"no person ids.*rows of split val.*protocol=official"):
        carve_val(splits, 2, seed=5)


def test_carving_is_told_and_ends_the_published_order() -> None:
    carved = carve_val(made(7), 2, seed=5)

    assert not carved.pair_order_is_published
    assert "2 of the 7 train identities, chosen with seed 5" in carved.notices[-1]
    assert carved.published == {"test": {"images": 1}}


@pytest.mark.parametrize("number", [0, -1, 7, 8])
def test_a_number_that_does_not_fit_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=rf"data.val_person_ids={number} .* choose 1 to 6"):
        carve_val(made(7), number, seed=1)


def test_an_existing_val_split_is_not_replaced() -> None:
    splits = carve_val(made(7), 2, seed=1)

    with pytest.raises(ValueError, match=r"val split of 6 images.*Remove data\.val_person_ids"):
        carve_val(splits, 2, seed=1)


def test_a_missing_annotation_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No annotation file of ICFG-PEDES") as error:
        read_icfg_pedes(tmp_path)

    assert f"below data.root={tmp_path}: the folder is empty. ICFG-PEDES cannot" in str(error.value)
