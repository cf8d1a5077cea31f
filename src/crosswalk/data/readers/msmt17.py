"""MSMT17: 4,101 people, 15 cameras, from V1, V2 (faces masked) or a Market-style conversion.

Accepted below ``data.root``, first match: ``msmt17/MSMT17_V1/``, ``msmt17/MSMT17_V2/``,
``MSMT17_V1/``, ``MSMT17_V2/``, ``MSMT17/``, ``msmt17/`` or the folder itself, with one of:

``list_*.txt``
    As published: lists of ``<image> <person>`` for train, val, query and gallery, with the images
    in ``train/`` and ``test/`` (V1) or ``mask_train_v2/`` and ``mask_test_v2/`` (V2). The camera is
    the third field of the image's name: ``0000_000_01_0303morning_0008_0.jpg`` is by camera 1.
``bounding_box_*``
    Converted: ``bounding_box_train/``, ``query/``, ``bounding_box_test/`` with names
    ``<person>_c<camera>...``; no lists.

Person ids start at 0 in training and again in the test lists: query and gallery share ids, training
has ids of its own, and person 0 of one is not person 0 of the other. There are no distractors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from crosswalk.data.readers.annotations import (
    EXPECTED_COUNTS_FILE,
    Layout,
    contents,
    dataset_name,
    expected_counts,
    find_layout,
    raise_problems,
)
from crosswalk.data.readers.image_folders import (
    MARKET_FORM,
    MARKET_MARKERS,
    read_market_folders,
    with_image_notices,
)
from crosswalk.data.readers.records import IMAGE_SPLITS, ImageSplits, Record
from crosswalk.data.readers.tables import TOO_LARGE, read_fetched_text, text_complaint, whole_number

TrainSplit = Literal["train", "trainval"]

TEST_COUNTS = {
    "query": {"person_ids": 3_060, "images": 11_659},
    "gallery": {"person_ids": 3_060, "images": 82_161},
}
PUBLISHED_COUNTS = {"train": {"person_ids": 1_041, "images": 32_621}, **TEST_COUNTS}
WITHOUT_VAL_COUNTS = {"train": {"person_ids": 1_041, "images": 30_248}, **TEST_COUNTS}

NUM_CAMERAS = 15

FOLDERS = (
    "msmt17/MSMT17_V1",
    "msmt17/MSMT17_V2",
    "MSMT17_V1",
    "MSMT17_V2",
    "MSMT17",
    "msmt17",
    ".",
)

LIST_FORM = "list_*.txt"

FORMS = {
    LIST_FORM: tuple(f"list_{name}.txt" for name in ("train", "val", "query", "gallery")),
    MARKET_FORM: MARKET_MARKERS,
}

IMAGE_FOLDERS = {"train": ("train", "mask_train_v2"), "test": ("test", "mask_test_v2")}

CAMERA = re.compile(r"[^_]+_[^_]+_(\d+)_", re.ASCII)

ADVICE = (
    "MSMT17 cannot be downloaded automatically: ask its authors for it, unpack it so that "
    "train/, test/ and the four list_*.txt (or bounding_box_train/, query/ and bounding_box_test/) "
    "lie in one folder, and pass data.root=<that folder, or the one above>."
)


def read_msmt17(root: Path, *, train_split: TrainSplit = "trainval") -> ImageSplits:
    """Return the splits of MSMT17; query and gallery share person ids, training has its own.

    Args:
        root: Its folder, or the one above it.
        train_split: ``trainval`` trains on list_train and list_val (32,621 images), as published
            results with Market-style conversions do; ``train`` on list_train alone (30,248), as
            several toolboxes do by default. Results of the two do not compare.

    Raises:
        FileNotFoundError: If no layout is found below ``root``, or parts of it are missing.
        ValueError: If ``train_split`` does not fit, or lists or file names are damaged.

    Example:
        >>> import tempfile
        >>> image = "0000/0000_000_01_0303morning_0008_0.jpg"
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for each in ("train", "test"):
        ...         (Path(name) / each).mkdir()
        ...     for each in ("train", "val", "query", "gallery"):
        ...         _ = (Path(name) / f"list_{each}.txt").write_text(f"{each}/{image} 0")
        ...     splits = read_msmt17(Path(name), train_split="train")
        >>> splits.layout, len(splits.train), splits.query[0].camera_id
        ('list_*.txt', 1, 1)
    """
    if train_split not in get_args(TrainSplit):
        raise ValueError(
            f"data.reader.train_split={train_split!r} should be one of "
            f"{', '.join(get_args(TrainSplit))}."
        )
    layout = find_layout(Path(root), "MSMT17", FOLDERS, FORMS, ADVICE, what="images")
    if layout.form == LIST_FORM:
        return with_image_notices(_read_lists(layout, train_split))
    if train_split == "train":
        raise ValueError(
            f"data.reader.train_split=train needs list_train.txt, and {layout.folder} is a "
            "Market-style conversion without lists. Pass data.reader.train_split=trainval, which "
            f"takes {layout.folder / 'bounding_box_train'} as it is."
        )
    return with_image_notices(read_market_folders(layout, "MSMT17", PUBLISHED_COUNTS, ADVICE))


def read_msmt17_whole(root: Path) -> ImageSplits:
    """Return all of MSMT17 but list_val as one labelled training set: the source of MAR.

    The images of train, gallery and query follow each other in this order. Ids of test people
    continue after those of training people: their number, 1,041, is added. Of a Market-style
    conversion everything is taken, as it does not tell which images list_val names. There is
    nothing left to evaluate on.

    Args:
        root: Its folder, or the one above it.

    Raises:
        FileNotFoundError: If no layout is found below ``root``, or parts of it are missing.
        ValueError: If lists or file names are damaged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for folder in ("bounding_box_train", "query", "bounding_box_test"):
        ...         (Path(name) / folder).mkdir()
        ...         (Path(name) / folder / "0000_c12_0030.jpg").touch()
        ...     splits = read_msmt17_whole(Path(name))
        >>> [record.person_id for record in splits.train], splits.query
        ([0, 1, 1], ())
    """
    layout = find_layout(Path(root), "MSMT17", FOLDERS, FORMS, ADVICE, what="images")
    from_lists = layout.form == LIST_FORM
    splits = (
        _read_lists(layout, "train")
        if from_lists
        else read_market_folders(layout, "MSMT17", PUBLISHED_COUNTS, ADVICE)
    )
    # The number of training people, as their ids are 0, 1, ...; with gaps, ids must not meet.
    offset = 1 + max(record.person_id for record in splits.train)
    moved = tuple(
        replace(record, person_id=record.person_id + offset)
        for record in splits.gallery + splits.query
    )
    notice = (
        f"All of MSMT17 is training data here, its {len(moved):,} test images included (their "
        f"person ids + {offset:,}): results on MSMT17 itself would mean nothing."
    )
    published = {"train": {"person_ids": 4_101, "images": 124_068 if from_lists else 126_441}}
    own_counts = (layout.folder / EXPECTED_COUNTS_FILE).is_file()
    return with_image_notices(
        replace(
            splits,
            train=splits.train + moved,
            query=(),
            gallery=(),
            junk={"train": sum(splits.junk.values())},
            notices=(*splits.notices, notice),
            published=None if own_counts else published,
        )
    )


def _read_lists(layout: Layout, train_split: TrainSplit) -> ImageSplits:
    parts = ("train", "val") if train_split == "trainval" else ("train",)
    files = {name: layout.folder / f"list_{name}.txt" for name in (*parts, "query", "gallery")}
    missing = [path for path in files.values() if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{', '.join(map(str, missing))} is missing; {layout.folder} holds "
            f"{contents(layout.folder)}. {ADVICE}"
        )
    train_images, test_images = (_image_folder(layout.folder, part) for part in IMAGE_FOLDERS)
    published = PUBLISHED_COUNTS if train_split == "trainval" else WITHOUT_VAL_COUNTS
    expected = expected_counts(layout.folder, published, IMAGE_SPLITS)
    if expected is not published and train_split == "train":
        # a generated set counts list_val in
        expected = {name: counts for name, counts in (expected or {}).items() if name != "train"}
    return ImageSplits(
        dataset=dataset_name(layout.folder, "MSMT17"),
        root=layout.folder,
        layout=layout.name,
        train=_records([files[name] for name in parts], train_images),
        query=_records([files["query"]], test_images),
        gallery=_records([files["gallery"]], test_images),
        junk={"train": 0, "query": 0, "gallery": 0},
        published=expected,
        annotation_files=tuple(files.values()),
    )


def _image_folder(folder: Path, part: str) -> Path:
    for name in IMAGE_FOLDERS[part]:
        if (folder / name).is_dir():
            return folder / name
    raise FileNotFoundError(
        f"{folder} holds neither {' nor '.join(f'{name}/' for name in IMAGE_FOLDERS[part])}, which "
        f"its lists name images of; it holds {contents(folder)}. {ADVICE}"
    )


def _records(lists: Sequence[Path], images: Path) -> tuple[Record, ...]:
    """Return the images that the lists name, sorted by name; each may be named once."""
    named: dict[str, Record] = {}
    for path in lists:
        problems = []
        text = read_fetched_text(path, "Fetch the list again.")
        for line, content in enumerate(text.split("\n"), start=1):
            if not content.strip():
                continue
            *rest, number = content.rsplit(maxsplit=1)
            name = "".join(rest).strip()
            inside = PurePosixPath(name)
            camera = CAMERA.match(inside.name)
            if not name or not number.isdecimal():
                problems.append(f"line {line}: should be <image> <person id>, but is {content!r}")
            elif whole_number(number) is None:
                problems.append(f"line {line}: person id {number[:40]}; {TOO_LARGE}")
            elif told := text_complaint(name, is_name=True):
                problems.append(f"line {line}: {name!r} {told}")
            elif inside.is_absolute() or ".." in inside.parts:
                problems.append(f"line {line}: {name!r} should lie inside {images.name}/")
            elif camera is None or whole_number(camera[1]) is None:
                problems.append(
                    f"line {line}: the third field of {inside.name!r} should be the camera, as in "
                    "0000_000_01_0303morning_0008_0.jpg"
                )
            elif name in named:
                problems.append(f"line {line}: the same image as {named[name].origin}")
            else:
                origin = f"{path.name}, line {line}"
                named[name] = Record(images / name, int(number), int(camera[1]), origin=origin)
        raise_problems(path, problems, "Fetch the list again; nothing was read from it.")
    return tuple(named[name] for name in sorted(named))
