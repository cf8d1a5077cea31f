from pathlib import Path

import pytest

from crosswalk.data.readers.tables import Row, csv_rows, read_table_text, which_table


def read(text: str, *required: str) -> tuple[list[tuple[int, Row]], list[str]]:
    problems: list[str] = []
    rows = csv_rows(Path("t.csv"), text, problems, required=required, example="Write a,b.")
    return list(rows), problems


def test_rows_come_with_their_line() -> None:
    rows, problems = read('b,a\n1, 2 \n\n"x\ny",3\n4,\n', "a")

    assert rows == [
        (2, {"b": "1", "a": "2"}),
        (4, {"b": "x\ny", "a": "3"}),
        (6, {"b": "4", "a": ""}),
    ]
    assert problems == []


def test_short_rows_lack_their_last_columns() -> None:
    assert read("a,b,c\n1,2\n")[0] == [(2, {"a": "1", "b": "2"})]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a\n1\n", r"t\.csv, line 1: no column b; the header is a\. Write a,b\."),
        ("a,bb\n1,2\n", r"no column b; the header is a,bb\. Is bb meant for b\? Write a,b\."),
        ("a,B.\n1,2\n", r"the header is a,B\.\. Is B\. meant for b\? Write a,b\."),
        ("", r"no column a, b; the header is empty\. Write"),
        ("a;b\n", r"the header is a;b\. Separate the columns by commas\. Write"),
        ("a\tb\n", r"Separate the columns by commas"),
        ("a,b,a\n", r"t\.csv, line 1: column a occurs twice"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read(text, "a", "b")


def test_tables_that_can_be_read_are_meant_before_others(tmp_path: Path) -> None:
    (tmp_path / "bom.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "other.csv").write_text("path,split\n")
    assert which_table(tmp_path, [".csv"], ["a", "b"], word="root=") == (
        f"root={tmp_path / 'bom.csv'} or root={tmp_path / 'other.csv'}"
    )

    (tmp_path / "mine.csv").write_text("b, c,a\n1,2,3\n")
    (tmp_path / "lines.jsonl").write_text('{"b": 1, "a": 2}\n')
    (tmp_path / "list.jsonl").write_text("3\n")
    meant = which_table(tmp_path, [".csv", ".jsonl"], ["a", "b"], ["d"], word="root=")
    assert meant == f"root={tmp_path / 'lines.jsonl'} or root={tmp_path / 'mine.csv'}"


def test_rows_that_cannot_be_read_become_problems() -> None:
    rows, problems = read('a,b\n1,2,3\n4,5\n"6\n', "a")

    assert rows == [(3, {"a": "4", "b": "5"})]
    assert problems == [
        'line 2: 3 cells, the header has 2; put text that holds a comma into "quotes"',
        "line 4: not readable as CSV (unexpected end of data); check the quotes",
    ]


def test_text_is_read_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbfa,b")

    assert read_table_text(path) == "a,b"


def test_other_encodings_are_told(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"caf\xe9")

    with pytest.raises(ValueError, match=r"t\.csv is not UTF-8 text \(line 1, byte 3\)\. Save"):
        read_table_text(path)
