"""People's own images of people, from a folder per split or from a CSV.

Folders ``train/``, ``query/``, ``gallery/`` and, where there is one, a validation set of its own in
``val_query/`` and ``val_gallery/``. Each holds either

* images named like those of Market-1501, ``<person id>_c<camera>...`` (see `camera_names`), or
* one sub-folder per person, whose name is the person id, with images named as one likes. The
  camera is the number after a ``c`` at the start of the name or after an underscore, as in
  ``c3_17.png`` or ``lobby_c3.png``; without one it is unknown (-1).

A CSV has the columns ``path``, ``person_id``, ``camera_id`` and ``split`` (one of the five names
above). Paths start from the folder of the file; an empty ``camera_id`` is an unknown camera.

Training images may go without labels, all of them or none: images directly in ``train/`` of which
no name says a person (cameras are read as in a person's folder), or rows of ``train`` with an empty
``person_id``. Each of them then has a person id of its own, and `ImageSplits` says so.

Person ids may be any text and are shared by all splits; -1 is junk, which is left out. An image by
an unknown camera is never ignored in a ranking, whatever camera the query is by.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from crosswalk.data.readers.annotations import contents, looks_like, raise_problems
from crosswalk.data.readers.camera_names import GRAMMAR, IMAGE_SUFFIXES, JUNK, parse_name
from crosswalk.data.readers.image_folders import with_image_notices
from crosswalk.data.readers.records import IMAGE_SPLITS, ImageSplits, Record
from crosswalk.data.readers.tables import (
    CAMERA_IDS,
    MAX_ID,
    OWN_COLUMNS,
    TOO_LARGE,
    Row,
    csv_rows,
    number_people,
    people_notices,
    read_table_text,
    text_complaint,
    which_table,
    whole_number,
)
from crosswalk.image_files import MissingHints
from crosswalk.words import counted

SPLIT_NAMES = (*IMAGE_SPLITS, "val_query", "val_gallery")

REQUIRED = OWN_COLUMNS["own_images"]

# An image may be ranked among the gallery that it queries, but is in no other two splits.
PAIRED = ({"query", "gallery"}, {"val_query", "val_gallery"})

CAMERA = re.compile(r"(?:^|_)c(\d+)", re.ASCII)

CAMERA_FOLDER = re.compile(r"(?:c|cam|camera)[ _-]?\d+", re.ASCII | re.IGNORECASE)
NAMED_LIKE_CAMERAS = "The persons are named like cameras."
CAMERA_FOLDERS = (
    "A folder in that of a split is a person; the camera belongs into the name of an image, as in "
    "train/0002/c1_17.jpg or train/0002_c1_17.jpg."
)

EXAMPLE = (
    "A folder holds train/, query/ and gallery/, with images named like 0002_c1_17.jpg or one "
    "sub-folder per person; a CSV starts with the line path,person_id,camera_id,split."
)

WITH_CAPTIONS = "Images with captions are own_pairs, a CSV of image,caption,person_id,split."


@dataclass(frozen=True, slots=True)
class _Image:
    """An image before its person has a number; None is a person whom nobody knows."""

    path: Path
    person: str | None
    camera_id: int
    origin: str


def read_own_images(root: Path, *, check_files: bool = True) -> ImageSplits:
    r"""Return the splits of one's own images. Opens no image.

    Person ids are texts, see `number_people`. Numbers of unlabelled training images follow those
    of the people.

    Args:
        root: The folder with the splits, a CSV, or a folder that holds exactly one CSV and no
            folder of a split.
        check_files: Whether a row of the CSV whose image is not there is an error.

    Raises:
        FileNotFoundError: If there are no images or no such file.
        ValueError: If names or rows are wrong, with the file and line of the first ones.

    Example:
        >>> import tempfile
        >>> rows = "path,person_id,camera_id,split\na.jpg,anna,2,query\nb.jpg,anna,,gallery\n"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "images.csv").write_text(rows)
        ...     splits = read_own_images(Path(folder), check_files=False)
        >>> [(record.person_id, record.camera_id) for _, record in splits]
        [(0, 2), (0, -1)]
    """
    root = Path(root)
    if root.is_dir():
        present = [name for name in SPLIT_NAMES if (root / name).is_dir()]
        if present:
            return _from_folders(root, present)
        return _from_csv(_only_csv(root), check_files)
    if not root.is_file():
        raise FileNotFoundError(
            f"data.root={root} is missing. Pass data.root=<your folder or .csv file>. {EXAMPLE}"
        )
    if root.suffix.lower() in IMAGE_SUFFIXES:
        raise ValueError(f"data.root={root} is an image. Pass your folder or .csv file. {EXAMPLE}")
    return _from_csv(root, check_files)


def named_like_cameras(people: Iterable[str]) -> bool:
    """Return whether all person ids are names of cameras.

    Example:
        >>> named_like_cameras(["cam0", "cam1"]), named_like_cameras(["cam0", "anna"])
        (True, False)
    """
    names = list(people)
    return bool(names) and all(map(CAMERA_FOLDER.fullmatch, names))


def _from_folders(root: Path, present: list[str]) -> ImageSplits:
    images = {name: _images_of_folder(root / name) for name in present}
    tables = sorted(path.name for path in root.iterdir() if path.suffix.lower() == ".csv")
    notices = [
        f"{name} is not read, as {root} has folders of splits; pass data.root=<this file> to read "
        "it instead."
        for name in tables
    ]
    layout = ", ".join(f"{name}/" for name in present)
    return _splits(root, layout, images, notices, annotation_files=())


def _images_of_folder(folder: Path) -> list[_Image]:
    """Return the images of one split, sorted by path below ``folder``."""
    children = sorted(
        (child for child in folder.iterdir() if not child.name.startswith(".")),
        key=lambda child: child.name,
    )
    people = [child for child in children if child.is_dir()]
    files = [child for child in children if _is_image(child)]
    if people and files:
        raise ValueError(
            f"{folder} holds images, e.g. {files[0].name}, beside folders, e.g. {people[0].name}/. "
            "Put every image into the folder of its person, or none."
        )
    unlabelled = ""
    if folder.name == "train":
        if files and not any(_names_a_person(path) for path in files):
            return [_Image(path, None, _camera_id(path), folder.name) for path in files]
        unlabelled = " Where no name is of that kind, all are taken as images without labels."
    images: list[_Image] = []
    problems = []
    for path in files:
        try:
            named = parse_name(path.name)
        except ValueError:
            problems.append(f"{repr(path.name)[1:-1]}: the name does not follow the grammar")
            continue
        if named.camera_id > MAX_ID:
            problems.append(f"{path.name}: {TOO_LARGE}")
        # as it is written: a folder of another split may be called 0002 as well
        images.append(_Image(path, path.name.partition("_")[0], named.camera_id, folder.name))
    for person in people:
        for path in sorted(person.iterdir(), key=lambda path: path.name):
            if path.is_dir() and not path.name.startswith("."):
                problems.append(f"{person.name}/{path.name}: a folder inside that of a person")
            elif _is_image(path):
                images.append(_Image(path, person.name, _camera_id(path), folder.name))
    raise_problems(
        folder,
        problems,
        f"Images directly in {folder.name}/ are named {GRAMMAR}; otherwise put them into one "
        f"folder per person, without folders inside.{unlabelled}",
    )
    if not images:
        raise FileNotFoundError(
            f"{folder} holds no image; endings of images are {', '.join(IMAGE_SUFFIXES)}. Add "
            f"some, or remove the folder. {EXAMPLE}"
        )
    return images


def _names_a_person(path: Path) -> bool:
    try:
        parse_name(path.name)
    except ValueError:
        return False
    return True


def _camera_id(path: Path) -> int:
    found = CAMERA.search(path.stem)
    number = whole_number(found[1]) if found else None
    return -1 if number is None else number


def _is_image(path: Path) -> bool:
    # not is_file: a link to nowhere is an image that is missing
    visible = not path.name.startswith(".")
    return visible and path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()


def _only_csv(folder: Path) -> Path:
    found = sorted(child for child in folder.iterdir() if child.suffix.lower() == ".csv")
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        above = folder.absolute().parent
        tables = which_table(folder, (".csv",), REQUIRED)
        meant = f"Did you mean the folder above, data.root={above}? "
        holds = (
            f"data.root={folder} should hold folders of splits or one .csv file, but holds "
            f"{contents(folder)}"
        )
        if not found and (like := looks_like(folder, pairs=False)):
            raise FileNotFoundError(f"{holds}. {like}")
        raise FileNotFoundError(
            f"{holds}; .csv files: {names}. "
            f"{f'Pass {tables}. ' if tables else ''}"
            f"{meant if folder.absolute().name in SPLIT_NAMES else ''}{EXAMPLE}"
        )
    return found[0]


def _from_csv(path: Path, check_files: bool) -> ImageSplits:
    problems: list[str] = []
    images: dict[str, list[_Image]] = {name: [] for name in SPLIT_NAMES}
    seen: dict[str, list[tuple[int, Row]]] = {}
    ignored: set[str] = set()
    with_person: list[int] = []
    without_person: list[int] = []
    hints = MissingHints()
    text = read_table_text(path)
    example = f"{EXAMPLE} {WITH_CAPTIONS}" if "caption" in text.partition("\n")[0] else EXAMPLE
    rows = csv_rows(path, text, problems, required=REQUIRED, example=example)
    for line, row in rows:
        ignored |= set(row) - set(REQUIRED)
        complaint = _complaint(row) or _contradiction(row, seen.get(row["path"], []))
        image = path.parent / row.get("path", "")
        if complaint is None and check_files and not image.is_file():
            complaint = f"there is no file {image}; {hints.of(image)}"
        if complaint is not None:
            problems.append(f"line {line}: {complaint}")
            continue
        seen.setdefault(row["path"], []).append((line, row))
        camera_id = whole_number(row["camera_id"])
        camera_id = -1 if camera_id is None else camera_id
        origin = f"{path.name}, line {line}"
        images[row["split"]].append(_Image(image, row["person_id"] or None, camera_id, origin))
        if row["split"] == "train" and row["person_id"] != str(JUNK):
            (with_person if row["person_id"] else without_person).append(line)
    if with_person:
        problems += [
            f"line {line}: `person_id` is empty, but given in line {with_person[0]}; all training "
            "images have one, or none"
            for line in without_person
        ]
    raise_problems(path, problems, "Correct the file; nothing was read from it.")
    if not any(images.values()):
        raise ValueError(f"{path} holds no images. {EXAMPLE}")
    notices = [f"Columns that are not used: {', '.join(sorted(ignored))}."] if ignored else []
    for of_split in images.values():
        of_split.sort(key=lambda image: image.path.as_posix())
    present = {name: of_split for name, of_split in images.items() if of_split}
    return _splits(path.parent, path.name, present, notices, annotation_files=(path,))


def _complaint(row: Row) -> str | None:
    missing = [name for name in REQUIRED if name not in row]
    if missing:
        return f"{' and '.join(f'`{name}`' for name in missing)} should be given"
    if not row["path"]:
        return "`path` is empty"
    if row["split"] not in SPLIT_NAMES:
        return f"`split` should be one of {', '.join(SPLIT_NAMES)}, but is {row['split']!r}"
    if not row["person_id"] and row["split"] != "train":
        return f"`person_id` is empty; only training images may go without one, not {row['split']}"
    for name in ("path", "person_id"):
        if told := text_complaint(row[name], is_name=True):
            return f"`{name}` {told}"
    camera_id = row["camera_id"]
    if camera_id not in ("", "-1") and whole_number(camera_id) is None:
        return f"`camera_id` should be {CAMERA_IDS}, but is {camera_id!r}; {TOO_LARGE}"
    return None


def _contradiction(row: Row, earlier: list[tuple[int, Row]]) -> str | None:
    """Return what is wrong with naming an image again; only query and gallery may share one."""
    for line, first in earlier:
        for name in ("person_id", "camera_id"):
            if row[name] != first[name]:
                return (
                    f"image {row['path']!r} has `{name}` {row[name]!r}, but {first[name]!r} in "
                    f"line {line}"
                )
        if row["split"] == first["split"]:
            return f"image {row['path']!r} is in {row['split']} already, by line {line}; remove one"
        if {row["split"], first["split"]} not in PAIRED:
            return (
                f"image {row['path']!r} is in {row['split']}, but in line {line} in "
                f"{first['split']}; remove one"
            )
    return None


def _splits(
    root: Path,
    layout: str,
    images: Mapping[str, list[_Image]],
    notices: list[str],
    annotation_files: tuple[Path, ...],
) -> ImageSplits:
    for query, gallery in (("query", "gallery"), ("val_query", "val_gallery")):
        if (query in images) != (gallery in images):
            there, absent = (query, gallery) if query in images else (gallery, query)
            like = "" if annotation_files else looks_like(root, pairs=False)
            raise ValueError(
                f"{root / layout if annotation_files else root} has images of {there}, but none of "
                f"{absent}. "
                + (
                    like
                    or "Nothing can be evaluated with one of them: add the other, or remove both."
                )
            )
    people = {image.person for of_split in images.values() for image in of_split}
    person_id = number_people(person for person in people if person not in (None, str(JUNK)))
    own = itertools.count(max(person_id.values(), default=-1) + 1)
    records = {
        name: tuple(
            Record(
                image.path,
                next(own) if image.person is None else person_id[image.person],
                image.camera_id,
                origin=image.origin,
            )
            for image in of_split
            if image.person != str(JUNK)
        )
        for name, of_split in images.items()
    }
    notices = [*notices, *_notices(records, person_id)]
    if not (train_is_labelled := None not in people):
        notices.append(
            f"None of the {len(records['train']):,} training images has a person id: each counts "
            "as a person of its own. Train on them with a method that needs no identities."
        )
    return with_image_notices(
        ImageSplits(
            dataset="own images",
            root=root,
            layout=layout,
            train=records.get("train", ()),
            query=records.get("query", ()),
            gallery=records.get("gallery", ()),
            val_query=records.get("val_query", ()),
            val_gallery=records.get("val_gallery", ()),
            junk={name: len(images[name]) - len(records[name]) for name in images},
            notices=tuple(notices),
            annotation_files=annotation_files,
            train_is_labelled=train_is_labelled,
            own=True,
            people={number: name for name, number in person_id.items() if name != str(number)},
        )
    )


def _notices(records: Mapping[str, tuple[Record, ...]], person_id: dict[str, int]) -> list[str]:
    notices = people_notices(person_id)
    if named_like_cameras(person_id):
        notices.append(f"{NAMED_LIKE_CAMERAS} {CAMERA_FOLDERS}")
    unknown = sum(record.camera_id < 0 for of_split in records.values() for record in of_split)
    if unknown:
        notices.append(
            f"The camera of {counted(unknown, 'image')} is unknown: "
            f"{'it is' if unknown == 1 else 'they are'} never ignored for being by the query's "
            "camera."
        )
    trained = {record.person_id for record in records.get("train", ())}
    for gallery in ("gallery", "val_gallery"):
        shared = trained & {record.person_id for record in records.get(gallery, ())}
        if shared:
            notices.append(
                f"train and {gallery} share {counted(len(shared), 'person id')}; results mean "
                "little if these are the same people."
            )
    absent = [name for name in IMAGE_SPLITS if not records.get(name)]
    if absent:
        notices.append(f"There are no images of {' and '.join(absent)}.")
    return notices
