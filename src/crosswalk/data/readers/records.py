"""Records of a data set, the same for every data set."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from crosswalk.image_files import file_sizes, same_pictures
from crosswalk.words import counted

SPLITS = ("train", "val", "test")

Counts = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Record:
    """One image with its captions, as the annotation gives it.

    Attributes:
        image_path: The image file; readers do not open it.
        person_id: Identity as numbered in the annotation. Ids mean something only within a split.
        camera_id: Camera as numbered in the file name, -1 where it is unknown.
        captions: Sentences about this image, in the order of the annotation.
        origin: Place in the annotation, for messages: ``reid_raw.json, entry 17``.
    """

    image_path: Path
    person_id: int
    camera_id: int = -1
    captions: tuple[str, ...] = ()
    origin: str = ""


@dataclass(frozen=True)
class Splits:
    """The records of a data set and where they come from.

    Attributes:
        dataset: Name of the data set, e.g. ``CUHK-PEDES``.
        root: The folder that holds it: the one that matched below ``data.root``.
        layout: Which of the accepted layouts matched, below ``data.root``.
        train: Training images, in the order of the annotation.
        val: Validation images; empty where the data set has no such split.
        test: Test images.
        notices: What the user should be told about these data, whole sentences.
        published: Counts expected per split (``person_ids``, ``images``, ``captions``), if known.
        pair_order_is_published: Whether the training pairs come in the order that the published
            noise-index files count in. Where False, such a file must be refused.
        image_folder: Folder that the image names in the annotation start from.
        annotation_files: The annotation files that were read.
        train_is_labelled: Whether the identities of the training images are known. Where not,
            each of them has a person id of its own, which means nothing.
        own: Whether these are somebody's own pictures, which are read as people see them. Those
            of published data sets are read as the published codes read them.
        people: What the data call a person, by number, where that is not the number itself.
    """

    dataset: str
    root: Path
    layout: str
    train: tuple[Record, ...]
    val: tuple[Record, ...]
    test: tuple[Record, ...]
    notices: tuple[str, ...] = ()
    published: Counts | None = None
    pair_order_is_published: bool = True
    image_folder: Path = field(default_factory=Path)
    annotation_files: tuple[Path, ...] = ()
    train_is_labelled: bool = True
    own: bool = False
    people: Mapping[int, str] = field(default_factory=dict)

    def split(self, name: str) -> tuple[Record, ...]:
        """Return the records of the split called ``name``.

        Example:
            >>> splits = Splits("own", Path(), "pairs.csv", (), (), (Record(Path("a.jpg"), 3),))
            >>> [record.person_id for record in splits.split("test")]
            [3]
        """
        if name not in SPLITS:
            raise ValueError(f"There is no split {name!r}; choose one of {', '.join(SPLITS)}.")
        records: tuple[Record, ...] = getattr(self, name)
        return records

    def person(self, person_id: int) -> str:
        """Return what the data call a person."""
        return self.people.get(person_id, str(person_id))

    def __iter__(self) -> Iterator[tuple[str, Record]]:
        for name in SPLITS:
            for record in self.split(name):
                yield name, record


IMAGE_SPLITS = ("train", "query", "gallery")


@dataclass(frozen=True)
class ImageSplits:
    """The records of an image re-identification data set and where they come from.

    Queries and gallery share person ids; training has ids of its own. Readers leave junk (person
    id -1: detections that are neither right nor wrong) out and count it.

    Attributes:
        dataset: Name of the data set, e.g. ``Market-1501``.
        root: The folder that holds it: the one that matched below ``data.root``.
        layout: Which of the accepted layouts matched, below ``data.root``.
        train: Training images, sorted by file name; empty where a set is only evaluated.
        query: Query images; empty where a set is only trained on.
        gallery: Gallery images, distractors included.
        val_query: Queries among people held out from training; empty unless a val split was made.
        val_gallery: Gallery of the same people.
        junk: Junk images left out, by split.
        notices: What the user should be told about these data, whole sentences.
        published: Counts expected per split (``person_ids``, ``images``), if known.
        annotation_files: Lists that were read; empty where the file names say everything.
        train_is_labelled: Whether the identities of the training images are known. Where not,
            each of them has a person id of its own, which means nothing.
        own: Whether these are somebody's own pictures, which are read as people see them. Those
            of published data sets are read as the published codes read them.
        people: What the data call a person, by number, where that is not the number itself.
    """

    dataset: str
    root: Path
    layout: str
    train: tuple[Record, ...]
    query: tuple[Record, ...]
    gallery: tuple[Record, ...]
    val_query: tuple[Record, ...] = ()
    val_gallery: tuple[Record, ...] = ()
    junk: Mapping[str, int] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    published: Counts | None = None
    annotation_files: tuple[Path, ...] = ()
    train_is_labelled: bool = True
    own: bool = False
    people: Mapping[int, str] = field(default_factory=dict)

    def split(self, name: str) -> tuple[Record, ...]:
        """Return the records of the split called ``name``.

        Example:
            >>> splits = ImageSplits("own", Path(), ".", (), (Record(Path("a.jpg"), 3),), ())
            >>> [record.person_id for record in splits.split("query")]
            [3]
        """
        names = (*IMAGE_SPLITS, "val_query", "val_gallery")
        if name not in names:
            raise ValueError(f"There is no split {name!r}; choose one of {', '.join(names)}.")
        records: tuple[Record, ...] = getattr(self, name)
        return records

    def person(self, person_id: int) -> str:
        """Return what the data call a person."""
        return self.people.get(person_id, str(person_id))

    def __iter__(self) -> Iterator[tuple[str, Record]]:
        for name in (*IMAGE_SPLITS, "val_query", "val_gallery"):
            for record in self.split(name):
                yield name, record


AnySplits = Splits | ImageSplits


def place_to_check(splits: AnySplits) -> Path:
    """Return what ``crosswalk data check`` is given to look at these data: a folder, or a table.

    Beside a table of one's own there may be others, and then the folder does not say which.

    Example:
        >>> place_to_check(Splits("own", Path("people"), "nowhere.csv", (), (), (), own=True))
        PosixPath('people')
    """
    table = splits.root / splits.layout
    return table if splits.own and table.is_file() else splits.root


def relabel(person_ids: Iterable[int]) -> dict[int, int]:
    """Return the training label 0..C-1 of each person id, in ascending order of the ids.

    A classifier needs labels without gaps; ascending order makes them the published ones
    (``id - 1`` on CUHK-PEDES, the id itself on ICFG-PEDES and RSTPReid).

    Example:
        >>> relabel([7, 3, 7, 12])
        {3: 0, 7: 1, 12: 2}
    """
    return {person_id: label for label, person_id in enumerate(sorted(set(person_ids)))}


def count(records: Sequence[Record]) -> dict[str, int]:
    """Return how many identities, images and captions ``records`` hold.

    Example:
        >>> count([Record(Path("a.jpg"), 3, captions=("red", "blue")), Record(Path("b.jpg"), 3)])
        {'person_ids': 1, 'images': 2, 'captions': 2}
    """
    return {
        "person_ids": len({record.person_id for record in records}),
        "images": len(records),
        "captions": sum(len(record.captions) for record in records),
    }


def count_deviations(splits: Splits | ImageSplits) -> list[str]:
    """Return one sentence per split whose counts are not the expected ones.

    Example:
        >>> published = {"test": {"images": 2}}
        >>> splits = Splits("own", Path(), "pairs.csv", (), (), (), published=published)
        >>> count_deviations(splits)
        ['test has 0 images, expected 2.']
    """
    sentences = []
    for name, expected in (splits.published or {}).items():
        found = count(splits.split(name))
        wrong = [
            f"{found[what]:,} {what.replace('_', ' ')}, expected {number:,}"
            for what, number in expected.items()
            if found[what] != number
        ]
        if wrong:
            sentences.append(f"{name} has {'; '.join(wrong)}.")
    return sentences


def of_one_person(splits: AnySplits) -> list[str]:
    """Return what to say of own splits whose gallery shows a single person, whole sentences.

    Example:
        >>> splits = Splits("own", Path(), "", (), (Record(Path("a.jpg"), 3),), (), own=True)
        >>> of_one_person(splits)[0][:27]
        'val shows a single person, '
    """
    galleries = {
        split: splits.split(f"{'val_' * (split == 'val')}gallery")
        if isinstance(splits, ImageSplits)
        else splits.split(split)
        for split in ("val", "test")
    }
    return [
        f"{split} shows a single person, so whatever the gallery answers is right and its measures "
        f"say nothing{' of which epoch is best' * (split == 'val')}. Give {split} more people."
        for split, gallery in galleries.items()
        if splits.own and len({record.person_id for record in gallery}) == 1
    ]


def with_notices(splits: Splits) -> Splits:
    """Return ``splits`` with notices of odd counts, shared person ids and empty captions added.

    Example:
        >>> record = Record(Path("a.jpg"), 3, captions=("",))
        >>> with_notices(Splits("own", Path(), "pairs.csv", (record,), (), ())).notices
        ('1 caption is empty.',)
    """
    notices = count_deviations(splits)
    ids = {name: {record.person_id for record in splits.split(name)} for name in SPLITS}
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = ids[first] & ids[second]
        if shared:
            notices.append(
                f"{first} and {second} share {counted(len(shared), 'person id')}; results mean "
                "little if these are the same people."
            )
    empty = sum(not caption.strip() for _, record in splits for caption in record.captions)
    if empty:
        notices.append(f"{counted(empty, 'caption', 'are')} empty.")
    return replace(splits, notices=splits.notices + tuple(notices))


def images_outside(splits: Splits | ImageSplits) -> list[Record]:
    """Return the records whose image lies outside the data set's folder, by its path.

    A link in the folder is in it, wherever it leads: whoever made it could have copied the image.

    Example:
        >>> named = [Record(Path("people") / name, 3) for name in ("a.jpg", "../b.jpg", "/c.jpg")]
        >>> splits = Splits("own", Path("people"), "pairs.csv", tuple(named), (), ())
        >>> [record.image_path.as_posix() for record in images_outside(splits)]
        ['people/../b.jpg', '/c.jpg']
    """
    inside = within(splits.root)
    return [record for _, record in splits if not inside(record.image_path)]


def within(folder: Path) -> Callable[[Path], bool]:
    """Return what says whether a path that was joined to ``folder`` stays in it; links do.

    Example:
        >>> inside = within(Path("people"))
        >>> inside(Path("people/a.jpg")), inside(Path("people/../b.jpg"))
        (True, False)
    """
    prefix = os.path.join(folder, "")
    roots = tuple(os.path.join(of(folder), "") for of in (os.path.abspath, os.path.realpath))

    def is_inside(image: Path) -> bool:
        path = str(image)
        if ".." in path:  # behind a link, .. is another folder than it looks
            return all(of(path).startswith(roots) for of in (os.path.abspath, os.path.realpath))
        return not os.path.isabs(path) or path.startswith((prefix, *roots))

    return is_inside


def refuse_outside(splits: Splits | ImageSplits) -> None:
    """Raise an error if images lie outside the data set's folder.

    Example:
        >>> refuse_outside(Splits("own", Path("people"), "pairs.csv", (), (), ()))
    """
    outside = images_outside(splits)
    if outside:
        first = outside[0]
        raise ValueError(
            f"{splits.root / splits.layout} names {len(outside):,} of its images outside its "
            f"folder, the first is {first.image_path} ({first.origin}). Copy them or link to them "
            "from the folder, or pass data.allow_outside=true if you trust this file."
        )


def repeated_images(records: Iterable[Record]) -> list[Path]:
    """Return the images that more than one record names, in order.

    Example:
        >>> repeated_images([Record(Path("a.jpg"), 3), Record(Path("a.jpg"), 4)])
        [PosixPath('a.jpg')]
    """
    times = Counter(record.image_path for record in records)
    return [path for path, number in times.items() if number > 1]


def image_folder(splits: AnySplits) -> Path:
    """Return the folder that image names start from.

    Example:
        >>> image_folder(ImageSplits("own", Path("people"), ".", (), (), ())).name
        'people'
    """
    return splits.image_folder if isinstance(splits, Splits) else splits.root


def fingerprint(splits: AnySplits) -> str:
    r"""Return 64 hexadecimal digits that identify annotation and image files.

    SHA-256 over one line per image, train, val and test in this order (image sets: train, query,
    gallery, val_query, val_gallery), each in the order of the reader: the JSON list ``[split, image
    name, person id, camera id, captions, bytes]`` as ASCII without spaces, and a line feed. The
    image name starts from the image folder and has forward slashes; ``bytes`` is the size of the
    file, -1 where it is missing. So the same data at another place, or copied, keep their
    fingerprint; times of files do not count, nor does the content of an image that changed without
    changing size.

    Example:
        >>> record = Record(Path("/nowhere/1.jpg"), person_id=3, captions=("A man.",))
        >>> splits = Splits("own", Path(), "f", (record,), (), (), image_folder=Path("/nowhere"))
        >>> line = b'["train","1.jpg",3,-1,["A man."],-1]\n'
        >>> fingerprint(splits) == hashlib.sha256(line).hexdigest()
        True
    """
    sizes = file_sizes({record.image_path for _, record in splits})
    digest = hashlib.sha256()
    folder = image_folder(splits)
    for name, record in splits:
        path = record.image_path
        row = [
            name,
            Path(os.path.relpath(path, folder)).as_posix(),
            record.person_id,
            record.camera_id,
            record.captions,
            sizes.get(path, -1),
        ]
        digest.update(json.dumps(row, separators=(",", ":")).encode("ascii") + b"\n")
    return digest.hexdigest()


def records_fingerprint(
    splits: Iterable[tuple[str, Record]], root: Path, facts: Callable[[Record], Sequence[object]]
) -> str:
    """Return a hash of all image names and of ``facts`` of them, the same on every machine.

    Example:
        >>> splits = [("train", Record(Path("data/a.jpg"), 3))]
        >>> moved = [("train", Record(Path("elsewhere/a.jpg"), 3))]
        >>> facts = lambda record: [record.person_id]
        >>> one = records_fingerprint(splits, Path("data"), facts)
        >>> one == records_fingerprint(moved, Path("elsewhere"), facts)
        True
    """
    digest = hashlib.sha256()
    for name, record in splits:
        image = record.image_path
        if image.is_relative_to(root):
            image = image.relative_to(root)
        digest.update(json.dumps([name, image.as_posix(), *facts(record)]).encode())
    return digest.hexdigest()[:16]


def shared_pictures(
    query: Sequence[Record], gallery: Sequence[Record]
) -> tuple[list[int], list[int]]:
    """Return the number of each picture that is in both, -1 for others.

    One file under one name, and files that are the same byte by byte, are one picture.

    Example:
        >>> one, two = (Record(Path(f"/nowhere/{name}.jpg"), 3) for name in "ab")
        >>> shared_pictures([one, two], [two])
        ([-1, 0], [0])
    """
    paths = [record.image_path for record in (*query, *gallery)]
    picture = {path: group[0] for group in same_pictures(paths) for path in group}
    sides = [
        [picture.get(record.image_path, record.image_path) for record in side]
        for side in (query, gallery)
    ]
    shared = set(sides[0]) & set(sides[1])
    number = {path: place for place, path in enumerate(sorted(shared))}
    first, second = ([number.get(path, -1) for path in side] for side in sides)
    return first, second
