"""CSV tables that people write by hand or by program, read with the line of each mistake."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

Row = dict[str, str]


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
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}). {advice}") from error


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
            raise ValueError(
                f"{path}, line 1: no column {', '.join(missing)}; the header is "
                f"{','.join(header) or 'empty'}.{hint} {example}"
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
