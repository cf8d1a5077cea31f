import json
import pickle
from pathlib import Path

import pytest

from crosswalk.data.readers.cuhk_pedes import read_cuhk_pedes
from crosswalk.data.readers.records import Splits
from tests.unit.data.trees import CUHK_ENTRIES, untouched, without, write_cuhk, write_json

SPLITS = ("train", "val", "test")


def found(splits: Splits, name: str) -> list[tuple[int, str, tuple[str, ...]]]:
    return [
        (
            record.person_id,
            record.image_path.relative_to(splits.image_folder).as_posix(),
            record.captions,
        )
        for record in splits.split(name)
    ]


def expected(name: str) -> list[tuple[int, str, tuple[str, ...]]]:
    return [
        (entry["id"], entry["file_path"], tuple(entry["captions"]))
        for entry in CUHK_ENTRIES
        if entry["split"] == name
    ]


def of_split(name: str) -> list[dict[str, object]]:
    return [entry for entry in CUHK_ENTRIES if entry["split"] == name]


def write_form(folder: Path, form: str) -> None:
    """Write CUHK_ENTRIES in one of the forms they are found in."""
    if form == "reid_raw.json":
        write_json(folder / form, CUHK_ENTRIES)
    elif form == "caption_all.json":
        keys = ("split", "processed_tokens")
        write_json(folder / form, [without(entry, *keys) for entry in CUHK_ENTRIES])
    elif form == "processed_data/*.json":
        for name in SPLITS:
            write_json(folder / "processed_data" / f"{name}.json", of_split(name))
    elif form == "{split}_reid.json":
        for name in SPLITS:
            entries = [without(entry, "split", "processed_tokens") for entry in of_split(name)]
            back = [entry | {"captions_bt": ["other words"]} for entry in entries]
            write_json(folder / f"{name}_reid.json", back)
    else:
        for name in SPLITS:
            entries = [
                {"image_id": n, "id": entry["id"], "file_path": entry["file_path"], "sentence": c}
                for n, entry in enumerate(CUHK_ENTRIES)
                if entry["split"] == name
                for c in entry["captions"]
            ]
            write_json(folder / "annotations" / f"{name}.json", {"annotations": entries})


FORMS = [
    "reid_raw.json",
    "caption_all.json",
    "processed_data/*.json",
    "annotations/*.json",
    "{split}_reid.json",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["CUHK-PEDES", "cuhkpedes", "."])
def test_every_layout_gives_the_same_records(tmp_path: Path, name: str, form: str) -> None:
    write_form(tmp_path / name, form)
    (tmp_path / name / "imgs").mkdir()

    with untouched(tmp_path):
        splits = read_cuhk_pedes(tmp_path)

    assert splits.layout == (form if name == "." else f"{name}/{form}")
    assert splits.image_folder == tmp_path / name / "imgs"
    for split in SPLITS:
        assert found(splits, split) == expected(split)


@pytest.mark.parametrize("form", FORMS)
def test_only_reid_raw_has_the_published_order_of_pairs(tmp_path: Path, form: str) -> None:
    write_form(tmp_path, form)

    splits = read_cuhk_pedes(tmp_path)

    assert splits.pair_order_is_published == (form == "reid_raw.json")
    told = [notice for notice in splits.notices if "data.noise_index" in notice]
    assert len(told) == (0 if form == "reid_raw.json" else 1)


def test_the_first_layout_that_matches_wins(tmp_path: Path) -> None:
    for name in ("CUHK-PEDES", "cuhkpedes", "."):
        for form in reversed(FORMS):
            write_form(tmp_path / name, form)

    order = []
    for name in ("CUHK-PEDES", "cuhkpedes", "."):
        for form in FORMS:
            order.append(read_cuhk_pedes(tmp_path).layout)
            for file in sorted((tmp_path / name).glob(form.replace("{split}", "*"))):
                file.unlink()

    assert order == [
        form if name == "." else f"{name}/{form}"
        for name in ("CUHK-PEDES", "cuhkpedes", ".")
        for form in FORMS
    ]


def test_a_record_says_where_it_comes_from(tmp_path: Path) -> None:
    write_form(tmp_path, "reid_raw.json")

    splits = read_cuhk_pedes(tmp_path)

    assert [record.origin for record in splits.train] == [
        "reid_raw.json, entry 0",
        "reid_raw.json, entry 2",
        "reid_raw.json, entry 3",
    ]


def test_published_counts_are_told_where_they_differ(tmp_path: Path) -> None:
    splits = read_cuhk_pedes(write_cuhk(tmp_path))

    assert splits.published == {
        "train": {"person_ids": 11_003, "images": 34_054, "captions": 68_126},
        "val": {"person_ids": 1_000, "images": 3_078, "captions": 6_158},
        "test": {"person_ids": 1_000, "images": 3_074, "captions": 6_156},
    }
    assert (
        "train has 2 person ids, expected 11,003; 3 images, expected 34,054; "
        "7 captions, expected 68,126." in splits.notices
    )


def test_a_synthetic_set_is_compared_with_its_own_counts(tmp_path: Path) -> None:
    write_cuhk(tmp_path)
    counts = {
        "train": {"person_ids": 2, "images": 3, "captions": 7},
        "val": {"person_ids": 1, "images": 1, "captions": 2},
        "test": {"person_ids": 2, "images": 2, "captions": 4},
    }
    content = {"dataset": "synthetic pedestrians", "splits": counts, "seed": 1}
    write_json(tmp_path / "expected_counts.json", content)

    splits = read_cuhk_pedes(tmp_path)

    assert splits.dataset == "synthetic pedestrians"
    assert splits.published == counts
    assert splits.notices == ()


@pytest.mark.parametrize(
    ("person_id", "split"),
    [(1, "train"), (11_003, "train"), (11_004, "val"), (12_003, "val"), (12_004, "test")],
)
def test_caption_all_is_split_by_id(tmp_path: Path, person_id: int, split: str) -> None:
    entry = {"id": person_id, "file_path": "a.jpg", "captions": ["A man."]}
    write_json(tmp_path / "caption_all.json", [entry])

    splits = read_cuhk_pedes(tmp_path)

    assert {name: len(splits.split(name)) for name in SPLITS} == {
        name: int(name == split) for name in SPLITS
    }
    assert any("splits follow from the person ids" in notice for notice in splits.notices)


@pytest.mark.parametrize("person_id", [0, 13_004, -1])
def test_caption_all_refuses_ids_that_are_not_published(tmp_path: Path, person_id: int) -> None:
    good = {"id": 1, "file_path": "a.jpg", "captions": ["A man."]}
    write_json(tmp_path / "caption_all.json", [good, good | {"id": person_id}])

    with pytest.raises(
        ValueError, match=rf"caption_all\.json, entry 1: `id` {person_id} "
    ) as error:
        read_cuhk_pedes(tmp_path)

    assert "write reid_raw.json with `split`" in str(error.value)


def test_reid_raw_without_splits_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "reid_raw.json", [CUHK_ENTRIES[0], without(CUHK_ENTRIES[1], "split")])

    with pytest.raises(ValueError, match=r"reid_raw\.json, entry 1: `split`.*missing") as error:
        read_cuhk_pedes(tmp_path)

    assert "caption_all.json under another name" in str(error.value)


def test_a_split_that_lacks_its_file_is_named(tmp_path: Path) -> None:
    write_form(tmp_path, "processed_data/*.json")
    (tmp_path / "processed_data" / "val.json").unlink()

    with pytest.raises(FileNotFoundError, match=r"processed_data/val\.json is missing") as error:
        read_cuhk_pedes(tmp_path)

    assert "put reid_raw.json or caption_all.json" in str(error.value)


def test_files_of_splits_that_were_mixed_up_are_refused(tmp_path: Path) -> None:
    write_form(tmp_path, "processed_data/*.json")
    write_json(tmp_path / "processed_data" / "val.json", of_split("test"))

    with pytest.raises(ValueError, match=r"val\.json: 2 problems:\n  entry 0: `split` is test"):
        read_cuhk_pedes(tmp_path)


def test_annotations_without_sentences_are_refused(tmp_path: Path) -> None:
    for name in SPLITS:
        entries = [{"image_id": 0, "id": 1, "file_path": "a.jpg", "onehot": [4, 7, 1]}]
        write_json(tmp_path / "annotations" / f"{name}.json", {"annotations": entries})

    with pytest.raises(ValueError, match=r"train\.json holds only token numbers .* reid_raw\.json"):
        read_cuhk_pedes(tmp_path)


def test_a_pickle_is_recognised_and_not_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "opened",))

    for name in SPLITS:
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(Bomb()))

    with pytest.raises(ValueError, match=r"train\.pkl is a pickle .* Put the reid_raw\.json"):
        read_cuhk_pedes(tmp_path)

    assert not (tmp_path / "opened").exists()


def test_an_unknown_folder_is_told_with_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "imgs").mkdir()
    (tmp_path / "readme.txt").touch()

    with pytest.raises(FileNotFoundError, match="No annotation file of CUHK-PEDES") as error:
        read_cuhk_pedes(tmp_path)

    message = str(error.value)
    assert f"data.root={tmp_path}" in message
    assert "Looked for reid_raw.json, caption_all.json, " in message
    assert "there and in CUHK-PEDES/ or cuhkpedes/; " in message
    assert "the folder holds imgs/, readme.txt." in message
    assert "ask its authors" in message


def test_a_root_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data\.root=.*nowhere is not a folder. Pass"):
        read_cuhk_pedes(tmp_path / "nowhere")


def test_missing_images_do_not_stop_the_reader(tmp_path: Path) -> None:
    (tmp_path / "reid_raw.json").write_text(json.dumps(CUHK_ENTRIES))

    splits = read_cuhk_pedes(tmp_path)

    assert splits.train[0].image_path == tmp_path / "imgs" / "Market" / "b1.jpg"
