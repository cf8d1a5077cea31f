"""CSV tables that people write by hand or by program, read with the line of each mistake."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from shlex import quote
from typing import Any

from crosswalk.words import counted

Row = dict[str, str]

MAX_ID = 2**63 - 10**9  # kept in 64 bits; images without a person are numbered from there on
CAMERA_IDS = "a whole number >= 0 or empty"
TOO_LARGE = "ids are numbers below 2**63"

OWN_COLUMNS = {
    "own_pairs": ("image", "caption", "person_id", "split"),
    "own_images": ("path", "person_id", "camera_id", "split"),
}
"""Columns that a table of one's own must have, by ``data=``."""

OWN_SUFFIXES = {".csv": "CSV", ".jsonl": "JSON lines", ".ndjson": "JSON lines"}

CALLED_ELSEWHERE = {
    "image": "path file file_path image_path img_path file_name img photo picture",
    "path": "image file image_path img_path file_name img photo picture",
    "caption": "text sentence description captions sentences",
    "person_id": "id pid identity person label person_name",
    "camera_id": "cam camid cam_id",
    "split": "set subset partition fold",
}
"""What other tables call a column, in small letters and with ``_`` for other signs."""


def read_table_text(path: Path, advice: str = "Save it again as UTF-8.") -> str:
    """Return the text of a table, or of another file that people write.

    Raises:
        ValueError: If it is not UTF-8; ``advice`` says what to do.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        ...     _ = file.write("path,split")
        ...     file.flush()
        ...     read_table_text(Path(file.name))
        'path,split'
    """
    if path.exists() and not path.is_file():  # reading a pipe or a device may never end
        raise ValueError(f"{path} is no plain file. {advice}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + error.object.count(b"\n", 0, error.start)
        place = f"line {line}, byte {error.start}"
        raise ValueError(f"{path} is not UTF-8 text ({place}). {advice}") from error


def read_fetched_text(path: Path, advice: str) -> str:
    """Return the text of a file that was downloaded, of which something must be there.

    Raises:
        ValueError: If it is not UTF-8, see `read_table_text`, or empty.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        ...     _ = file.write("[1, 2]")
        ...     file.flush()
        ...     read_fetched_text(Path(file.name), "Fetch it again.")
        '[1, 2]'
    """
    text = read_table_text(path, advice)
    if not text.strip():
        raise ValueError(
            f"{path} is empty. The download or copy was probably interrupted: fetch it again."
        )
    return text


def csv_rows(
    path: Path, text: str, problems: list[str], *, required: Sequence[str], example: str
) -> Iterator[tuple[int, Row]]:
    r"""Yield the line and the cells of each row, by column.

    Args:
        path: The file, for messages.
        text: Its content.
        problems: Gets a sentence for each row that cannot be read.
        required: Columns that the header must name.
        example: What a good header looks like, a whole sentence.

    Raises:
        ValueError: If the header lacks a column, or names one twice.

    Example:
        >>> text = "path,split\na.jpg,train\nb.jpg,query,3\n"
        >>> problems = []
        >>> list(csv_rows(Path("a.csv"), text, problems, required=["path"], example=""))
        [(2, {'path': 'a.jpg', 'split': 'train'})]
        >>> problems
        ['line 3: 3 cells, the header has 2; put text that holds a comma into "quotes"']
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        header = [name.strip() for name in next(reader, [])]
        missing = [name for name in required if name not in header]
        if missing:
            semicolons = len(header) == 1 and any(sign in header[0] for sign in ";\t")
            hint = " Separate the columns by commas." if semicolons else ""
            plain = {re.sub(r"\W+", "_", name).lower(): name for name in header}
            for name in missing:
                called = [each for each in plain if each in CALLED_ELSEWHERE.get(name, "").split()]
                if like := get_close_matches(name, plain, 1) or called:
                    hint += f" Is {plain[like[0]]} meant for {name}?"
            raise ValueError(
                f"{path}, line 1: no column {', '.join(missing)}; the header is "
                f"{','.join(header)[:200] or 'empty'}.{hint} {example}"
            )
        doubled = sorted({name for name in header if header.count(name) > 1})
        if doubled:
            raise ValueError(f"{path}, line 1: column {', '.join(doubled)} occurs twice.")
        line = reader.line_num + 1
        for cells in reader:
            if len(cells) > len(header):
                problems.append(
                    f"line {line}: {len(cells)} cells, the header has {len(header)}; put text "
                    'that holds a comma into "quotes"'
                )
            elif cells:
                cells = [cell.strip() for cell in cells]
                yield line, dict(zip(header, cells, strict=False))
            line = reader.line_num + 1
    except csv.Error as error:
        problems.append(f"line {line}: not readable as CSV ({error}); check the quotes")


def which_table(
    folder: Path,
    endings: Collection[str],
    *required: Collection[str],
    word: str = "data.root=",
) -> str:
    """Return which tables of a folder, or of those below it, may be meant; else nothing.

    Args:
        folder: What was named.
        endings: Of tables, such as ``.csv``.
        required: Columns of a table that can be read, of each kind of them; where some tables have
            them, only those are meant.
        word: What stands before a path in the command.
    """
    for pattern in ("*", "*/*"):
        found = sorted(path for path in folder.glob(pattern) if path.suffix.lower() in endings)
        have = [(path, columns_of(path)) for path in found]
        fitting = [path for path, names in have if any(names >= set(each) for each in required)]
        if found := fitting or found:
            named = " or ".join(f"{word}{quote(str(path))}" for path in found[:3])
            more = f" (there are {len(found)})" if len(found) > 3 else ""
            return f"{named}{more}"
    return ""


def columns_of(path: Path) -> set[str]:
    """Return the names in the first line of a table; none where it cannot be read.

    Example:
        >>> columns_of(Path("nowhere.csv"))
        set()
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline(1 << 16)
        if path.suffix.lower() == ".csv":
            return {name.strip() for name in next(csv.reader([line]), [])}
        return set(parse_json(line))
    except (OSError, ValueError, TypeError, csv.Error):
        return set()


def parse_json(text: str) -> Any:  # noqa: ANN401 - whatever the text holds
    """Return the content of a JSON text.

    Raises:
        json.JSONDecodeError: If it is not valid.
        ValueError: If it is nested too deeply, or holds a number of thousands of digits.

    Example:
        >>> parse_json('{"id": 7}')
        {'id': 7}
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("lists or objects are nested too deeply") from None
    except json.JSONDecodeError:
        raise
    except ValueError:
        raise ValueError("holds a number of thousands of digits") from None


def text_complaint(text: str, *, is_name: bool = False) -> str | None:
    """Return what is wrong with a text: what nothing can be written of, or no file be named.

    Example:
        >>> text_complaint("caf\u00e9"), text_complaint("a" + chr(0), is_name=True)
        (None, 'holds a NUL character')
        >>> text_complaint(chr(0xD800))
        'holds half a character (a lone surrogate)'
    """
    if is_name and chr(0) in text:
        return "holds a NUL character"
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        return "holds half a character (a lone surrogate)"
    return None


def whole_number(text: str) -> int | None:
    """Return a whole number from 0 to `MAX_ID`, written as 3 or 3.0; else None.

    Example:
        >>> whole_number("003"), whole_number("3.0"), whole_number("3.5"), whole_number("9" * 19)
        (3, 3, None, None)
    """
    digits = re.sub(r"\.0*$", "", text)
    if not digits.isdecimal() or len(digits) > 99:  # thousands of digits, and int() refuses them
        return None
    number = int(digits)
    return number if number <= MAX_ID else None


def number_people(people: Iterable[str]) -> dict[str, int]:
    """Return the number of each person: the one that the id is, or else its place in the alphabet.

    The ids of one's own data are texts: two that differ are two people. Numbers are kept if all ids
    are whole numbers up to `MAX_ID` and no two mean the same one.

    Example:
        >>> number_people(["0007", "0012"]), number_people(["ben", "anna", "7"])
        ({'0007': 7, '0012': 12}, {'7': 0, 'anna': 1, 'ben': 2})
    """
    names = sorted(set(people))
    numbers = [whole_number(name) if name.isdecimal() else None for name in names]
    if None not in numbers and len(set(numbers)) == len(names):
        return {name: int(name) for name in names}
    return {name: place for place, name in enumerate(names)}


def people_notices(person_id: dict[str, int]) -> list[str]:
    """Return what to tell of how people were numbered, whole sentences.

    Example:
        >>> people_notices({"ben": 1, "anna": 0})
        ['2 person ids were numbered in alphabetical order.']
        >>> people_notices({"0001": 0, "1": 1})[1]
        "Person ids '0001' and '1' are read as two people: ids are texts."
    """
    if all(name.isdecimal() and whole_number(name) == of for name, of in person_id.items()):
        return []
    notices = [f"{counted(len(person_id), 'person id', 'were')} numbered in alphabetical order."]
    first: dict[int, str] = {}
    for name in sorted(person_id):
        number = whole_number(name)
        if number is not None and first.setdefault(number, name) != name:
            notices.append(
                f"Person ids {first[number]!r} and {name!r} are read as two people: ids are texts."
            )
    return notices[:4]
