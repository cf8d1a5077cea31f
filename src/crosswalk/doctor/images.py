"""What the doctor finds out about sets of images without captions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from crosswalk.data.readers import dukemtmc, market1501, msmt17, occluded_duke, own_images
from crosswalk.data.readers.annotations import EXPECTED_COUNTS_FILE, Layout, first_layout, read_json
from crosswalk.data.readers.camera_names import IMAGE_SUFFIXES
from crosswalk.data.readers.camstyle import camstyle_files, find_camstyle
from crosswalk.data.readers.image_folders import MARKET_FOLDERS
from crosswalk.data.readers.records import (
    IMAGE_SPLITS,
    AnySplits,
    ImageSplits,
    Record,
    count,
    shared_pictures,
)
from crosswalk.data.readers.tables import read_table_text
from crosswalk.doctor.findings import Finding, found, shared_identities
from crosswalk.image_files import same_pictures
from crosswalk.words import counted

ALL_SPLITS = (*IMAGE_SPLITS, "val_query", "val_gallery")
EVALUATED = {"test": ("query", "gallery"), "val": ("val_query", "val_gallery")}

# What tells the sets apart that are laid out like Market-1501: the rest of the name.
NAME_STYLES = {
    "market1501": re.compile(r"(-1|\d+)_c\ds\d_\d+_\d+\.jpg", re.ASCII),
    "dukemtmc": re.compile(r"\d+_c\d_f\d+\.jpg", re.ASCII),
}
FOLDER_NAMES = {
    "occluded": "occluded_duke",
    "market": "market1501",
    "duke": "dukemtmc",
    "msmt17": "msmt17",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A kind of data set that can be checked: how to find and to read it."""

    name: str
    read: Callable[[Path], AnySplits]
    find: Callable[[Path], Layout | None]


def published(name: str, reader: ModuleType, read: Callable[[Path], AnySplits]) -> Source:
    """Return a published data set, which lies where its reader looks for it.

    Example:
        >>> published("MSMT17", msmt17, msmt17.read_msmt17).find(Path("/nowhere"))
    """

    def find(root: Path) -> Layout | None:
        return first_layout(root, reader.FOLDERS, reader.FORMS)

    return Source(name, read, find)


class CamStyle(NamedTuple):
    """The camera-style images of a set.

    Attributes:
        records: Those that are complete and can be read in training.
        notices: What there is, whole sentences.
        findings: What is wrong with them.
    """

    records: tuple[Record, ...] = ()
    notices: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


def table_columns(path: Path) -> set[str]:
    r"""Return the words of the first line of a table: the columns of a CSV, keys of JSON lines.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     table = Path(name) / "images.csv"
        ...     _ = table.write_text("path,person_id\na.jpg,3\n")
        ...     sorted(table_columns(table))
        ['path', 'person_id']
    """
    try:
        return set(re.findall(r"\w+", read_table_text(path).partition("\n")[0].lower()))
    except ValueError:
        return set()


def _find_own_images(root: Path) -> Layout | None:
    if root.is_dir():
        present = tuple(
            root / name for name in own_images.SPLIT_NAMES if _holds_images(root / name)
        )
        if present:
            form = ", ".join(f"{path.name}/" for path in present)
            return Layout(root, present, form, form)
        tables = [path for path in sorted(root.iterdir()) if path.suffix.lower() == ".csv"]
    else:
        tables = [root] if root.is_file() and root.suffix.lower() == ".csv" else []
    if len(tables) != 1 or "path" not in table_columns(tables[0]):
        return None
    return Layout(tables[0].parent, (tables[0],), tables[0].name, tables[0].name)


IMAGE_SOURCES = {
    "market1501": published("Market-1501", market1501, market1501.read_market1501),
    "dukemtmc": published("DukeMTMC-reID", dukemtmc, dukemtmc.read_dukemtmc),
    "msmt17": published("MSMT17", msmt17, msmt17.read_msmt17),
    "occluded_duke": published("Occluded-Duke", occluded_duke, occluded_duke.read_occluded_duke),
    "own_images": Source(
        "own images", partial(own_images.read_own_images, check_files=False), _find_own_images
    ),
}


def detect_images(root: Path) -> list[str]:
    """Return which published image sets lie at ``root``, as keys of `IMAGE_SOURCES`.

    Folders laid out like Market-1501 that lie directly in ``root`` may be any of the four: what
    they call themselves, the names of the images and that of the folder decide, in this order.

    Example:
        >>> detect_images(Path("/nowhere"))
        []
    """
    found = {key: source.find(root) for key, source in IMAGE_SOURCES.items() if key != "own_images"}
    layouts = {key: layout for key, layout in found.items() if layout is not None}
    of_folder: dict[Path, list[str]] = {}
    for key, layout in layouts.items():
        of_folder.setdefault(layout.folder, []).append(key)
    for folder, keys in of_folder.items():
        if len(keys) > 1:
            kept = _whose(folder)
            for key in set(keys) - {kept}:
                del layouts[key]
    return list(layouts)


def image_counts(splits: ImageSplits) -> dict[str, dict[str, int]]:
    """Return identities, images, cameras and junk of every split that has images.

    Training images without labels have no identities.

    Example:
        >>> splits = ImageSplits("own", Path(), ".", (Record(Path("a.jpg"), 3, 2),), (), ())
        >>> image_counts(splits)["train"]
        {'person_ids': 1, 'images': 1, 'cameras': 1, 'junk': 0}
    """
    counts = {}
    for name in ALL_SPLITS:
        records = splits.split(name)
        if not records and name not in IMAGE_SPLITS:
            continue
        numbers = count(records)
        known = name != "train" or splits.train_is_labelled
        counts[name] = {
            "person_ids": numbers["person_ids"] if known else 0,
            "images": numbers["images"],
            "cameras": len({record.camera_id for record in records if record.camera_id >= 0}),
            "junk": splits.junk.get(name, 0),
        }
    return counts


def images_by_camera(splits: ImageSplits) -> dict[str, dict[str, int]]:
    """Return the images of every split by camera, in ascending order, unknown ones last.

    Example:
        >>> train = (Record(Path("a.jpg"), 3, 2), Record(Path("b.jpg"), 3))
        >>> images_by_camera(ImageSplits("own", Path(), ".", train, (), ()))
        {'2': {'train': 1}, 'unknown': {'train': 1}}
    """
    table: dict[int, dict[str, int]] = {}
    for name, record in splits:
        row = table.setdefault(record.camera_id, {})
        row[name] = row.get(name, 0) + 1
    cameras = sorted(table, key=lambda camera: (camera < 0, camera))
    return {"unknown" if camera < 0 else str(camera): table[camera] for camera in cameras}


def camera_style_images(splits: ImageSplits) -> CamStyle:
    """Return what there is of camera-style images, which MMCL trains on.

    Example:
        >>> splits = ImageSplits("own", Path("/nowhere"), ".", (), (), ())
        >>> camera_style_images(splits).notices[0][:28]
        'Camera-style images: none in'
    """
    num_cameras = max((record.camera_id for _, record in splits), default=0)
    folder = camstyle_files(splits, num_cameras).folder
    try:
        files = find_camstyle(splits, num_cameras)
    except (FileNotFoundError, ValueError) as error:
        finding = Finding(
            "warning",
            "camera_style",
            "The camera-style images cannot be used as they are.",
            "Training would stop: pass data.camstyle=off, or complete them.",
            (str(error),),
        )
        return CamStyle(findings=(finding,))
    if files is None and splits.own:
        return CamStyle()
    if files is None:
        return CamStyle(
            notices=(
                f"Camera-style images: none in {folder.name}/; training takes the images alone. "
                "docs/datasets.md says what they are.",
            )
        )
    records = tuple(
        Record(files.path(record, camera_id), record.person_id, camera_id, origin=folder.name)
        for record in splits.train
        for camera_id in range(1, num_cameras + 1)
        if camera_id != record.camera_id
    )
    notice = (
        f"Camera-style images: {len(records):,} in {folder.name}/, one for every training image "
        f"and each of the other cameras ({num_cameras - 1}); training uses them unless "
        "data.camstyle=off."
    )
    return CamStyle(records, (notice,))


def image_set_findings(splits: ImageSplits, key: str) -> list[Finding]:
    """Return what is suspicious about identities, cameras and pictures; broken files aside.

    Args:
        splits: What the reader returned.
        key: Key of `IMAGE_SOURCES`.

    Example:
        >>> image = Record(Path("/nowhere/a.jpg"), 3, 1)
        >>> splits = ImageSplits("own", Path("/nowhere"), ".", (), (image,), (image,))
        >>> [finding.code for finding in image_set_findings(splits, "market1501")]
        ['query_without_match', 'image_in_two_splits']
    """
    return [
        *_persons_named_like_cameras(splits),
        *_shared_identities(splits, key),
        *_queries_without_match(splits),
        *_shared_files(splits, key),
        *_same_pictures(splits),
    ]


def set_notices(splits: ImageSplits, key: str) -> list[str]:
    """Return what to know about a data set that is not wrong.

    Example:
        >>> set_notices(ImageSplits("own", Path(), ".", (), (), ()), "own_images")
        []
    """
    notices = []
    if key == "msmt17" and _ids(splits, ("train",)) & _ids(splits, EVALUATED["test"]):
        notices.append(
            "Person ids count from 0 in training and again in test: these are different people."
        )
    if key == "msmt17" and (splits.root / "list_val.txt").is_file():
        notices.append(
            "Counted with data.reader.train_split=trainval, list_train and list_val together; "
            "train leaves list_val out, as several toolboxes do. Results of the two do not "
            "compare."
        )
    return notices


def _whose(folder: Path) -> str:
    """Return the key of a set laid out like Market-1501 in a folder that says too little."""
    if any((folder / f"list_{name}.txt").is_file() for name in ("train", "query", "gallery")):
        return "msmt17"
    record = folder / EXPECTED_COUNTS_FILE
    if record.is_file():
        try:
            content = read_json(record)
        except ValueError:
            content = {}  # the reader will complain
        made = content.get("layout") if isinstance(content, dict) else None
        if made in FOLDER_NAMES.values():
            return str(made)
    called = folder.resolve().name.lower()
    named = next((key for word, key in FOLDER_NAMES.items() if word in called), "market1501")
    for name in MARKET_FOLDERS.values():
        images = sorted((folder / name).glob("*.jpg"))[:1]
        for key, style in NAME_STYLES.items():
            if images and style.fullmatch(images[0].name):
                return named if key == "dukemtmc" and named == "occluded_duke" else key
    return named


def _holds_images(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    inside = [folder, *(child for child in sorted(folder.iterdir()) if child.is_dir())]
    return any(
        path.suffix.lower() in IMAGE_SUFFIXES for each in inside[:3] for path in each.iterdir()
    )


def _ids(splits: ImageSplits, names: Sequence[str]) -> set[int]:
    return {record.person_id for name in names for record in splits.split(name)}


def _persons_named_like_cameras(splits: ImageSplits) -> list[Finding]:
    if not own_images.named_like_cameras(splits.people.values()):
        return []
    told = own_images.NAMED_LIKE_CAMERAS
    names = tuple(splits.people.values())
    return [Finding("warning", "person_like_camera", told, own_images.CAMERA_FOLDERS, names)]


def _shared_identities(splits: ImageSplits, key: str) -> list[Finding]:
    if key == "msmt17":  # whose ids restart in test
        return []
    groups = {"train": ("train",), **EVALUATED}
    people = {name: _ids(splits, parts) for name, parts in groups.items()}
    return shared_identities(people, called=splits.person)


def _queries_without_match(splits: ImageSplits) -> list[Finding]:
    findings = []
    for query, gallery in EVALUATED.values():
        queries, images = splits.split(query), splits.split(gallery)
        numbers = [-1] * len(queries), [-1] * len(images)
        if splits.own:
            numbers = shared_pictures(queries, images)
        seen: dict[int, set[tuple[int, int]]] = {}
        for record, number in zip(images, numbers[1], strict=True):
            seen.setdefault(record.person_id, set()).add((record.camera_id, number))
        absent, same_camera, itself = [], [], set()
        for record, number in zip(queries, numbers[0], strict=True):
            cameras = set()
            for camera, other in seen.get(record.person_id, ()):
                if number < 0 or other != number:
                    cameras.add(camera)
                elif not camera == record.camera_id >= 0:  # else the camera rule hides it anyway
                    itself.add(record.image_path)
            if not cameras:
                absent.append(record)
            elif record.camera_id >= 0 and cameras == {record.camera_id}:
                same_camera.append(record)
        if itself:
            findings.append(
                Finding(
                    "warning",
                    "query_in_gallery",
                    f"{len(itself):,} of {counted(len(queries), 'image')} of {query} are in the "
                    f"{gallery} too, as the same file or a copy of it.",
                    "Such a picture is left out of the ranking of its own query, and counts for "
                    "others. Take it out of one of them where it is no picture of its own.",
                    tuple(map(str, sorted(itself))),
                )
            )
        lost = len(absent) + len(same_camera)
        if not lost:
            continue
        parts = []
        if absent:
            only = ", or only as the query itself" if itself else ""
            parts.append(f"the person of {len(absent):,} is not in the {gallery}{only}")
        if same_camera:
            parts.append(
                f"the person of {len(same_camera):,} is there by the camera of the query only, "
                "and such images are ignored"
            )
        everything = lost == len(queries)
        step = (
            "Nothing can be measured: check the ids of the query and gallery images."
            if everything
            else "They are left out of every measure; others do the same."
        )
        if same_camera:
            step += " data.camera_rule=false counts matches by the same camera."
        findings.append(
            Finding(
                "error" if everything else "warning",
                "query_without_match",
                f"{lost:,} of {counted(len(queries), 'image')} of {query} have no match: "
                f"{'; '.join(parts)}.",
                step,
                tuple(
                    f"{record.image_path} (person {splits.person(record.person_id)}, "
                    f"camera {record.camera_id})"
                    for record in [*absent, *same_camera]
                ),
            )
        )
    return findings


def _shared_files(splits: ImageSplits, key: str) -> list[Finding]:
    where: dict[Path, list[str]] = {}
    for name, record in splits:
        where.setdefault(record.image_path, []).append(name)
    allowed = [set(roles) for roles in EVALUATED.values()] if key == "own_images" else []
    return found(
        "error",
        "image_in_two_splits",
        "image",
        "in two splits.",
        "Give each image one split; fetch the lists again if they are not your own.",
        [
            f"{path} ({', '.join(names)})"
            for path, names in where.items()
            if len(names) > 1 and set(names) not in allowed
        ],
    )


def _person(splits: ImageSplits, name: str, record: Record) -> tuple[bool, str]:
    """Return who is in an image; training has ids of its own, and may know nobody."""
    train = name == "train"
    known = not train or splits.train_is_labelled
    return train, splits.person(record.person_id) if known else "unknown"


def _same_pictures(splits: ImageSplits) -> list[Finding]:
    """Return what is wrong with files of other names and the same content."""
    of_path = {record.image_path: (name, record) for name, record in splits}
    harmful: list[str] = []
    harmless: list[str] = []
    for group in same_pictures(of_path):
        of_group = [of_path[path] for path in group]
        splits_of_group = {name for name, _ in of_group}
        crossed = "train" in splits_of_group and len(splits_of_group) > 1
        people = {_person(splits, name, record) for name, record in of_group}
        told = " = ".join(
            f"{record.image_path} ({name}, person {_person(splits, name, record)[1]})"
            for name, record in of_group
        )
        (harmful if crossed or len(people) > 1 else harmless).append(told)
    return [
        *found(
            "warning",
            "same_picture",
            "picture",
            "there under several names, as different people or in training and test.",
            "Look at them: the labels of one copy are wrong, or test shows what was trained on. "
            "Remove copies in a set of your own.",
            harmful,
        ),
        *found(
            "warning",
            "repeated_picture",
            "picture",
            f"there under several names{' of one person' if splits.train_is_labelled else ''}.",
            "They count several times. Published sets are best left as they are; remove copies in "
            "a set of your own.",
            harmless,
        ),
    ]
