"""What is embedded is found, or refused, before a model is loaded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from crosswalk.use.embed import check_target
from crosswalk.use.inputs import inputs_of


def an_image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 4)).save(path)
    return path


def test_a_folder_gives_its_images_in_order_those_below_it_too(tmp_path: Path) -> None:
    names = ("b.jpg", "a/2.PNG", "a/1.jpg")
    for name in (*names, ".hidden.jpg", ".git/x.png"):
        an_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")

    found = inputs_of(tmp_path)

    assert found.images == [tmp_path / name for name in ("a/1.jpg", "a/2.PNG", "b.jpg")]
    assert found.captions == []


@pytest.mark.parametrize("column", ["path", "image"])
def test_a_table_gives_each_image_once_and_all_sentences(tmp_path: Path, column: str) -> None:
    rows = f'{column},caption\n1.jpg,A man.\n2.jpg,\n1.jpg,"In red, walking."\n'
    (tmp_path / "pairs.csv").write_text(rows)

    found = inputs_of(tmp_path / "pairs.csv")

    assert found.images == [tmp_path / "1.jpg", tmp_path / "2.jpg"]
    assert found.captions == ["A man.", "In red, walking."]
    assert found.of_image == [0, 0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,caption\n1.jpg,x\n", "line 1: no column path; the header is name,caption."),
        ("path\n", "lists no images."),
        ("path\n../1.jpg\n", "line 2: ../1.jpg lies outside the folder of the file; add --allow-"),
        ("path,caption\n,A man.\n", "line 2: `path` is empty"),
    ],
)
def test_a_wrong_table_is_refused_by_its_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "list.csv").write_text(text)

    with pytest.raises(ValueError, match=re.escape(words)):
        inputs_of(tmp_path / "list.csv")


def test_images_outside_are_read_where_that_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path\n../1.jpg\n")

    assert inputs_of(tmp_path / "list.csv", allow_outside=True).images == [tmp_path / "../1.jpg"]


def test_a_place_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")

    with pytest.raises(ValueError, match="holds no images"):
        inputs_of(tmp_path)
    with pytest.raises(ValueError, match=r"is neither a folder of images nor a \.csv"):
        inputs_of(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("out.csv", "should end in .npz"),
        ("none/out.npz", "there is no folder"),
        ("photos/out.npz", "lies inside the data set's folder"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused(
    tmp_path: Path, target: str, words: str
) -> None:
    an_image(tmp_path / "photos" / "1.jpg")

    with pytest.raises((FileNotFoundError, ValueError), match=re.escape(words)):
        check_target(tmp_path / target, tmp_path / "photos")


def test_a_link_in_the_folder_may_lead_elsewhere(tmp_path: Path) -> None:
    image = an_image(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "link.png").symlink_to(image)
    (tmp_path / "mine" / "list.csv").write_text("path\nlink.png\n")

    assert inputs_of(tmp_path / "mine" / "list.csv").images == [tmp_path / "mine" / "link.png"]
