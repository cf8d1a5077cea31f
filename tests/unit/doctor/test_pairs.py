import json
import os
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from crosswalk.cli import main
from crosswalk.data.readers.own_pairs import read_own_pairs
from crosswalk.doctor.findings import Finding, Report, print_report
from crosswalk.doctor.pairs import check, detect, run_check
from tests.unit.data.trees import (
    CUHK_ENTRIES,
    Entry,
    untouched,
    write_cuhk,
    write_image,
    write_images,
    write_json,
)
from tests.unit.narrow import WIDTHS, plain, terminal

COUNTS = {
    "train": {"person_ids": 2, "images": 3, "captions": 7},
    "val": {"person_ids": 1, "images": 1, "captions": 2},
    "test": {"person_ids": 2, "images": 2, "captions": 4},
}


def words(captions: Sequence[str]) -> list[int]:
    """Count words and CLIP's start and end token: quicker than CLIP's tokenizer."""
    return [len(caption.split()) + 2 for caption in captions]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete data set that brings its own counts."""
    write_cuhk(tmp_path / "CUHK-PEDES")
    counts = {"dataset": "synthetic pedestrians", "splits": COUNTS, "seed": 1}
    write_json(tmp_path / "CUHK-PEDES" / "expected_counts.json", counts)
    return tmp_path / "CUHK-PEDES"


def changed(index: int, **values: object) -> list[Entry]:
    entries = [dict(entry) for entry in CUHK_ENTRIES]
    entries[index].update(values)
    return entries


def only(report: Report) -> Finding:
    assert len(report.findings) == 1, report.to_text()
    return report.findings[0]


def test_a_complete_set_has_no_findings(folder: Path) -> None:
    with untouched(folder.parent):
        report = check(folder.parent, token_lengths=words)

    assert report.findings == ()
    assert report.status == 0
    assert report.dataset == "synthetic pedestrians"
    assert report.layout == "CUHK-PEDES/reid_raw.json"
    assert report.counts == report.expected == COUNTS
    assert report.expected_from == "expected_counts.json"
    assert len(report.fingerprint) == 64
    assert "\nNo problems found in synthetic pedestrians.\n" in report.to_text()
    assert report.command == f"crosswalk train method=rde data=cuhk_pedes data.root={folder.parent}"


def test_other_counts_than_the_own_ones_are_a_warning(folder: Path) -> None:
    write_json(folder / "reid_raw.json", CUHK_ENTRIES[:-1])

    report = check(folder, token_lengths=words)

    assert report.status == 0
    assert only(report).code == "counts"
    assert only(report).items == (
        "test has 1 person ids, expected 2; 1 images, expected 2; 2 captions, expected 4.",
    )
    assert "crosswalk data synthesize" in only(report).next_step


def test_other_counts_than_the_published_ones_are_a_warning(folder: Path) -> None:
    (folder / "expected_counts.json").unlink()

    report = check(folder, token_lengths=words)

    assert report.status == 0
    assert report.expected_from == "published"
    assert only(report).message == "The counts are not as published."
    assert "3 (expected 34,054)" in report.to_text()


def test_every_kind_of_broken_image_is_named_and_grouped(folder: Path) -> None:
    images = folder / "imgs"
    (images / "Market/b1.jpg").unlink()
    (images / "Market/b2.jpg").write_bytes(b"")
    (images / "test_query/t1.jpg").write_bytes(b"<html>")
    whole = (images / "test_query/t2.jpg").read_bytes()
    (images / "test_query/t2.jpg").write_bytes(whole[: len(whole) // 2])

    with untouched(folder):
        report = check(folder, token_lengths=words)

    assert report.status == 1
    assert [finding.code for finding in report.findings] == [
        "missing",
        "empty",
        "truncated",
        "corrupt",
    ]
    assert {image.path.name: image.kind for image in report.images} == {
        "b1.jpg": "missing",
        "b2.jpg": "empty",
        "t1.jpg": "corrupt",
        "t2.jpg": "truncated",
    }
    assert report.sources["Market"] == {
        "images": 2,
        "missing": 1,
        "empty": 1,
        "truncated": 0,
        "corrupt": 0,
    }
    assert all("data.allow_missing=true" in finding.next_step for finding in report.findings)
    text = report.to_text()
    assert f"{images / 'Market/b1.jpg'} (reid_raw.json, entry 0): no such file" in text
    assert "4 errors, 0 warnings" in text


def test_a_source_folder_that_is_gone_is_asked_for(folder: Path) -> None:
    shutil.rmtree(folder / "imgs" / "Market")

    report = check(folder, token_lengths=words)

    assert only(report).message == "2 images are missing."
    assert "Nothing of Market is there: the archive was incomplete" in only(report).next_step


def test_a_set_without_any_image_says_where_to_put_them(folder: Path) -> None:
    shutil.rmtree(folder / "imgs")

    report = check(folder, token_lengths=words)

    assert only(report).next_step == f"No image is there: unpack the images into {folder / 'imgs'}."


def test_a_person_in_two_splits_is_an_error(folder: Path) -> None:
    write_json(folder / "reid_raw.json", changed(4, id=2))

    report = check(folder, token_lengths=words)

    assert report.status == 1
    assert only(report).code == "identity_in_two_splits"
    assert only(report).message == "1 identity is in both train and test."
    assert only(report).items == ("2",)


def test_an_image_in_two_splits_is_an_error(folder: Path) -> None:
    write_json(folder / "reid_raw.json", changed(1, file_path="Market/b1.jpg"))

    report = check(folder, token_lengths=words)

    assert report.status == 1
    assert only(report).code == "image_in_two_splits"
    assert only(report).items == (f"{folder}/imgs/Market/b1.jpg (train, val)",)


def test_an_image_named_twice_in_a_split_is_a_warning(folder: Path) -> None:
    write_json(folder / "reid_raw.json", changed(3, file_path="Market/b1.jpg"))

    report = check(folder, token_lengths=words)

    assert report.status == 0
    assert only(report).code == "repeated_image"


def test_an_empty_caption_is_an_error_that_names_its_entry(folder: Path) -> None:
    write_json(folder / "reid_raw.json", changed(3, captions=["A man again.", "  "]))

    report = check(folder, token_lengths=words)

    assert report.status == 1
    assert only(report).code == "empty_caption"
    assert only(report).items == (f"{folder}/imgs/Market/b2.jpg (reid_raw.json, entry 3)",)


def test_a_caption_of_several_people_is_a_warning(folder: Path) -> None:
    write_json(folder / "reid_raw.json", changed(4, captions=[" A boy.", "A man in red."]))

    report = check(folder, token_lengths=words)

    assert report.status == 0
    assert only(report).message == "2 captions are attached to several identities."
    assert only(report).items == (
        '"A man in red.": train 2, test 12004',
        '"A boy.": train 1, test 12004',
    )


def test_a_caption_repeated_by_one_person_is_fine(folder: Path) -> None:
    write_json(folder / "reid_raw.json", changed(3, captions=["A man in red.", "New."]))

    assert check(folder, token_lengths=words).findings == ()


@pytest.mark.parametrize(("num_words", "truncated"), [(75, 0), (76, 1), (300, 1)])
def test_captions_longer_than_clip_reads_are_a_warning(
    folder: Path, num_words: int, truncated: int
) -> None:
    long = " ".join(["red"] * num_words)
    write_json(folder / "reid_raw.json", changed(0, captions=[long, "A man."]))

    report = check(folder)

    assert report.status == 0
    codes = [finding.code for finding in report.findings]
    assert codes == ["truncated_caption"] * truncated
    if truncated:
        assert only(report).items[0].startswith(f'{num_words + 2} tokens: "red red')
        assert "77 tokens that CLIP reads" in only(report).message
        assert "whole words count otherwise" in only(report).next_step


def test_letters_of_another_script_are_a_warning(folder: Path) -> None:
    captions = ["A man 穿着红色 coat.", "A naïve café visitor: 100 %."]
    write_json(folder / "reid_raw.json", changed(0, captions=captions))

    report = check(folder, token_lengths=words)

    assert report.status == 0
    assert only(report).code == "foreign_script"
    assert only(report).items == ('"A man 穿着红色 coat." (reid_raw.json, entry 0)',)


def test_a_broken_annotation_is_an_error_that_names_the_entry(folder: Path) -> None:
    write_json(folder / "reid_raw.json", changed(4, captions=[]))

    report = check(folder.parent, token_lengths=words)

    assert report.status == 1
    assert only(report).code == "annotation"
    assert "reid_raw.json, entry 4: `captions`" in only(report).message
    assert report.root == str(folder)


def write_icfg(folder: Path, test_id: int) -> None:
    entries = [
        {"split": split, "id": person_id, "file_path": f"{n}.jpg", "captions": [f"Caption {n}."]}
        for n, (split, person_id) in enumerate([("train", 0), ("train", 1), ("test", test_id)])
    ]
    write_json(folder / "ICFG_PEDES.json", entries)
    write_images(folder, ["0.jpg", "1.jpg", "2.jpg"])


@pytest.mark.parametrize(("test_id", "status"), [(3102, 0), (0, 0), (1, 1)])
def test_ids_of_icfg_may_restart_in_test(tmp_path: Path, test_id: int, status: int) -> None:
    write_icfg(tmp_path, test_id)

    report = check(tmp_path, "icfg_pedes", token_lengths=words)

    assert report.status == status
    codes = {finding.code: finding.severity for finding in report.findings}
    if test_id == 0:
        assert codes["identity_in_two_splits"] == "warning"
    assert any("no val split" in notice for notice in report.notices)


def write_rstp(folder: Path) -> None:
    name = "0000_c1_0001.jpg"
    entry = {"split": "train", "id": 0, "img_path": name, "captions": ["A man.", "He runs."]}
    write_json(folder / "data_captions.json", [entry])
    write_images(folder / "imgs", [name])


def test_the_data_set_is_found_out(tmp_path: Path) -> None:
    write_icfg(tmp_path / "a", 3102)
    write_rstp(tmp_path / "b")
    write_cuhk(tmp_path / "c")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "pairs.csv").touch()
    (tmp_path / "e").mkdir()

    found = {name: detect(tmp_path / name) for name in "abcde"}

    assert found == {
        "a": ["icfg_pedes"],
        "b": ["rstp_reid"],
        "c": ["cuhk_pedes"],
        "d": ["own_pairs"],
        "e": [],
    }


def test_one_file_per_split_does_not_hide_the_annotation_of_another_set(tmp_path: Path) -> None:
    write_icfg(tmp_path, 3102)
    write_json(tmp_path / "processed_data" / "train.json", [])

    assert detect(tmp_path) == ["icfg_pedes"]


def test_all_sets_below_a_root_are_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "datasets"
    write_cuhk(root / "CUHK-PEDES")
    write_icfg(root / "ICFG-PEDES", 1)
    write_rstp(root / "RSTPReid")

    with untouched(root):
        status = run_check(str(root), json_path=str(tmp_path / "report.json"))

    assert status == 1
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["status"] == 1
    assert [(report["dataset"], report["status"]) for report in content["reports"]] == [
        ("CUHK-PEDES", 0),
        ("ICFG-PEDES", 1),
        ("RSTPReid", 0),
    ]
    out = capsys.readouterr().out
    assert "1 error, 1 warning in ICFG-PEDES." in out
    assert "0 errors, 1 warning in RSTPReid." in out


def test_several_sets_in_one_report_are_refused(tmp_path: Path) -> None:
    write_cuhk(tmp_path / "CUHK-PEDES")
    write_rstp(tmp_path / "RSTPReid")

    with pytest.raises(ValueError, match=r"several data sets: cuhk_pedes, rstp_reid.*--dataset"):
        check(tmp_path)


@pytest.mark.parametrize("name", ["cuhk_pedes", "CUHK-PEDES", "synthetic_pairs"])
def test_a_data_set_can_be_named_in_several_ways(folder: Path, name: str) -> None:
    assert check(folder, name, token_lengths=words).status == 0


def test_of_a_table_that_is_not_read_no_folder_of_images_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pairs.csv").write_text("image;caption;person_id;split\n")

    assert run_check(str(tmp_path / "pairs.csv")) == 1

    assert "layout       pairs.csv\n" in capsys.readouterr().out


def test_own_pairs_are_checked_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(
        "image,caption,person_id,split\na.jpg,A man.,anna,train\nb.jpg,A man.,ben,val\n"
        "c.jpg,He.,ben,test\n"
    )
    write_image(tmp_path / "a.jpg")
    write_image(tmp_path / "c.jpg")

    report = check(path, token_lengths=words)

    assert report.status == 1
    assert {finding.code: finding.severity for finding in report.findings} == {
        "missing": "error",
        "identity_in_two_splits": "error",
        "shared_caption": "warning",
        "one_person": "warning",
    }
    assert report.findings[0].items == (
        f"{tmp_path / 'b.jpg'} (pairs.csv, line 3): no such file in its folder",
    )


@pytest.mark.parametrize("with_val", [True, False])
def test_pairs_without_people_are_trained_on_by_a_method_without_labels(
    tmp_path: Path, with_val: bool
) -> None:
    rows = [
        *("a.jpg,A man.,,train", "b.jpg,A man.,,train", "c.jpg,A man.,ben,test"),
        *(["d.jpg,He.,anna,val"] if with_val else []),
    ]
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(["image,caption,person_id,split", *rows]))
    for name in "abcd":
        write_image(tmp_path / f"{name}.jpg")

    report = check(path, token_lengths=words)

    alone = ["val", "test"] if with_val else ["test"]  # with one person each
    # nobody knows whether the caption is of several people
    assert [finding.code for finding in report.findings] == ["one_person"] * len(alone)
    assert report.counts["train"] == {"person_ids": 0, "images": 2, "captions": 2}
    assert report.counts["test"]["person_ids"] == 1
    assert any("None of the 2 training images has a person id" in text for text in report.notices)
    arguments = f"data.root={path}" + ("" if with_val else " protocol=official")
    assert report.command == f"crosswalk train method=cmmt data=own_pairs {arguments}"


def test_the_json_report_holds_everything(folder: Path, tmp_path: Path) -> None:
    (folder / "imgs/cam_a/a1.jpg").unlink()
    target = tmp_path / "report.json"

    status = run_check(str(folder), json_path=str(target))

    content = json.loads(target.read_text())
    assert status == content["status"] == 1
    assert content["dataset"] == "synthetic pedestrians"
    assert content["images"] == [
        {
            "path": str(folder / "imgs/cam_a/a1.jpg"),
            "kind": "missing",
            "detail": "no such file in its folder",
            "origin": "reid_raw.json, entry 2",
        }
    ]
    assert content["counts"] == COUNTS
    assert content["sources"]["cam_a"]["missing"] == 1
    assert content["findings"][0]["severity"] == "error"
    assert content["findings"][0]["next_step"].startswith("Nothing of cam_a is there")


def test_nothing_is_written_into_the_data_set(folder: Path) -> None:
    with untouched(folder), pytest.raises(ValueError, match="lies inside the data set"):
        run_check(str(folder), json_path=str(folder / "report.json"))


@pytest.mark.parametrize(
    ("path", "dataset", "message"),
    [
        (
            "nowhere.csv",
            None,
            "nowhere.csv does not exist. Give the folder of a data set, or a",
        ),
        ("", None, "holds no data set that is known. Looked there"),
        ("", "market", "There is no data set 'market'. Did you mean market1501? Choose one"),
        ("", "own_pair", "There is no data set 'own_pair'. Did you mean own_pairs? Choose one of"),
        ("", "zebra", "There is no data set 'zebra'. Choose one of cuhk_pedes"),
    ],
)
def test_what_cannot_be_checked_is_a_mistake_of_the_command(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    path: str,
    dataset: str | None,
    message: str,
) -> None:
    options = [] if dataset is None else ["--dataset", dataset]

    assert main(["data", "check", str(tmp_path / path), *options]) == 2

    said = capsys.readouterr().err
    assert said.startswith("crosswalk: ")
    assert message in said


def test_data_sets_below_a_folder_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one/Market-1501/bounding_box_train").mkdir(parents=True)
    for name in "ab":
        (tmp_path / f"{name}.csv").touch()

    assert main(["data", "check", str(tmp_path)]) == 2

    assert f"Try: crosswalk data check {tmp_path / 'one'}.\n" in capsys.readouterr().err


def test_long_lists_are_cut_on_the_terminal_only() -> None:
    items = tuple(f"image {n}" for n in range(12))
    finding = Finding("warning", "repeated_image", "12 images.", "Look at them.", items)
    report = Report("own pairs", "/data", findings=(finding,))

    text = report.to_text()

    assert "image 9" in text
    assert "image 10" not in text
    assert "... and 2 more (--json FILE lists all)" in text
    assert json.loads(report.to_json())["findings"][0]["items"] == list(items)


@pytest.mark.parametrize("num_findings", [0, 1])
def test_a_terminal_shows_the_same_words(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    num_findings: int,
) -> None:
    if num_findings:
        (folder / "imgs/cam_a/a1.jpg").unlink()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)

    run_check(str(folder))

    out = capsys.readouterr().out
    assert "Market" in out
    assert ("ERROR  1 image is missing." in out) == bool(num_findings)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_narrow_terminal_keeps_every_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    names = ("images", "captions", "person_ids", "cameras")
    counts = {split: dict.fromkeys(names, 123_456) for split in ("train", "val", "test")}
    expected = {split: dict.fromkeys(names, 123_457) for split in counts}
    report = Report("MSMT17", "/sets", counts=counts, expected=expected)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    terminal(monkeypatch, width)

    print_report(report)

    shown = plain(capsys.readouterr().out)
    table = [line for line in shown.splitlines() if "│" in line or "123," in line]
    assert shown.count("123,456") == shown.count("123,457") == 12
    assert max(map(len, table)) <= width


def test_a_narrow_terminal_breaks_sentences_between_words_and_no_file_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "a" * 90
    finding = Finding("warning", "empty", "sentence " * 20, "", (name,))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    terminal(monkeypatch, 60)

    print_report(Report("MSMT17", "/sets", findings=(finding,)))

    lines = plain(capsys.readouterr().out).splitlines()
    assert f"    {name}" in lines
    assert max(len(line) for line in lines if name not in line) <= 60
    assert sum(line.count("sentence") for line in lines) == 20


def test_images_outside_the_folder_are_named_and_not_opened(tmp_path: Path) -> None:
    write_image(tmp_path / "own" / "a.jpg")
    (tmp_path / "secret.txt").write_text("root:x")
    rows = ["image,caption,person_id,split", "a.jpg,A man.,1,train", "../secret.txt,He.,2,test"]
    (tmp_path / "own" / "pairs.csv").write_text("\n".join(rows))

    report = check(tmp_path / "own", token_lengths=lambda captions: [4] * len(captions))

    [finding] = report.errors
    assert finding.code == "image_outside"
    assert finding.items == (f"{tmp_path}/own/../secret.txt (pairs.csv, line 3)",)
    assert "data.allow_outside=true" in finding.next_step
    assert "root:" not in report.to_text()


@pytest.mark.parametrize(("folder", "name"), [("i\\", "1.png"), ("", "cafe\u0301.png")])
def test_names_of_other_systems_are_told(tmp_path: Path, folder: str, name: str) -> None:
    write_image(tmp_path / folder.replace("\\", "/") / name)
    written = unicodedata.normalize("NFC", f"{folder}{name}")
    rows = ["image,caption,person_id,split", f"{written},A man.,1,train"]
    (tmp_path / "pairs.csv").write_text("\n".join(rows), encoding="utf-8")

    report = check(tmp_path, token_lengths=lambda captions: [4] * len(captions))

    assert "did you mean" in report.images[0].detail
    assert report.errors[0].next_step.startswith("Write these names as the disk has them")


def test_unusual_images_are_warnings(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 6)).save(tmp_path / "a.png")
    rows = ["image,caption,person_id,split", "a.png,A man.,1,train"]
    (tmp_path / "pairs.csv").write_text("\n".join(rows))

    report = check(tmp_path, token_lengths=lambda captions: [4] * len(captions))

    [finding] = report.warnings
    assert (finding.code, finding.next_step) == ("transparent_image", "White shows through.")
    assert finding.message == "1 image is transparent."
    assert finding.items == (str(tmp_path / "a.png"),)


def test_people_of_own_pairs_are_called_what_their_owner_calls_them(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    write_image(tmp_path / "b.jpg")
    rows = ["a.jpg,A man.,0005,train", "b.jpg,He.,0005,test", "b.jpg,A man.,0005,test"]
    (tmp_path / "p.csv").write_text("\n".join(["image,caption,person_id,split", *rows]))

    report = check(tmp_path, token_lengths=lambda captions: [4] * len(captions))

    told = {finding.code: finding.items for finding in report.findings}
    assert told["identity_in_two_splits"] == ("0005",)
    assert told["shared_caption"] == ('"A man.": train 0005, test 0005',)


def test_the_report_names_files_that_are_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "own" / "train").mkdir(parents=True)
    path = tmp_path / "own" / "train" / os.fsdecode(b"0002_c1_caf\xe9.jpg")
    path.write_bytes(b"no image")

    run_check(str(tmp_path / "own"), json_path=str(tmp_path / "report.json"))

    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [image["path"] for image in report["images"]] == [str(path)]


def test_a_picture_is_told_from_a_data_set(tmp_path: Path) -> None:
    picture = tmp_path / "walk.JPG"
    picture.touch()

    with pytest.raises(ValueError, match=r"walk\.JPG is a single picture\. Give the folder"):
        run_check(str(picture), None, None)


@pytest.mark.parametrize(
    ("name", "told"), [("notes.txt", "is a .txt file"), ("notes", "is a file without an ending")]
)
def test_a_file_of_another_kind_is_told_from_a_folder(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / name).touch()
    (tmp_path / "reid_raw.json").touch()

    with pytest.raises(ValueError, match="no data set is read from one") as refused:
        run_check(str(tmp_path / name), None, None)

    said = str(refused.value)
    assert f"{tmp_path / name} {told}, " in said
    assert f"({tmp_path} holds CUHK-PEDES), or a table of pairs or images: .csv," in said


@pytest.mark.parametrize("names", [["a.csv", "b.CSV"], ["one/pairs.csv", "readme.txt"]])
def test_tables_that_may_be_meant_are_named(tmp_path: Path, names: list[str]) -> None:
    tmp_path = tmp_path / "sets"
    tmp_path.mkdir()
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("image,caption,person_id,split\n")
    tables = [str(tmp_path / name) for name in names if name.lower().endswith("csv")]
    (tmp_path.parent / "above.csv").touch()  # those below come first

    with pytest.raises(FileNotFoundError) as unknown:
        run_check(str(tmp_path), None, None)
    with pytest.raises(FileNotFoundError) as refused:
        read_own_pairs(tmp_path)

    told = " or ".join(f"crosswalk data check {table}" for table in tables)
    assert str(unknown.value).endswith(f" Try: {told}.")
    assert f" Pass {' or '.join(f'data.root={table}' for table in tables)}." in str(refused.value)
