"""People's own image-caption pairs, from one CSV or JSON-lines file.

Columns (CSV header) or keys (one JSON object per line): ``image``, ``caption``, ``person_id``,
``split`` and, where known, ``camera_id``. One row per caption; rows that name the same image add
captions to it. Image names start from the folder of the file. Where nobody knows the people of the
training images, ``person_id`` is empty (in JSON: or null) in all rows of train.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from crosswalk.data.readers.annotations import raise_problems
from crosswalk.data.readers.records import SPLITS, Record, Splits, with_notices
from crosswalk.data.readers.tables import Row, csv_rows, read_table_text

REQUIRED = ("image", "caption", "person_id", "split")
OPTIONAL = ("camera_id",)
SUFFIXES = {".csv": "CSV", ".jsonl": "JSON lines", ".ndjson": "JSON lines"}

EXAMPLE = (
    "The first line of a CSV is image,caption,person_id,split[,camera_id]; a JSON line is "
    '{"image": "a/1.jpg", "caption": "A man in red.", "person_id": 1, "split": "train"}.'
)


def read_own_pairs(path: Path) -> Splits:
    r"""Return the splits of a file of one's own pairs, checked row by row.

    Person ids may be numbers or names; names are numbered in alphabetical order. Training images
    without one are given a number each.

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
    checked = []
    for line, row in rows(path, text, problems):
        ignored |= set(row) - {*REQUIRED, *OPTIONAL}
        complaint = _complaint(row)
        if complaint is None:
            checked.append((line, row))
        else:
            problems.append(f"line {line}: {complaint}")
    by_image = _merge(checked, problems)
    problems += _half_labelled(by_image)
    raise_problems(path, problems, "Correct the file; nothing was read from it.")
    if not by_image:
        raise ValueError(f"{path} holds no pairs. {EXAMPLE}")
    return _splits(path, by_image, ignored)


def _pairs_file(path: Path) -> Path:
    if path.is_dir():
        found = sorted(child for child in path.iterdir() if child.suffix.lower() in SUFFIXES)
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            raise FileNotFoundError(
                f"data.root={path} should hold one .csv or .jsonl file of pairs, but holds "
                f"{names}. Pass data.root=<the file>. {EXAMPLE}"
            )
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
    return csv_rows(path, text, problems, required=REQUIRED, example=EXAMPLE)


def _json_rows(path: Path, text: str, problems: list[str]) -> Iterator[tuple[int, Row]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except json.JSONDecodeError as error:
            problems.append(f"line {line}, column {error.colno}: not valid JSON ({error.msg})")
            continue
        if not isinstance(row, dict):
            problems.append(f"line {line}: not a JSON object")
            continue
        yield (
            line,
            {
                key: "" if value is None else str(value).strip()
                for key, value in row.items()
                if isinstance(value, str | int | None) and not isinstance(value, bool)
            },
        )


def _complaint(row: Row) -> str | None:
    missing = [name for name in REQUIRED if name not in row]
    if missing:
        return f"{' and '.join(f'`{name}`' for name in missing)} should be given, as text or number"
    for name in ("image", "caption"):
        if not row[name]:
            return f"`{name}` is empty"
    if row["split"] not in SPLITS:
        return f"`split` should be train, val or test, but is {row['split']!r}"
    if not row["person_id"] and row["split"] != "train":
        return f"`person_id` is empty; only rows of train may go without one, not {row['split']}"
    camera_id = row.get("camera_id", "")
    if camera_id and not camera_id.isdecimal():
        return f"`camera_id` should be a whole number >= 0 or empty, but is {camera_id!r}"
    return None


def _merge(rows: list[tuple[int, Row]], problems: list[str]) -> dict[str, list[tuple[int, Row]]]:
    """Return the rows of each image; rows of one image must agree and must not repeat."""
    by_image: dict[str, list[tuple[int, Row]]] = {}
    for line, row in rows:
        of_image = by_image.setdefault(row["image"], [])
        for first_line, first in of_image:
            if first["caption"] == row["caption"]:
                problems.append(
                    f"line {line}: the same image and caption as line {first_line}; remove one"
                )
                break
            differing = [
                name
                for name in ("person_id", "split", "camera_id")
                if first.get(name, "") != row.get(name, "")
            ]
            if differing:
                name = differing[0]
                problems.append(
                    f"line {line}: image {row['image']!r} has `{name}` {row.get(name, '')!r}, but "
                    f"{first.get(name, '')!r} in line {first_line}"
                )
                break
        else:
            of_image.append((line, row))
    return by_image


def _half_labelled(by_image: dict[str, list[tuple[int, Row]]]) -> list[str]:
    """Return a problem for each training image without a person if others have one."""
    training = [rows[0] for rows in by_image.values() if rows[0][1]["split"] == "train"]
    known = [line for line, row in training if row["person_id"]]
    if not known:
        return []
    return [
        f"line {line}: `person_id` is empty, but given in line {known[0]}; all rows of train have "
        "one, or none"
        for line, row in training
        if not row["person_id"]
    ]


def _splits(path: Path, by_image: dict[str, list[tuple[int, Row]]], ignored: set[str]) -> Splits:
    people = {rows[0][1]["person_id"] for rows in by_image.values()}
    names = sorted(people - {""})
    numbers = [int(name) for name in names if _is_plain_number(name)]
    if len(numbers) == len(names):
        person_id = {name: int(name) for name in names}
    else:
        person_id = {name: number for number, name in enumerate(names)}
    own = itertools.count(max(person_id.values(), default=-1) + 1)
    records: dict[str, list[Record]] = {name: [] for name in SPLITS}
    for image, rows in by_image.items():
        line, row = rows[0]
        records[row["split"]].append(
            Record(
                path.parent / image,
                person_id[row["person_id"]] if row["person_id"] else next(own),
                int(row.get("camera_id") or -1),
                tuple(each["caption"] for _, each in rows),
                f"{path.name}, line {line}",
            )
        )
    notices = []
    if len(numbers) < len(names):
        notices.append(f"{len(names):,} person names were numbered in alphabetical order.")
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
    )
    return replace(with_notices(splits), notices=(*notices, *with_notices(splits).notices))


def _is_plain_number(name: str) -> bool:
    """Return whether a name is a number that no other name also writes, as 007 and 7 do."""
    return name.isdecimal() and str(int(name)) == name
