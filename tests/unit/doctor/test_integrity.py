import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from crosswalk.data.readers.cuhk_pedes import read_cuhk_pedes
from crosswalk.data.readers.records import ImageSplits, Record, fingerprint
from crosswalk.doctor.integrity import (
    ImageProblem,
    by_source,
    check_image,
    damaged_images,
    missing_images,
)
from crosswalk.image_files import same_pictures
from tests.unit.data.trees import CUHK_ENTRIES, tree, untouched, write_cuhk, write_image


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
def test_a_cut_off_image_is_truncated(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path)
    cut(path, share)

    problem = check_image(path)

    assert problem is not None
    assert problem.kind == "truncated"


@pytest.mark.parametrize("content", [b"<html>quota</html>", b"PK\x03\x04", b"\xff\xd8\xff\x00"])
def test_another_file_under_an_image_name_is_corrupt(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)

    problem = check_image(path)

    assert problem is not None
    assert problem.kind == "corrupt"
    assert repr(content[:12]) in problem.detail


def test_a_flipped_byte_in_a_png_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_image(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)

    problem = check_image(path)

    assert problem is not None
    assert problem.kind == "corrupt"


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK"])
def test_a_whole_image_has_no_problem(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new(mode, (5, 9)).save(path)

    assert check_image(path) is None


@pytest.mark.parametrize("num_workers", [0, 2])
def test_damage_is_found_in_the_order_of_the_records(tmp_path: Path, num_workers: int) -> None:
    records = []
    for n in range(131):  # more than two tasks of the workers
        path = tmp_path / f"{n % 7}" / f"{n}.jpg"
        write_image(path, seed=n)
        records.append(Record(path, person_id=n, origin=f"pairs.csv, line {n + 2}"))
    for n in (130, 3, 64):
        cut(records[n].image_path, 0.5)
    records[65].image_path.write_bytes(b"text")
    checked: list[int] = []
    started: list[int] = []

    found = damaged_images(
        records,
        num_workers=num_workers,
        progress=checked.append,
        ready=lambda: started.append(len(checked)),
    )

    assert [(problem.origin, problem.kind) for problem in found] == [
        ("pairs.csv, line 5", "truncated"),
        ("pairs.csv, line 66", "truncated"),
        ("pairs.csv, line 67", "corrupt"),
        ("pairs.csv, line 132", "truncated"),
    ]
    assert checked == [64, 64, 3]
    assert started == [0] * (num_workers > 1)  # before the first image is checked


def test_missing_and_empty_images_are_found_without_opening_any(tmp_path: Path) -> None:
    splits = read_cuhk_pedes(write_cuhk(tmp_path))
    imgs = tmp_path / "imgs"
    (imgs / "Market" / "b2.jpg").unlink()
    (imgs / "cam_a" / "a1.jpg").write_bytes(b"")
    (imgs / "CUHK01" / "v1.png").write_bytes(b"not an image")

    found = [(p.path.name, p.kind, p.origin) for p in missing_images(splits)]

    assert found == [
        ("a1.jpg", "empty", "reid_raw.json, entry 2"),
        ("b2.jpg", "missing", "reid_raw.json, entry 3"),
    ]


@pytest.mark.parametrize(
    ("present", "hint"),
    [
        ("Market/B2.JPG", "did you mean B2.JPG?"),
        ("Market/b2.png", "did you mean b2.png?"),
        ("Market/b2.jpeg", "did you mean b2.jpeg?"),
        ("Market/b3.jpg", "no such file in its folder"),
        ("Market/b2.jpg/x", "is a folder, or a link to something that is gone"),
    ],
)
def test_a_similar_name_is_offered(tmp_path: Path, present: str, hint: str) -> None:
    splits = read_cuhk_pedes(write_cuhk(tmp_path))
    (tmp_path / "imgs" / "Market" / "b2.jpg").unlink()
    write = tmp_path / "imgs" / present
    write.parent.mkdir(exist_ok=True)
    write.write_bytes(b"x")

    assert [problem.detail for problem in missing_images(splits)] == [hint]


def test_a_folder_in_other_letters_is_offered(tmp_path: Path) -> None:
    splits = read_cuhk_pedes(write_cuhk(tmp_path))
    imgs = tmp_path / "imgs"
    (imgs / "Market").rename(imgs / "MARKET")
    shutil.rmtree(imgs / "CUHK01")

    details = {problem.path.name: problem.detail for problem in missing_images(splits)}

    market = f"there is no folder {imgs / 'Market'}, but {imgs / 'MARKET'}; did you mean it?"
    assert details == {
        "b1.jpg": market,
        "b2.jpg": market,
        "v1.png": f"there is no folder {imgs / 'CUHK01'}",
    }


def test_a_dangling_link_is_missing(tmp_path: Path) -> None:
    splits = read_cuhk_pedes(write_cuhk(tmp_path))
    link = tmp_path / "imgs" / "cam_a" / "a1.jpg"
    link.unlink()
    link.symlink_to(tmp_path / "gone.jpg")

    assert [problem.path for problem in missing_images(splits)] == [link]


def test_problems_are_counted_by_source_folder(tmp_path: Path) -> None:
    splits = read_cuhk_pedes(write_cuhk(tmp_path))
    imgs = splits.image_folder
    problems = [
        ImageProblem(imgs / "Market/b1.jpg", "missing", ""),
        ImageProblem(imgs / "Market/b2.jpg", "truncated", ""),
        ImageProblem(imgs / "test_query/t1.jpg", "corrupt", ""),
    ]

    table = by_source(splits, problems)

    none = {"missing": 0, "empty": 0, "truncated": 0, "corrupt": 0}
    assert table == {
        "CUHK01": {"images": 1} | none,
        "Market": {"images": 2} | none | {"missing": 1, "truncated": 1},
        "cam_a": {"images": 1} | none,
        "test_query": {"images": 2} | none | {"corrupt": 1},
    }
    assert list(table) == ["CUHK01", "Market", "cam_a", "test_query"]


def test_the_fingerprint_is_the_documented_hash(tmp_path: Path) -> None:
    splits = read_cuhk_pedes(write_cuhk(tmp_path))
    (tmp_path / "imgs" / "cam_a" / "a1.jpg").unlink()

    lines = []
    for split in ("train", "val", "test"):
        for entry in CUHK_ENTRIES:
            if entry["split"] == split:
                path = tmp_path / "imgs" / entry["file_path"]
                size = os.path.getsize(path) if path.exists() else -1
                row = [split, entry["file_path"], entry["id"], -1, entry["captions"], size]
                lines.append(json.dumps(row, separators=(",", ":")) + "\n")

    assert fingerprint(splits) == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_copy_at_another_place_has_the_same_fingerprint(tmp_path: Path) -> None:
    first = write_cuhk(tmp_path / "one" / "CUHK-PEDES")
    shutil.copytree(first, tmp_path / "two", copy_function=shutil.copyfile)

    with untouched(tmp_path):
        prints = [fingerprint(read_cuhk_pedes(tmp_path / name)) for name in ("one", "two")]

    assert prints[0] == prints[1]


@pytest.mark.parametrize("change", ["caption", "id", "size"])
def test_any_change_changes_the_fingerprint(tmp_path: Path, change: str) -> None:
    entries = [dict(entry) for entry in CUHK_ENTRIES]
    before = fingerprint(read_cuhk_pedes(write_cuhk(tmp_path / "a", entries)))
    if change == "caption":
        entries[3]["captions"] = ["A man again.", "The same woman."]
    elif change == "id":
        entries[3]["id"] = 3
    write_cuhk(tmp_path / "b", entries)
    if change == "size":
        with (tmp_path / "b/imgs/test_query/t1.jpg").open("ab") as file:
            file.write(b"\0")

    assert fingerprint(read_cuhk_pedes(tmp_path / "b")) != before


def test_looking_leaves_no_trace(tmp_path: Path) -> None:
    splits = read_cuhk_pedes(write_cuhk(tmp_path))
    before = tree(tmp_path)

    damaged_images([record for _, record in splits])
    fingerprint(splits)

    assert tree(tmp_path) == before


def test_copies_are_found_among_files_of_one_size(tmp_path: Path) -> None:
    contents = {
        "a": b"one",
        "b": b"two",
        "c": b"one",
        "d": b"three",
        "e": b"",
        "f": b"",
        "g": b"one",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / name for name in ("g", "f", "e", "d", "c", "b", "a", "nowhere", "a")]

    groups = same_pictures(paths)

    assert [[path.name for path in group] for group in groups] == [["g", "c", "a"]]


def test_image_sets_have_fingerprints_of_the_same_form(tmp_path: Path) -> None:
    (tmp_path / "query").mkdir()
    (tmp_path / "query" / "0002_c1.jpg").write_bytes(b"seven..")
    query = (Record(tmp_path / "query" / "0002_c1.jpg", 2, 1),)
    gallery = (Record(tmp_path / "gallery" / "0002_c2.jpg", 2, 2),)
    splits = ImageSplits("own", tmp_path, ".", (), query, gallery)

    lines = '["query","query/0002_c1.jpg",2,1,[],7]\n["gallery","gallery/0002_c2.jpg",2,2,[],-1]\n'

    assert fingerprint(splits) == hashlib.sha256(lines.encode()).hexdigest()


def test_further_images_count_in_their_folder(tmp_path: Path) -> None:
    splits = ImageSplits("own", tmp_path, ".", (Record(tmp_path / "train/a.jpg", 1),), (), ())
    styled = [tmp_path / "styled/a.jpg", tmp_path / "styled/b.jpg"]

    table = by_source(splits, [ImageProblem(styled[1], "corrupt", "")], more=styled)

    assert {name: (row["images"], row["corrupt"]) for name, row in table.items()} == {
        "styled": (2, 1),
        "train": (1, 0),
    }
