"""Files and folders that a configuration names and that are not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crosswalk.config.compose import compose
from crosswalk.config.paths import check_paths, read_annotations
from crosswalk.config.plain import to_plain


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [
        (["data=own_pairs"], "pairs"),
        (["method=mmcl", "data=own_images"], "images"),
        (["method=mar", "data=msmt17_to_market1501"], "transfer"),
    ],
)
def test_a_folder_that_is_missing_is_asked_for_at_once(overrides: list[str], kind: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"data\.root is missing.*data=synthetic_{kind}"):
        check_paths(to_plain(compose(overrides)))


def test_only_data_of_this_package_are_asked_for_a_root() -> None:
    node = to_plain(compose(["data=own_pairs"]))["data"]
    own = {"_target_": "own_package.data.OwnData", "reader": node["reader"]}

    check_paths({"data": own})
    check_paths({"data": {**own, "inner": {**node, "root": "."}}})
    for data in (node, {**own, "inner": node}):
        with pytest.raises(FileNotFoundError, match=r"^data\.root is missing"):
            check_paths({"data": data})


@pytest.mark.parametrize(
    ("data", "own"),
    [("own_pairs", "your table, .csv or .jsonl, or its folder"), ("own_images", "your .csv, or a")],
)
def test_data_of_ones_own_are_asked_for_as_what_they_are(data: str, own: str) -> None:
    method = "rde" if data == "own_pairs" else "mmcl"

    with pytest.raises(FileNotFoundError, match=rf"Pass data\.root=<{own}"):
        check_paths(to_plain(compose([f"method={method}", f"data={data}"])))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("sets/my_pair.csv", "sets/my pairs.csv"),
        ("set/my pairs.csv", "sets/my pairs.csv"),
        ("other/my pairs.csv", None),
    ],
)
def test_a_path_that_is_misspelt_is_guessed(tmp_path: Path, typed: str, meant: str | None) -> None:
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets/my pairs.csv").touch()
    question = "" if meant is None else f" Did you mean {tmp_path / meant}?"

    with pytest.raises(FileNotFoundError) as raised:
        check_paths({"data": {"root": str(tmp_path / typed)}})
    assert f"{typed} does not exist.{question} Correct the path" in str(raised.value)


def test_a_folder_without_generated_people_names_no_authors(tmp_path: Path) -> None:
    data = to_plain(compose([f"data.root={tmp_path}"]))["data"]

    with pytest.raises(FileNotFoundError, match="is no set of generated people"):
        read_annotations(data)
    with pytest.raises(FileNotFoundError, match="ask its authors"):
        read_annotations({**data, "synthetic": None})


def test_a_data_set_is_not_read_as_generated_people(tmp_path: Path) -> None:
    entry = {"split": "train", "file_path": "a.jpg", "id": 1, "captions": ["A man in red."]}
    (tmp_path / "imgs").mkdir()
    (tmp_path / "reid_raw.json").write_text(json.dumps([entry]))
    data = to_plain(compose([f"data.root={tmp_path}"]))["data"]

    with pytest.raises(ValueError, match=r"holds CUHK-PEDES, .* Name the data set: data=cuhk_ped"):
        read_annotations(data)


def test_an_empty_root_is_no_folder() -> None:
    with pytest.raises(FileNotFoundError, match=r"data\.root= is empty; .* Name the folder\.$"):
        check_paths(to_plain(compose(["data=cuhk_pedes", "data.root=''"])))
    with pytest.raises(FileNotFoundError, match=r"Name the folder, or leave data\.root out\.$"):
        check_paths(to_plain(compose(["data=synthetic_pairs", "data.root=''"])))


def test_of_two_sets_the_one_that_is_missing_is_told(tmp_path: Path) -> None:
    (tmp_path / "Market-1501" / "bounding_box_train").mkdir(parents=True)
    config = compose(["method=mar", "data=msmt17_to_market1501", f"data.root={tmp_path}"])

    with pytest.raises(FileNotFoundError, match=r"MSMT17 .*data\.source\.root=") as raised:
        read_annotations(to_plain(config)["data"])
    assert "looks like" not in str(raised.value)
