"""People's own image-caption pairs, from one CSV or JSON-lines file.

Columns (CSV header) or keys (one JSON object per line): ``image``, ``caption``, ``person_id``,
``split`` and, where known, ``camera_id``. One row per caption; rows that name the same image add
captions to it. Image names start from the folder of the file. Where nobody knows the people of the
training images, ``person_id`` is empty (in JSON: or null) in all rows of train.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from crosswalk.data.readers.annotations import contents, looks_like, raise_problems
from crosswalk.data.readers.records import SPLITS, Record, Splits, with_notices
from crosswalk.data.readers.tables import (
    CAMERA_IDS,
    OWN_COLUMNS,
    OWN_SUFFIXES,
    TOO_LARGE,
    Row,
    csv_rows,
    number_people,
    parse_json,
    people_notices,
    read_table_text,
    text_complaint,
    which_table,
    whole_number,
)

REQUIRED = OWN_COLUMNS["own_pairs"]
OPTIONAL = ("camera_id",)
SUFFIXES = OWN_SUFFIXES

EXAMPLE = (
    "The first line of a CSV is image,caption,person_id,split[,camera_id]; a JSON line is "
    '{"image": "a/1.jpg", "caption": "A man in red.", "person_id": 1, "split": "train"}.'
)

WITHOUT_CAPTIONS = (
    "Images of people without captions are own_images, a CSV of path,person_id,camera_id,split."
)


def read_own_pairs(path: Path) -> Splits:
    r"""Return the splits of a file of one's own pairs, checked row by row.

    Person ids are texts, see `number_people`. Training images without one are given a number each.

    Args:
        path: The file, or a folder that holds exactly one such file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If rows are wrong, with the file and line of the first ones.

    Example:
        >>> import tempfile
        >>> rows = "image,caption,person_id,split\n1.jpg,A man.,anna,val\n1.jpg,In red.,anna,val"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "pairs.csv").write_text(rows)
        ...     read_own_pairs(Path(folder)).val[0].captions
        ('A man.', 'In red.')
    """
    path = _pairs_file(Path(path))
    text = read_table_text(path)
    problems: list[str] = []
    ignored: set[str] = set()
    rows = _csv_rows if SUFFIXES[path.suffix.lower()] == "CSV" else _json_rows
    images: dict[str, _Image] = {}
    for line, row in rows(path, text, problems):
        ignored |= set(row) - {*REQUIRED, *OPTIONAL}
        complaint = _complaint(row) or _add(images, line, row)
        if complaint is not None:
            problems.append(f"line {line}: {complaint}")
    problems += _half_labelled(images.values())
    raise_problems(path, problems, "Correct the file; nothing was read from it.")
    if not images:
        raise ValueError(f"{path} holds no pairs. {EXAMPLE}")
    return _splits(path, images, ignored)


def _pairs_file(path: Path) -> Path:
    if path.is_dir():
        found = sorted(child for child in path.iterdir() if child.suffix.lower() in SUFFIXES)
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            holds = f"data.root={path} should hold one .csv or .jsonl file of pairs, but holds"
            if not found and (like := looks_like(path, pairs=True)):
                raise FileNotFoundError(f"{holds} {contents(path)}. {like}")
            table = which_table(path, SUFFIXES, REQUIRED) or "data.root=<the file>"
            raise FileNotFoundError(f"{holds} {names}. Pass {table}. {EXAMPLE}")
        return found[0]
    if not path.is_file():
        raise FileNotFoundError(
            f"data.root={path} is missing. Pass data.root=<your .csv or .jsonl file>. {EXAMPLE}"
        )
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"{path} should end in .csv or .jsonl, to say how it is written. Rename it. {EXAMPLE}"
        )
    return path


def _csv_rows(path: Path, text: str, problems: list[str]) -> Iterator[tuple[int, Row]]:
    example = EXAMPLE if "caption" in text.partition("\n")[0] else f"{EXAMPLE} {WITHOUT_CAPTIONS}"
    return csv_rows(path, text, problems, required=REQUIRED, example=example)


def _json_rows(path: Path, text: str, problems: list[str]) -> Iterator[tuple[int, Row]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            row = parse_json(content)
        except json.JSONDecodeError as error:
            problems.append(f"line {line}, column {error.colno}: not valid JSON ({error.msg})")
            continue
        except ValueError as error:
            problems.append(f"line {line}: {error}")
            continue
        if not isinstance(row, dict):
            problems.append(f"line {line}: not a JSON object")
            continue
        yield (
            line,
            {
                # 1.0 is the number 1, as programs write it whose columns have gaps
                key: "" if value is None else str(int(value) if is_whole else value).strip()
                for key, value in row.items()
                for is_whole in [isinstance(value, float) and value.is_integer()]
                if is_whole or (isinstance(value, str | int | None) and not isinstance(value, bool))
            },
        )


def _complaint(row: Row) -> str | None:
    missing = [name for name in REQUIRED if name not in row]
    if missing:
        return f"{' and '.join(f'`{name}`' for name in missing)} should be given, as text or number"
    for name in ("image", "caption"):
        if not row[name]:
            return f"`{name}` is empty"
    for name in ("image", "caption", "person_id"):
        if told := text_complaint(row[name], is_name=name == "image"):
            return f"`{name}` {told}"
    if row["split"] not in SPLITS:
        return f"`split` should be train, val or test, but is {row['split']!r}"
    if not row["person_id"] and row["split"] != "train":
        return f"`person_id` is empty; only rows of train may go without one, not {row['split']}"
    camera_id = row.get("camera_id", "")
    if camera_id and whole_number(camera_id) is None:
        return f"`camera_id` should be {CAMERA_IDS}, but is {camera_id!r}; {TOO_LARGE}"
    return None


@dataclass(slots=True)
class _Image:
    """The rows of one image, which must agree."""

    line: int
    facts: tuple[str, ...]
    captions: dict[str, int]
    """And the line of each."""


AGREEING = ("person_id", "split", "camera_id")


def _add(images: dict[str, _Image], line: int, row: Row) -> str | None:
    """Add a row to those of its image, or return what is wrong with it beside them."""
    facts = tuple(sys.intern(row.get(name, "")) for name in AGREEING)
    image = images.setdefault(row["image"], _Image(line, facts, {}))
    for name, value, first in zip(AGREEING, facts, image.facts, strict=True):
        if value != first:
            return (
                f"image {row['image']!r} has `{name}` {value!r}, but {first!r} in line {image.line}"
            )
    of_caption = image.captions.setdefault(row["caption"], line)
    if of_caption != line:
        return f"the same image and caption as line {of_caption}; remove one"
    return None


def _half_labelled(images: Iterable[_Image]) -> list[str]:
    """Return a problem for each training image without a person if others have one."""
    training = [image for image in images if image.facts[1] == "train"]
    known = next((image.line for image in training if image.facts[0]), None)
    if known is None:
        return []
    return [
        f"line {image.line}: `person_id` is empty, but given in line {known}; all rows of train "
        "have one, or none"
        for image in training
        if not image.facts[0]
    ]


def _splits(path: Path, images: Mapping[str, _Image], ignored: set[str]) -> Splits:
    people = {image.facts[0] for image in images.values()}
    person_id = number_people(people - {""})
    own = itertools.count(max(person_id.values(), default=-1) + 1)
    records: dict[str, list[Record]] = {name: [] for name in SPLITS}
    for name, image in images.items():
        person, split, camera_id = image.facts
        records[split].append(
            Record(
                path.parent / name,
                person_id[person] if person else next(own),
                -1 if not camera_id else int(whole_number(camera_id) or 0),
                tuple(image.captions),
                f"{path.name}, line {image.line}",
            )
        )
    notices = people_notices(person_id)
    if not (train_is_labelled := "" not in people):
        notices.append(
            f"None of the {len(records['train']):,} training images has a person id: each counts "
            "as a person of its own. Train on them with a method that needs no "
            "identities: others take other images of the same person for negatives."
        )
    if ignored:
        notices.append(f"Columns that are not used: {', '.join(sorted(ignored))}.")
    empty = [name for name in SPLITS if not records[name]]
    if empty:
        notices.append(f"No rows with split {' or '.join(empty)}.")
    splits = Splits(
        dataset="own pairs",
        root=path.parent,
        layout=path.name,
        train=tuple(records["train"]),
        val=tuple(records["val"]),
        test=tuple(records["test"]),
        image_folder=path.parent,
        annotation_files=(path,),
        train_is_labelled=train_is_labelled,
        own=True,
        people={number: name for name, number in person_id.items() if name != str(number)},
    )
    return replace(with_notices(splits), notices=(*notices, *with_notices(splits).notices))
