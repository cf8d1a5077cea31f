"""Data sets of which one file or one value is damaged, in the doctor and in training."""

from __future__ import annotations

import csv
import io
import os
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.robustness.damage import ANY, JSON, TEXT, Damage, damage
from tests.robustness.refusals import message_of
from tests.unit.data.trees import CUHK_ENTRIES, write_cuhk, write_json

SMALL = (
    *("trainer=cpu", "trainer.max_epochs=1", "logger=csv", "data.num_workers=0", "stage=null"),
    *("data.batch_size=4", "name=it"),
)
PAIRS = ("method=rde", "data=own_pairs", "encoder=clip_tiny", "encoder.clip.pretrained=null")
IMAGES = ("method=supervised", "data=own_images", "encoder=resnet_tiny")
IMAGES = (*IMAGES, "encoder.backbone.pretrained=null", "protocol=last")


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 16, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def own_pairs(folder: Path) -> Path:
    """Write two splits of four pairs; return the table."""
    rows = [["image", "caption", "person_id", "split"]]
    for number in range(12):
        name, split = f"images/{number}.png", ("train", "val", "test")[number % 3]
        picture(folder / name, number)
        rows.append([name, f"A person with bag number {number}.", str(number // 6), split])
    with (folder / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "pairs.csv"


def own_images(folder: Path) -> Path:
    """Write a table of images with identities and cameras; return it."""
    rows = [["path", "person_id", "camera_id", "split"]]
    for number in range(12):
        name, split = f"images/{number}.png", ("train", "query", "gallery")[number % 3]
        picture(folder / name, number)
        rows.append([name, str(number // 6), str(number % 3), split])
    with (folder / "images.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "images.csv"


TABLES: Mapping[str, tuple[Callable[[Path], Path], Sequence[str]]] = {
    "own_pairs": (own_pairs, PAIRS),
    "own_images": (own_images, IMAGES),
}


def said_of(
    words: list[str], capsys: pytest.CaptureFixture[str], data: Path, status: tuple[int, ...]
) -> str:
    return message_of(words, capsys, untouched=[data], status=status)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CROSSWALK_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("data", "change"),
    [
        pytest.param(data, change, id=f"{data}-{kind}")
        for data in TABLES
        for kind, change in TEXT.items()
        if (data, kind) != ("own_pairs", "nul")  # within a caption, where anything may be
    ],
)
@pytest.mark.parametrize("command", ["data check", "train"])
def test_a_damaged_table_is_named(
    data: str, change: Damage, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write, words = TABLES[data]
    table = write(tmp_path / "set")
    damage(table, change)
    commands = {
        "data check": ["data", "check", str(table), f"--dataset={data}"],
        "train": ["train", *words, *SMALL, f"data.root={table}"],
    }

    message = said_of(commands[command], capsys, table.parent, (1, 2))

    assert table.name in message
    assert not any((tmp_path / "runs").rglob("*"))


CELLS = {
    "image": ["", "/etc/hostname", "../outside.png", "a\0b.png", "images", "no such.png"],
    "caption": ["", " ", "\0", "\ud800"],
    "person_id": ["-1" * 30, "9" * 6000, "\0"],
    "split": ["", "dev", "train,test", "2"],
    "path": ["", "/etc/hostname", "../outside.png", "images", "no such.png"],
    "camera_id": ["-5", "x" * 300, "9" * 40, "1.5"],
}
DAMAGED_CELLS = [
    pytest.param(data, column, cell, id=f"{data}-{column}-{number}")
    for data, columns in {
        "own_pairs": ("image", "caption", "split"),
        "own_images": ("path", "split", "camera_id"),
    }.items()
    for column in columns
    for number, cell in enumerate(CELLS[column])
]


@pytest.mark.parametrize(("data", "column", "cell"), DAMAGED_CELLS)
def test_a_wrong_cell_is_named_with_its_line(
    data: str, column: str, cell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write, _ = TABLES[data]
    table = write(tmp_path / "set")
    picture(tmp_path / "outside.png", 3)
    with table.open(newline="") as file:
        rows = list(csv.reader(file))
    rows[4][rows[0].index(column)] = cell
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    table.write_bytes(text.getvalue().encode("utf-8", "surrogatepass"))

    message = said_of(["data", "check", str(table), f"--dataset={data}"], capsys, table, (1, 2))

    assert table.name in message or cell.strip("\0") in message
    assert "line 5" in message or "images" in message


@pytest.mark.parametrize("change", JSON.values(), ids=JSON)
def test_a_damaged_annotation_is_named(
    change: Damage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_cuhk(tmp_path / "CUHK-PEDES")
    damage(folder / "reid_raw.json", change)

    message = said_of(
        ["data", "check", str(folder), "--dataset=cuhk_pedes"], capsys, folder, (1, 2)
    )

    assert "reid_raw.json" in message


VALUES: Mapping[str, object] = {
    **{"null": None, "text": "x", "list": [], "mapping": {}, "fraction": 1.5, "true": True},
    **{"large": 2**70, "digits": "²", "dashes": "--7", "nul": "a\0b", "half": "\ud800"},
    "nested": [[[["x"]]]],
}
ANY_TEXT = ("text", "digits", "dashes")
FIELDS = {"id": (), "file_path": ANY_TEXT, "captions": (*ANY_TEXT, "nul"), "split": ()}
"""Keys of an entry, and values that are right, or name a missing file."""


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key, right in FIELDS.items() for value in VALUES if value not in right],
)
def test_a_wrong_value_of_an_annotation_is_named(
    key: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [dict(entry) for entry in CUHK_ENTRIES]
    folder = write_cuhk(tmp_path / "CUHK-PEDES", entries)
    entries[2][key] = [VALUES[value]] if key == "captions" else VALUES[value]
    write_json(folder / "reid_raw.json", entries)

    message = said_of(
        ["data", "check", str(folder), "--dataset=cuhk_pedes"], capsys, folder, (1, 2)
    )

    assert "entry 2" in message


def claimed(width: int, height: int) -> bytes:
    """Return a PNG whose header claims a size and that holds a few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def replaced(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


PICTURES: Mapping[str, Callable[[Path], None]] = {
    **{
        name: lambda path, change=change: damage(path, change)
        for name, change in {**ANY, "cut": TEXT["cut"]}.items()
    },
    "claims 20,000 rows": lambda path: replaced(path, claimed(20_000, 20_000)),
    "claims a line": lambda path: replaced(path, claimed(2**31 - 1, 1)),
    "claims nothing": lambda path: replaced(path, claimed(0, 0)),
    "folder": lambda path: (path.unlink(), path.mkdir())[0],
    "link to itself": lambda path: (path.unlink(), path.symlink_to(path))[0],
    "link to a device": lambda path: (path.unlink(), path.symlink_to("/dev/zero"))[0],
    "pipe": lambda path: (path.unlink(), os.mkfifo(path))[0],
}


@pytest.mark.parametrize("data", TABLES)
@pytest.mark.parametrize("change", PICTURES.values(), ids=PICTURES)
@pytest.mark.parametrize("split", range(3))
@pytest.mark.parametrize("command", ["data check", "train"])
def test_a_damaged_image_of_any_split_is_named_before_training(
    data: str,
    change: Callable[[Path], None],
    split: int,
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write, words = TABLES[data]
    table = write(tmp_path / "set")
    name = f"{3 + split}.png"
    change(table.parent / "images" / name)
    commands = {
        "data check": ["data", "check", str(table), f"--dataset={data}"],
        "train": ["train", *words, *SMALL, f"data.root={table}"],
    }

    message = said_of(commands[command], capsys, table, (1, 2))

    assert name in message
    assert not any((tmp_path / "runs").rglob("*"))
