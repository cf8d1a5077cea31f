from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from crosswalk.config.search import group_values
from crosswalk.data.readers.market1501 import read_market1501
from crosswalk.data.readers.own_images import read_own_images
from crosswalk.data.readers.records import ImageSplits, Record
from crosswalk.doctor.findings import Finding, Report
from crosswalk.doctor.images import image_set_findings, images_by_camera, table_columns
from crosswalk.doctor.pairs import SOURCES, check, detect, run_check
from tests.unit.data.trees import untouched, write_cuhk, write_image, write_images, write_json

MARKET = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0002_c2s1_000776_01.jpg"],
    "query": ["0001_c1s1_001051_00.jpg", "0003_c2s1_001051_00.jpg"],
    "bounding_box_test": [
        "0001_c2s1_001051_01.jpg",
        "0003_c1s1_001051_01.jpg",
        "0003_c2s1_001051_01.jpg",
        "0000_c1s1_001051_01.jpg",
        "-1_c1s1_001051_01.jpg",
    ],
}
COUNTS = {
    "train": {"person_ids": 1, "images": 2},
    "query": {"person_ids": 2, "images": 2},
    "gallery": {"person_ids": 3, "images": 4},
}
IMAGES = "MSMT17_V1/{}/0000/0000_00{}_0{}_0303morning_0008_0.jpg"


def write_market(folder: Path, files: dict[str, list[str]] = MARKET) -> Path:
    """Write a set that is laid out like Market-1501; every picture is another one."""
    names = [f"{part}/{name}" for part, names in files.items() for name in names]
    write_images(folder, names)
    return folder


def write_msmt17(root: Path) -> Path:
    """Person 0 of train and person 0 of test, who are two people, by cameras 1 and 2."""
    for name, part, number, camera in (
        ("train", "train", 0, 1),
        ("val", "train", 1, 2),
        ("query", "test", 0, 1),
        ("gallery", "test", 1, 2),
    ):
        path = root / IMAGES.format(part, number, camera)
        write_image(path, seed=number + 2 * (part == "test"))
        inside = path.relative_to(root / "MSMT17_V1" / part).as_posix()
        (root / "MSMT17_V1" / f"list_{name}.txt").write_text(f"{inside} 0\n")
    return root / "MSMT17_V1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete set like Market-1501 that brings its own counts."""
    write_market(tmp_path / "market1501")
    counts = {"dataset": "small market", "layout": "market1501", "splits": COUNTS}
    write_json(tmp_path / "market1501" / "expected_counts.json", counts)
    return tmp_path / "market1501"


def findings(report: Report) -> dict[str, Finding]:
    return {finding.code: finding for finding in report.findings}


def test_a_complete_set_has_no_findings_and_a_command_to_train_on_it(folder: Path) -> None:
    with untouched(folder.parent):
        report = check(folder.parent)

    assert report.findings == ()
    assert report.dataset == "small market"
    assert report.layout == "market1501/bounding_box_*"
    assert report.counts == {
        "train": {"person_ids": 1, "images": 2, "cameras": 2, "junk": 0},
        "query": {"person_ids": 2, "images": 2, "cameras": 2, "junk": 0},
        "gallery": {"person_ids": 3, "images": 4, "cameras": 2, "junk": 1},
    }
    assert report.cameras == {
        "1": {"train": 1, "query": 1, "gallery": 2},
        "2": {"train": 1, "query": 1, "gallery": 2},
    }
    assert any("1 distractor " in notice and "1 junk" in notice for notice in report.notices)
    assert any("none in bounding_box_train_camstyle/" in notice for notice in report.notices)
    command = f"crosswalk train method=mmcl data=market1501 data.root={folder.parent}"
    assert report.command == command
    text = report.to_text()
    assert text.endswith(f"No problems found in small market.\nTrain on it: {command}\n")
    assert "split    identities  images  cameras  junk\ntrain             1       2" in text
    assert "camera  train  query  gallery\n1           1      1        2\n" in text


def test_counts_are_compared_with_the_published_ones(folder: Path) -> None:
    (folder / "expected_counts.json").unlink()

    report = check(folder)

    assert report.dataset == "Market-1501"
    assert list(findings(report)) == ["counts"]
    assert "gallery has 3 person ids, expected 751; 4 images, expected 15,913." in (
        findings(report)["counts"].items
    )
    assert "2 (expected 12,936)" in report.to_text()


def test_broken_images_are_named_and_stop_the_command(folder: Path) -> None:
    cut = folder / "query/0001_c1s1_001051_00.jpg"
    cut.write_bytes(cut.read_bytes()[:200])
    (folder / "bounding_box_test/0001_c2s1_001051_01.jpg").write_bytes(b"")

    report = check(folder)

    assert report.status == 1
    assert list(findings(report)) == ["empty", "truncated"]
    assert report.sources["query"]["truncated"] == 1
    assert report.command == ""


@pytest.mark.parametrize(
    ("inner", "train", "expected"),
    [
        ("", "0002_c1s1_000451_03.jpg", "market1501"),
        ("", "0005_c2_f0046985.jpg", "dukemtmc"),
        ("", "0000_c14_0030.jpg", "market1501"),
        ("Duke-copy", "0005_c2_7.jpg", "dukemtmc"),
        ("my-msmt17", "0005_c2_7.jpg", "msmt17"),
        ("duke", "0002_c1s1_000451_03.jpg", "market1501"),
        ("Occluded_Duke", "0005_c2_f0046985.jpg", "occluded_duke"),
        ("Occluded_Duke", "0002_c1s1_000451_03.jpg", "market1501"),
    ],
)
def test_sets_laid_out_like_market_are_told_apart(
    tmp_path: Path, inner: str, train: str, expected: str
) -> None:
    for part in MARKET:
        write_image(tmp_path / inner / part / train)

    assert detect(tmp_path / inner) == [expected]


@pytest.mark.parametrize("layout", ["market1501", "dukemtmc", "msmt17"])
def test_a_generated_set_says_what_it_is(tmp_path: Path, layout: str) -> None:
    write_market(tmp_path)
    write_json(tmp_path / "expected_counts.json", {"layout": layout, "splits": {}})

    assert detect(tmp_path) == [layout]


def test_sets_of_other_names_lie_side_by_side(tmp_path: Path) -> None:
    write_cuhk(tmp_path / "CUHK-PEDES")
    write_market(tmp_path / "market")
    write_market(tmp_path / "duke")
    write_market(tmp_path / "msmt17")
    write_market(tmp_path / "Occluded_Duke")

    assert detect(tmp_path) == ["cuhk_pedes", "market1501", "dukemtmc", "msmt17", "occluded_duke"]


def test_every_data_set_that_is_read_can_be_checked() -> None:
    published = {name for name in group_values("data") if not re.search("_to_|synthetic", name)}

    assert set(SOURCES) == published


def test_ids_of_msmt17_may_restart_in_test(tmp_path: Path) -> None:
    write_msmt17(tmp_path)

    report = check(tmp_path)

    assert list(findings(report)) == ["counts"]
    assert report.counts["train"]["images"] == 2
    assert any("different people" in notice for notice in report.notices)
    assert any("train_split=trainval" in notice for notice in report.notices)
    assert "data=msmt17" in report.command


def test_an_image_that_a_list_names_but_nobody_has_is_missing(tmp_path: Path) -> None:
    folder = write_msmt17(tmp_path)
    (tmp_path / IMAGES.format("test", 1, 2)).unlink()

    report = check(tmp_path)

    missing = findings(report)["missing"]
    assert missing.items == (
        f"{tmp_path / IMAGES.format('test', 1, 2)} (list_gallery.txt, line 1): no such file in its "
        "folder",
    )
    assert report.sources["test"] == {
        "images": 2,
        **{"missing": 1, "empty": 0, "truncated": 0, "corrupt": 0},
    }
    assert str(folder) == report.root


@pytest.mark.parametrize("name", ["duke", "Occluded_Duke"])
def test_dukemtmc_is_named_as_withdrawn(tmp_path: Path, name: str) -> None:
    for part in MARKET:
        write_image(tmp_path / name / part / "0005_c2_f0046985.jpg")

    report = check(tmp_path)

    assert any("withdrawn by Duke University" in notice for notice in report.notices)


def test_a_person_in_train_and_test_is_an_error(folder: Path) -> None:
    write_image(folder / "bounding_box_train/0003_c1s1_000451_03.jpg", seed=70)

    report = check(folder)

    shared = findings(report)["identity_in_two_splits"]
    assert (shared.severity, shared.items) == ("error", ("3",))
    assert shared.message == "1 identity is in both train and test."


def test_queries_that_nothing_answers_are_counted_by_cause(folder: Path) -> None:
    write_image(folder / "query/0009_c1s1_000451_00.jpg", seed=70)
    (folder / "bounding_box_test/0003_c1s1_001051_01.jpg").unlink()

    report = check(folder)

    lost = findings(report)["query_without_match"]
    assert lost.severity == "warning"
    assert lost.message.startswith("2 of 3 images of query have no match")
    assert "the person of 1 is not in the gallery" in lost.message
    assert "the person of 1 is there by the camera of the query only" in lost.message
    assert "data.camera_rule=false" in lost.next_step
    assert [item.partition(" (")[2] for item in lost.items] == [
        "person 9, camera 1)",
        "person 3, camera 2)",
    ]


def test_a_set_whose_queries_all_lack_matches_is_an_error(folder: Path) -> None:
    for name in ("0001_c2s1_001051_01.jpg", "0003_c1s1_001051_01.jpg"):
        (folder / "bounding_box_test" / name).unlink()

    lost = findings(check(folder))["query_without_match"]

    assert lost.severity == "error"
    assert "Nothing can be measured" in lost.next_step


@pytest.mark.parametrize(("camera_id", "expected"), [(-1, []), (1, ["query_without_match"])])
def test_images_by_unknown_cameras_are_never_ignored(camera_id: int, expected: list[str]) -> None:
    query = (Record(Path("/nowhere/a.jpg"), 3, camera_id),)
    gallery = (Record(Path("/nowhere/b.jpg"), 3, camera_id),)
    splits = ImageSplits("own", Path("/nowhere"), ".", (), query, gallery)

    assert [each.code for each in image_set_findings(splits, "own_images")] == expected


def test_an_unknown_camera_stands_last_in_the_table() -> None:
    train = tuple(Record(Path(f"{n}.jpg"), 1, camera) for n, camera in enumerate([10, -1, 2, 10]))

    table = images_by_camera(ImageSplits("own", Path(), ".", train, (), ()))

    assert list(table.items()) == [
        ("2", {"train": 1}),
        ("10", {"train": 2}),
        ("unknown", {"train": 1}),
    ]


def test_the_same_picture_of_two_people_or_in_train_and_test_is_told(folder: Path) -> None:
    train, gallery = folder / "bounding_box_train", folder / "bounding_box_test"
    shutil.copy(train / "0002_c1s1_000451_03.jpg", gallery / "0007_c1s1_000001_01.jpg")
    shutil.copy(gallery / "0001_c2s1_001051_01.jpg", gallery / "0001_c2s1_001051_02.jpg")

    found = findings(check(folder))

    assert found["same_picture"].severity == found["repeated_picture"].severity == "warning"
    assert found["same_picture"].items == (
        f"{train}/0002_c1s1_000451_03.jpg (train, person 2) = "
        f"{gallery}/0007_c1s1_000001_01.jpg (gallery, person 7)",
    )
    assert found["repeated_picture"].items == (
        f"{gallery}/0001_c2s1_001051_01.jpg (gallery, person 1) = "
        f"{gallery}/0001_c2s1_001051_02.jpg (gallery, person 1)",
    )


STYLED = ("0002_c1s1_000451_03_fake_1to2.jpg", "0002_c2s1_000776_01_fake_2to1.jpg")


def test_camera_style_images_are_counted_and_decoded(folder: Path) -> None:
    write_images(folder / "bounding_box_train_camstyle", STYLED)

    whole = check(folder)
    (folder / "bounding_box_train_camstyle" / STYLED[1]).write_bytes(b"<html>")
    broken = check(folder)

    assert whole.findings == ()
    assert any("Camera-style images: 2 in" in notice for notice in whole.notices)
    assert whole.sources["bounding_box_train_camstyle"]["images"] == 2
    assert [image.path.name for image in broken.images] == [STYLED[1]]
    assert findings(broken)["corrupt"].severity == "error"


def test_camera_style_images_that_are_incomplete_are_told(folder: Path) -> None:
    write_images(folder / "bounding_box_train_camstyle", STYLED[:1])

    found = findings(check(folder))["camera_style"]

    assert found.severity == "warning"
    assert "lacks 1 of 2 camera-style images: " + STYLED[1] in found.items[0]
    assert "data.camstyle=off" in found.next_step


def test_own_images_in_folders_are_found_and_checked(tmp_path: Path) -> None:
    write_images(
        tmp_path,
        [
            *("train/anna/c1_1.png", "train/anna/c2_1.png"),
            *("query/ben/c1_1.png", "gallery/ben/c2_1.png"),
        ],
    )

    report = check(tmp_path)

    assert detect(tmp_path) == ["own_images"]
    assert list(findings(report)) == ["one_person"]  # ben alone is looked for
    assert not any("amera-style" in text for text in report.notices)
    assert report.dataset == "own images"
    assert report.expected_from == ""
    assert f"data=own_images data.root={tmp_path}" in report.command


def test_own_images_of_a_table_may_be_query_and_gallery_at_once(tmp_path: Path) -> None:
    rows = "a.png,1,1,query\na.png,1,1,gallery\nb.png,1,2,gallery\nc.png,2,1,train\n"
    table = tmp_path / "images.csv"
    table.write_text("path,person_id,camera_id,split\n" + rows)
    write_images(tmp_path, ["a.png", "c.png"])

    report = check(table)

    assert detect(table) == detect(tmp_path) == ["own_images"]
    assert list(findings(report)) == ["missing", "one_person"]
    assert findings(report)["missing"].items == (
        f"{tmp_path / 'b.png'} (images.csv, line 4): no such file in its folder",
    )


def test_queries_that_are_in_the_gallery_without_a_camera_are_warned_of(tmp_path: Path) -> None:
    rows = "a.png,1,,query\na.png,1,,gallery\nb.png,1,,gallery\nc.png,2,,query\nd.png,2,,gallery\n"
    table = tmp_path / "images.csv"
    table.write_text("path,person_id,camera_id,split\n" + rows)
    write_images(tmp_path, ["a.png", "b.png", "c.png"])
    shutil.copy(tmp_path / "c.png", tmp_path / "d.png")

    found = findings(check(table))

    assert found["query_in_gallery"].severity == "warning"
    assert found["query_in_gallery"].items == (str(tmp_path / "a.png"), str(tmp_path / "c.png"))
    assert "person of 1 is not in the gallery, or only as the query itself" in (
        found["query_without_match"].message
    )


def test_a_set_without_train_or_test_gets_no_command(tmp_path: Path) -> None:
    write_images(tmp_path, ["query/1/c1_1.png", "gallery/1/c2_1.png"])

    report = check(tmp_path)

    assert report.status == 0
    assert report.command == ""


def test_captions_beside_a_folder_of_images_are_own_pairs(tmp_path: Path) -> None:
    write_images(tmp_path, ["train/1.png"])
    (tmp_path / "pairs.csv").write_text(
        "image,caption,person_id,split\ntrain/1.png,A man.,1,train\n"
    )

    assert detect(tmp_path) == ["own_pairs"]
    assert table_columns(tmp_path / "pairs.csv") == {"image", "caption", "person_id", "split"}


def test_folders_without_images_are_nothing(tmp_path: Path) -> None:
    (tmp_path / "train" / "1").mkdir(parents=True)

    assert detect(tmp_path) == []


def test_a_missing_part_is_an_error_of_the_reader(tmp_path: Path) -> None:
    write_market(tmp_path / "market", {"bounding_box_train": MARKET["bounding_box_train"]})

    report = check(tmp_path)

    assert report.status == 1
    assert findings(report)["annotation"].message.count("is missing") == 1


@pytest.mark.parametrize("name", ["market1501", "Market-1501"])
def test_the_report_in_a_file_holds_cameras_and_command(
    folder: Path, tmp_path: Path, name: str
) -> None:
    target = tmp_path / "report.json"

    status = run_check(str(folder), dataset=name, json_path=str(target))

    content = json.loads(target.read_text())
    assert status == content["status"] == 0
    assert content["cameras"]["2"]["gallery"] == 2
    assert content["command"].startswith("crosswalk train method=mmcl data=market1501")


@pytest.mark.parametrize("table", [False, True])
def test_own_images_without_labels_are_checked(tmp_path: Path, table: bool) -> None:
    images = ["train/a.jpg", "train/b_c2.jpg", "query/0001_c1.jpg", "gallery/0001_c2.jpg"]
    write_images(tmp_path, images)
    shutil.copy(tmp_path / "train" / "a.jpg", tmp_path / "train" / "d.jpg")
    if table:
        rows = [f"{name},,,train" for name in ("train/a.jpg", "train/b_c2.jpg", "train/d.jpg")]
        rows += ["query/0001_c1.jpg,1,1,query", "gallery/0001_c2.jpg,1,2,gallery"]
        (tmp_path / "images.csv").write_text("\n".join(["path,person_id,camera_id,split", *rows]))

    report = check(tmp_path / "images.csv" if table else tmp_path)

    assert report.counts["train"]["person_ids"] == 0
    assert report.counts["train"]["images"] == 3
    assert any(note.startswith("None of the 3 training images") for note in report.notices)
    assert list(findings(report)) == ["one_person", "repeated_picture"]
    found = findings(report)["repeated_picture"]
    assert found.severity == "warning"
    assert found.message == "1 picture is there under several names."
    assert found.items[0].count("(train, person unknown)") == 2
    assert "method=mmcl data=own_images" in report.command


def test_people_are_called_what_their_owner_calls_them(tmp_path: Path) -> None:
    for name in ("train/anna/c1_1.png", "query/anna/c1_2.png", "gallery/ben/c2_3.png"):
        write_image(tmp_path / name, seed=len(name))
    write_image(tmp_path / "gallery/0005/c1_1.png", seed=len("train/anna/c1_1.png"))

    told = findings(check(tmp_path))

    assert told["identity_in_two_splits"].items == ("anna",)
    assert "person anna, camera 1)" in told["query_without_match"].items[0]
    assert "(train, person anna)" in told["same_picture"].items[0]
    assert "(gallery, person 0005)" in told["same_picture"].items[0]


@pytest.mark.parametrize("names", [("cam0", "cam1"), ("C_1", "camera-02")])
def test_folders_of_cameras_are_no_persons(tmp_path: Path, names: tuple[str, str]) -> None:
    for number, name in enumerate(names):
        write_image(tmp_path / "train" / name / "a.jpg", seed=number)

    report = check(tmp_path)

    told = findings(report)["person_like_camera"]
    assert (told.severity, sorted(told.items)) == ("warning", sorted(names))
    assert "train/0002/c1_17.jpg" in told.next_step
    assert any("named like cameras" in notice for notice in report.notices)


@pytest.mark.parametrize("part", ["bounding_box_train", "query"])
def test_a_part_of_a_data_set_suggests_the_folder_above(folder: Path, part: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"did you mean {folder} \("):
        check(folder / part)
    with pytest.raises(FileNotFoundError, match=rf"Did you mean the folder above, .*={folder}\?"):
        read_market1501(folder / part)


def test_a_split_of_own_images_suggests_the_folder_above(tmp_path: Path) -> None:
    write_image(tmp_path / "train" / "0002_c1_1.jpg")

    with pytest.raises(FileNotFoundError, match=rf"did you mean {tmp_path} \(own images\)\?"):
        check(tmp_path / "train")
    with pytest.raises(FileNotFoundError, match=rf"Did you mean the folder above, .*={tmp_path}\?"):
        read_own_images(tmp_path / "train")
