"""JSON annotations: finding the layout of a data set and checking its entries."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from shlex import quote
from typing import Any

from crosswalk.data.readers.records import (
    IMAGE_SPLITS,
    SPLITS,
    Counts,
    Record,
    Splits,
    with_notices,
)
from crosswalk.data.readers.tables import (
    OWN_COLUMNS,
    OWN_SUFFIXES,
    TOO_LARGE,
    columns_of,
    parse_json,
    read_fetched_text,
    text_complaint,
    whole_number,
)

EXPECTED_COUNTS_FILE = "expected_counts.json"

COUNTED: dict[tuple[str, ...], tuple[str, ...]] = {
    SPLITS: ("person_ids", "images", "captions"),
    IMAGE_SPLITS: ("person_ids", "images"),
}
"""What is counted in each split of a kind of data set."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout that matched: the folder, its annotation files, and a name to show the user."""

    folder: Path
    files: tuple[Path, ...]
    form: str
    name: str


def find_layout(
    root: Path,
    dataset: str,
    folders: Sequence[str],
    forms: Mapping[str, Sequence[str]],
    advice: str,
    *,
    what: str = "annotation file",
) -> Layout:
    """Return the first layout below ``root`` that is there.

    Args:
        root: ``data.root``.
        dataset: Name for messages.
        folders: Folders below ``root`` to look into, in order; ``.`` is ``root`` itself.
        forms: Files or folders that mark each form of the data set, by name, in order of
            preference. A form matches if one of them exists; the reader complains about others.
        advice: What to do if nothing matches, whole sentences.
        what: What the marks are, for messages.

    Raises:
        FileNotFoundError: If nothing matches.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as root:
        ...     (Path(root) / "RSTPReid").mkdir()
        ...     _ = (Path(root) / "RSTPReid/data_captions.json").write_text("[]")
        ...     forms = {"data_captions.json": ["data_captions.json"]}
        ...     find_layout(Path(root), "RSTPReid", ["RSTPReid", "."], forms, "Ask for it.").name
        'RSTPReid/data_captions.json'
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f"data.root={root} is not a folder. Pass data.root=<folder of {dataset}, or the folder "
            f"above it>. {advice}"
        )
    if (layout := first_layout(root, folders, forms)) is not None:
        return layout
    missing = f"No {what} of {dataset} below data.root={root}"
    if like := looks_like(root, pairs=dataset in map(PUBLISHED.get, OF_PAIRS)):
        raise FileNotFoundError(f"{missing}, which holds {contents(root)}. {like} {advice}")
    if table := _own_table(root, pairs=dataset in map(PUBLISHED.get, OF_PAIRS)):
        raise FileNotFoundError(f"{missing}, which holds {contents(root)}. {table} {advice}")
    above = root.absolute().parent
    if any((above / mark).exists() for marks in forms.values() for mark in marks):
        advice = f"Did you mean the folder above, data.root={above}? {advice}"
    if not any(root.iterdir()):
        raise FileNotFoundError(f"{missing}: the folder is empty. {advice}")
    below = " or ".join(f"{name}/" for name in folders if name != ".")
    raise FileNotFoundError(
        f"{missing}. Looked for {', '.join(forms)}, there and in {below}; the folder holds "
        f"{contents(root)}. {advice}"
    )


def _own_table(root: Path, *, pairs: bool) -> str:
    """Return how a table of one's own in a folder is taken, as a sentence; nothing without one."""
    name = "own_pairs" if pairs else "own_images"
    for table in sorted(root.iterdir()):
        if table.suffix.lower() in OWN_SUFFIXES and {*OWN_COLUMNS[name]} <= columns_of(table):
            return f"A table of your own is data={name} data.root={quote(str(table))}."
    return ""


def first_layout(
    root: Path, folders: Sequence[str], forms: Mapping[str, Sequence[str]]
) -> Layout | None:
    """Return what `find_layout` does; None where nothing matches.

    Example:
        >>> first_layout(Path("/nowhere"), ["."], {"lists": ["list_train.txt"]}) is None
        True
    """
    for name in folders:
        folder = root / name
        for form, marks in forms.items():
            present = tuple(folder / mark for mark in marks if (folder / mark).exists())
            if present:
                return Layout(folder, present, form, form if name == "." else f"{name}/{form}")
    return None


PUBLISHED = {
    "cuhk_pedes": "CUHK-PEDES",
    "icfg_pedes": "ICFG-PEDES",
    "rstp_reid": "RSTPReid",
    "market1501": "Market-1501",
    "dukemtmc": "DukeMTMC-reID",
    "msmt17": "MSMT17",
    "occluded_duke": "Occluded-Duke",
}
"""Names of data sets by ``data=``, which is what the module that reads them is called, too."""


OF_PAIRS = ("cuhk_pedes", "icfg_pedes", "rstp_reid")
"""Those of images with captions; the others are of images of people alone."""


def looks_like(root: Path, *, pairs: bool) -> str:
    """Return which published data set a folder may hold, as a sentence; nothing of another one.

    Those in a folder of their name come before those that are only laid out so.

    Args:
        root: The folder.
        pairs: Whether images with captions were looked for.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as root:
        ...     (Path(root) / "Market-1501" / "bounding_box_train").mkdir(parents=True)
        ...     looks_like(Path(root), pairs=False), looks_like(Path(root) / "Market", pairs=False)
        ('That looks like Market-1501: data=market1501.', '')
    """
    found: dict[str, bool] = {}
    for data in PUBLISHED:
        reader = import_module(f"crosswalk.data.readers.{data}")  # late: they import this module
        layout = first_layout(root, reader.FOLDERS, reader.FORMS)
        if layout is not None:
            names = {Path(name).name for name in reader.FOLDERS}
            found[data] = layout.folder.absolute().name in names
    meant = [data for data, is_named in found.items() if is_named or not any(found.values())]
    if not meant:
        return ""
    named = " or ".join(PUBLISHED[data] for data in meant)
    kinds = {data in OF_PAIRS for data in meant}
    other = "image-caption pairs" if kinds == {True} else "images of people"
    kind = "" if pairs in kinds else f", for methods that train on {other}"
    return f"That looks like {named}: {' or '.join(f'data={data}' for data in meant)}{kind}."


def contents(folder: Path) -> str:
    """Return the first names in a folder, for messages; folders end in a slash.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     (Path(name) / "test").mkdir()
        ...     (Path(name) / "readme.txt").touch()
        ...     contents(Path(name)), contents(Path(name) / "test")
        ('readme.txt, test/', 'nothing')
    """
    held = sorted(child.name + "/" * child.is_dir() for child in folder.iterdir())
    shown = ", ".join(held[:8]) + (f" and {len(held) - 8} more" if len(held) > 8 else "")
    return shown or "nothing"


def image_folder(folder: Path, names: Iterable[str]) -> Path:
    """Return the folder that image names are relative to: ``imgs/``, or ``folder`` itself.

    The folder itself counts only if there is no ``imgs/`` and the images, or the sub-folders
    they are named under, lie directly in it; otherwise missing images are named under ``imgs/``.

    Example:
        >>> image_folder(Path("nowhere"), ["train/0001.jpg"]).as_posix()
        'nowhere/imgs'
    """
    images = folder / "imgs"
    if images.is_dir():
        return images
    sources = sorted({Path(name).parts[0] for name in names if name})
    return folder if any((folder / source).exists() for source in sources) else images


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    """Return the content of a JSON file.

    Raises:
        ValueError: If the file is empty, cut off or not JSON, with the line.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        ...     _ = file.write("[1, 2]")
        ...     file.flush()
        ...     read_json(Path(file.name))
        [1, 2]
    """
    advice = "If it is an archive, unpack it first; otherwise fetch it again."
    text = read_fetched_text(path, advice)
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg}). The "
            "download or copy was probably interrupted: fetch the file again."
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}. It is not this annotation: fetch it again.") from error


def read_entries(path: Path) -> list[Any]:
    """Return the list of entries in a JSON annotation file, which may be under ``annotations``.

    Raises:
        ValueError: If there is no such list.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        ...     _ = file.write('{"annotations": [{"id": 1}]}')
        ...     file.flush()
        ...     read_entries(Path(file.name))
        [{'id': 1}]
    """
    content = read_json(path)
    if isinstance(content, dict):
        content = content.get("annotations")
    if not isinstance(content, list) or not content:
        raise ValueError(
            f"{path} holds no list of annotations. It is another file of the same name, or was cut "
            "off: fetch it again."
        )
    return content


@dataclass(frozen=True, slots=True)
class Entry:
    """One checked entry of a JSON annotation."""

    name: str
    person_id: int
    captions: tuple[str, ...]
    split: str | None
    origin: str


def parse_entries(
    path: Path, entries: Sequence[Any], *, image_keys: Sequence[str], id_key: str = "id"
) -> list[Entry]:
    """Return the entries of a JSON annotation, checked. Entries are counted from 0, as in Python.

    Captions may be a list (``captions``) or one sentence (``sentence``, ``caption``).

    Args:
        path: The file, for messages.
        entries: Its entries.
        image_keys: Keys that the image's name may stand under, in order of preference.
        id_key: Key of the identity.

    Raises:
        ValueError: Naming the first entries that are wrong, and how many there are.

    Example:
        >>> entry = {"split": "val", "id": 7, "img_path": "7_c1.jpg", "captions": ["A man."]}
        >>> parse_entries(Path("data_captions.json"), [entry], image_keys=["img_path"])[0].person_id
        7
    """
    checked, problems = [], []
    for index, entry in enumerate(entries):
        origin = f"{path.name}, entry {index}"
        if not isinstance(entry, dict):
            problems.append(f"entry {index} is {_shown(entry)}, not an object")
            continue
        name = next((entry[key] for key in image_keys if key in entry), None)
        captions = entry.get("captions", entry.get("sentence", entry.get("caption")))
        if isinstance(captions, str):
            captions = [captions]
        person_id = _whole_number(entry.get(id_key))
        split = entry.get("split")
        complaint = None
        if not isinstance(name, str) or not name.strip():
            complaint = f"`{image_keys[0]}` should name the image, but is {_shown(name)}"
        elif told := text_complaint(name, is_name=True):
            complaint = f"`{image_keys[0]}` {_shown(name)} {told}"
        elif Path(name).is_absolute() or ".." in Path(name).parts:
            complaint = f"`{image_keys[0]}` {name!r} should lie inside the image folder"
        elif person_id is None:
            shown = _shown(entry.get(id_key))
            complaint = f"`{id_key}` should be a whole number, but is {shown}; {TOO_LARGE}"
        elif not isinstance(captions, list) or not captions:
            complaint = f"`captions` should be a list of sentences, but is {_shown(captions)}"
        elif not all(isinstance(caption, str) for caption in captions):
            complaint = "`captions` holds something that is not a sentence"
        elif told := next(filter(None, map(text_complaint, captions)), None):
            complaint = f"a caption {told}"
        elif split is not None and split not in SPLITS:
            complaint = f"`split` should be train, val or test, but is {_shown(split)}"
        if complaint is not None:
            problems.append(f"entry {index}: {complaint}")
            continue
        assert isinstance(name, str)
        assert isinstance(captions, list)
        assert person_id is not None
        checked.append(Entry(name, person_id, tuple(captions), split, origin))
    raise_problems(
        path,
        problems,
        "Entries count from 0. Fetch the file again, or correct these entries in a copy outside "
        "the data set's folder.",
    )
    return checked


def split_by_name(path: Path, entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Return the entries of train, val and test, each in order.

    Raises:
        ValueError: If entries do not say which split they are of.

    Example:
        >>> entry = Entry("a.jpg", 3, ("red",), "test", "reid_raw.json, entry 0")
        >>> {name: len(of) for name, of in split_by_name(Path("reid_raw.json"), [entry]).items()}
        {'train': 0, 'val': 0, 'test': 1}
    """
    problems = [
        f"entry {index}: `split` should be train, val or test, but is missing"
        for index, entry in enumerate(entries)
        if entry.split is None
    ]
    raise_problems(
        path, problems, "If this is caption_all.json under another name, give it its name back."
    )
    return {name: [entry for entry in entries if entry.split == name] for name in SPLITS}


def merge_captions(entries: Iterable[Entry]) -> list[Entry]:
    """Return one entry per image and person, with the captions of all entries that repeat it.

    For annotations that have one entry per caption.

    Example:
        >>> red = Entry("a.jpg", 3, ("red",), "train", "train.json, entry 0")
        >>> blue = Entry("a.jpg", 3, ("blue",), "train", "train.json, entry 1")
        >>> merge_captions([red, blue])[0].captions
        ('red', 'blue')
    """
    merged: dict[tuple[str, int], tuple[Entry, list[str]]] = {}
    for entry in entries:
        merged.setdefault((entry.name, entry.person_id), (entry, []))[1].extend(entry.captions)
    return [replace(first, captions=tuple(captions)) for first, captions in merged.values()]


def to_records(
    entries: Iterable[Entry], images: Path, camera_pattern: re.Pattern[str] | None = None
) -> tuple[Record, ...]:
    r"""Return the record of each entry, in order.

    Args:
        entries: Checked entries.
        images: Folder that the image names are relative to.
        camera_pattern: Finds the camera number, as its first group, in an image's base name.

    Example:
        >>> entry = Entry("0001_c14_0033.jpg", 1, ("A man.",), "test", "f.json, entry 0")
        >>> to_records([entry], Path("imgs"), re.compile(r"_c(\d+)_"))[0].camera_id
        14
    """
    records = []
    for entry in entries:
        path = images / entry.name
        found = camera_pattern.search(path.name) if camera_pattern else None
        camera_id = whole_number(found[1]) if found else None
        camera_id = -1 if camera_id is None else camera_id
        records.append(Record(path, entry.person_id, camera_id, entry.captions, entry.origin))
    return tuple(records)


def to_splits(
    dataset: str,
    layout: Layout,
    entries: Mapping[str, Sequence[Entry]],
    published: Counts,
    *,
    camera: re.Pattern[str] | None = None,
    notices: Sequence[str] = (),
    pair_order_is_published: bool = True,
) -> Splits:
    """Return the splits of a data set, with notices of what is odd about them.

    Args:
        dataset: Its name, unless it calls itself otherwise in ``expected_counts.json``.
        layout: Where it lies.
        entries: Its entries by split.
        published: Its published counts.
        camera: Finds the camera in an image's name, see `to_records`.
        notices: What else to tell of it, whole sentences.
        pair_order_is_published: See `Splits`.

    Example:
        >>> entry = Entry("a.jpg", 3, ("A man.",), "val", "f.json, entry 0")
        >>> layout = Layout(Path("/nowhere"), (), "f.json", "f.json")
        >>> splits = to_splits("own", layout, {"train": [], "val": [entry], "test": []}, {})
        >>> splits.val[0].image_path
        PosixPath('/nowhere/imgs/a.jpg')
    """
    images = image_folder(layout.folder, [entry.name for of in entries.values() for entry in of])
    return with_notices(
        Splits(
            dataset=dataset_name(layout.folder, dataset),
            root=layout.folder,
            layout=layout.name,
            train=to_records(entries["train"], images, camera),
            val=to_records(entries["val"], images, camera),
            test=to_records(entries["test"], images, camera),
            notices=tuple(notices),
            published=expected_counts(layout.folder, published),
            pair_order_is_published=pair_order_is_published,
            image_folder=images,
            annotation_files=layout.files,
        )
    )


def raise_problems(path: Path, problems: Sequence[str], advice: str) -> None:
    """Raise a ValueError that lists the first of ``problems``, if there are any.

    Example:
        >>> raise_problems(Path("pairs.csv"), ["line 2: no caption"], "Write one.")
        Traceback (most recent call last):
        ValueError: pairs.csv, line 2: no caption. Write one.
    """
    if len(problems) == 1:
        raise ValueError(f"{path}, {problems[0]}. {advice}")
    if problems:
        more = f"\n  ... and {len(problems) - 5} more" if len(problems) > 5 else ""
        listed = "".join(f"\n  {problem}" for problem in problems[:5])
        raise ValueError(f"{path}: {len(problems)} problems:{listed}{more}\n{advice}")


def expected_counts(
    folder: Path, published: Counts | None, names: tuple[str, ...] = SPLITS
) -> Counts | None:
    """Return the counts that a data set should have: its own ones, or the published ones.

    A generated data set carries them in ``expected_counts.json``, as it is not the published one.

    Args:
        folder: Where it lies.
        published: Its published counts.
        names: The splits it may have: `SPLITS` or `IMAGE_SPLITS`.

    Example:
        >>> expected_counts(Path("/nowhere"), {"test": {"images": 3_074}})
        {'test': {'images': 3074}}
    """
    path = folder / EXPECTED_COUNTS_FILE
    if not path.is_file():
        return published
    content = read_json(path)
    splits = content.get("splits") if isinstance(content, dict) else None
    if not isinstance(splits, dict) or not all(
        name in names and isinstance(counts, dict) for name, counts in splits.items()
    ):
        *most, last = names
        raise ValueError(
            f"{path} should hold an object `splits` with counts of {', '.join(most)} and {last}. "
            "Generate the data set again with `crosswalk data synthesize`, or remove this file."
        )
    for name, counts in splits.items():
        for key in COUNTED[names]:
            if not _is_count(counts.get(key, 0)):
                raise ValueError(
                    f"{path}, `splits`, `{name}`: `{key}` should be a whole number, but is "
                    f"{_shown(counts[key])}. Correct it, or remove this file."
                )
    return {
        name: {key: int(counts[key]) for key in COUNTED[names] if key in counts}
        for name, counts in splits.items()
    }


def dataset_name(folder: Path, name: str) -> str:
    """Return what the data set calls itself in ``expected_counts.json``, or ``name``.

    Example:
        >>> dataset_name(Path("/nowhere"), "CUHK-PEDES")
        'CUHK-PEDES'
    """
    path = folder / EXPECTED_COUNTS_FILE
    content = read_json(path) if path.is_file() else {}
    return str(content.get("dataset", name)) if isinstance(content, dict) else name


def _whole_number(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    text = str(value).strip()
    number = whole_number(text.removeprefix("-"))
    return -number if number is not None and text.startswith("-") else number


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _shown(value: object) -> str:
    if value is None:
        return "missing"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
