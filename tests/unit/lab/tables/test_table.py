"""Tables as they are read and shown."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crosswalk.lab.tables.document import render_markdown
from crosswalk.lab.tables.kept import read_results
from crosswalk.lab.tables.manifest import Manifest
from crosswalk.lab.tables.page import render_html
from crosswalk.lab.tables.terminal import render_terminal, verdict_json
from crosswalk.lab.tables.verdict import Verdict, judge
from tests.unit.lab.small_tables import runs_with, small_manifest, spread_over_queries
from tests.unit.narrow import WIDTHS, figures, plain
from tests.unit.narrow import terminal as narrow_terminal

ROWS = [
    {"name": "A", "published": [70.0, 60.0], "note": "As the paper trains it."},
    {"name": "B", "published": [69.0, None]},
    {"name": "C | last", "published": [60.0, 50.0]},
    {"name": "D", "published": None, "synthetic": "it needs names"},
]
OTHERS = {
    "references": [{"name": "IRRA", "published": [73.38, 66.13], "source": "as quoted"}],
    "not_offered": [{"name": "BERT", "reason": "no such reader", "published": None}],
}

OTHER_CODE = dict.fromkeys("ABCD", "000000000000")


ONE_EACH = {"A": {1: (50.0, 50.0)}, "B": {1: (53.0, 51.0)}}


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return small_manifest(tmp_path, ROWS, **OTHERS)


def some_runs(manifest: Manifest) -> list[dict[str, Any]]:
    numbers = {
        "A": {1: (50.0, 50.0), 2: (52.0, 50.0), 3: (51.0, 50.0)},
        "B": {1: (53.0, 51.0)},
    }
    return runs_with(manifest, numbers)


def terminal(verdict: Verdict) -> str:
    output = io.StringIO()
    render_terminal(verdict, file=output)
    return output.getvalue()


def lines_with(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_markdown_shows_published_obtained_difference_and_runs(manifest: Manifest) -> None:
    text = render_markdown(judge(manifest, some_runs(manifest)))

    header = (
        "| row | runs | verdict | R@1 published | R@1 obtained | R@1 difference | mAP published"
    )
    assert lines_with(text, header)
    # t(2) = 4.303, std 1: 51 ± 4.97; of mAP the std is 0
    assert lines_with(text, "| A |")[0] == (
        "| A | 3 | below published in all metrics | 70.00 | 51.00 ± 1.00 | -19.00 "
        "| 60.00 | 50.00 ± 0.00 | -10.00 |"
    )
    assert lines_with(text, "| B |")[0] == (
        "| B | 1 of 3 | one run: spread unknown | 69.00 | 53.00 | -16.00 | - | 51.00 | - |"
    )
    assert lines_with(text, r"| C \| last |")[0] == (
        r"| C \| last | not run | not run | 60.00 | not run | - | 50.00 | not run | - |"
    )


def test_markdown_sets_apart_what_is_never_run(manifest: Manifest) -> None:
    text = render_markdown(judge(manifest, some_runs(manifest)))

    others = text.partition("## Other methods, as published; not run")[2]
    assert lines_with(others, "| IRRA |") == ["| IRRA | 73.38 | 66.13 | as quoted |"]
    assert lines_with(others, "| BERT |") == ["| BERT | - | - | no such reader |"]
    assert "IRRA" not in text.partition("## ")[0]


def test_markdown_lists_the_runs_below_the_numbers(manifest: Manifest) -> None:
    text = render_markdown(judge(manifest, some_runs(manifest)))

    runs = text.partition("## Runs")[2]
    assert lines_with(runs, "| A |") == [
        "| A | 1, 2, 3 | 0123456 | aaaabbbbcccc "
        "| `crosswalk train method=rde data=cuhk_pedes trainer.max_epochs=1 seed=1` |"
    ]


def test_numbers_of_other_data_have_no_difference(manifest: Manifest) -> None:
    manifest = manifest.with_data("synthetic_pairs")

    text = render_markdown(judge(manifest, some_runs(manifest)))

    assert text.startswith("# Small; here on synthetic_pairs\n")
    assert "Absolute numbers are not compared" in text
    assert "difference |" not in text
    assert "| D | not run | not run here: it needs names |" in text
    assert lines_with(text, "| R@1 | A | B |") == [
        "| R@1 | A | B | +1.00 | -3.00 | 1 | not kept | flips, spread unknown |"
    ]


def test_markdown_does_not_depend_on_the_code_that_is_installed(manifest: Manifest) -> None:
    runs = some_runs(manifest)

    assert render_markdown(judge(manifest, runs, code=OTHER_CODE)) == render_markdown(
        judge(manifest, runs)
    )


@pytest.mark.parametrize("data", ["cuhk_pedes", "synthetic_pairs"])
def test_the_terminal_stays_within_100_columns(
    manifest: Manifest, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    manifest = manifest.with_data(data)

    text = terminal(judge(manifest, some_runs(manifest), code=OTHER_CODE))

    assert max(map(len, text.splitlines())) <= 100
    assert "51.00 ± 1.00" in text
    assert "1 of 3" in text
    assert "Made by other code than is installed now: all rows." in text
    assert "IRRA (73.38, 66.13)" in text
    assert "Not offered: BERT: no such reader" in text


def test_a_pipe_is_as_wide_as_columns_says(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")

    text = terminal(judge(manifest, some_runs(manifest)))

    assert max(map(len, text.splitlines())) <= 60


def test_rows_by_other_code_than_is_installed_are_named(manifest: Manifest) -> None:
    runs = some_runs(manifest)
    runs[-1]["code"] = "000000000000"

    text = terminal(judge(manifest, runs, code=dict.fromkeys("ABCD", "aaaabbbbcccc")))

    assert "Made by other code than is installed now: B." in text
    assert "Made by other code" not in terminal(judge(manifest, runs))


def test_names_are_no_markup_in_the_terminal(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path, [{"name": "[red]A[/red]"}])

    assert "[red]A[/red]" in terminal(judge(manifest, []))


def test_the_page_draws_the_order_and_needs_no_other_file(manifest: Manifest) -> None:
    manifest = manifest.with_data("synthetic_pairs")
    runs = some_runs(manifest)

    page = render_html(judge(manifest, runs, code=OTHER_CODE))

    assert page.count("<svg") == 1
    assert "Made by other code than is installed now: all rows." in page
    assert 'href="http' not in page
    assert 'src="http' not in page
    assert page == render_html(judge(manifest, runs, code=OTHER_CODE))


def test_a_table_in_which_nothing_ran_can_be_shown(manifest: Manifest) -> None:
    verdict = judge(manifest, [])

    assert "not run" in terminal(verdict)
    assert "## Runs" not in render_markdown(verdict)
    assert "<svg" not in render_html(verdict)


def test_a_verdict_is_json(manifest: Manifest) -> None:
    runs = some_runs(manifest)
    queries = spread_over_queries(manifest, runs, num_queries=3)

    content = json.loads(json.dumps(verdict_json(judge(manifest, runs, queries)), allow_nan=False))

    assert content["rows"][0]["cells"][0]["by_seed"] == {"1": 50.0, "2": 52.0, "3": 51.0}
    pair = content["orderings"][0]["pairs"][0]
    assert (pair["better"], pair["worse"], pair["outcome"]) == ("A", "B", "flips")
    assert pair["queries"]["num_queries"] == 3
    assert pair["queries"]["mean"] == pytest.approx(-2.0, abs=1e-5)
    assert "runs" not in content


def test_results_are_read_with_their_queries(tmp_path: Path, manifest: Manifest) -> None:
    runs = some_runs(manifest)
    path = tmp_path / "small.synthetic_pairs.json"
    content = {"title": "Small", "manifest": "rde/small", "data": "synthetic_pairs", "runs": runs}
    path.write_text(json.dumps(content))
    np.savez(tmp_path / "small.synthetic_pairs.queries.npz", **{"A|1|map": np.ones(3)})

    kept = read_results(path)

    assert kept.data == "synthetic_pairs"
    assert list(kept.runs) == runs
    assert kept.queries is not None
    assert kept.queries["A|1|map"].tolist() == [1, 1, 1]


def test_results_of_before_they_named_their_data_are_read(
    tmp_path: Path, manifest: Manifest
) -> None:
    runs = [{**run, "code": None} for run in some_runs(manifest)]
    path = tmp_path / "small.json"
    path.write_text(json.dumps(runs))

    kept = read_results(path)
    text = render_markdown(judge(manifest, kept.runs, kept.queries))

    assert (kept.data, kept.overrides, kept.queries) == (None, (), None)
    assert "| A | 1, 2, 3 | 0123456 | not kept |" in text
    assert "Queries were not kept for 1 of 1 compared pairs" in text


def test_files_without_results_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.json"

    with pytest.raises(FileNotFoundError, match="nothing of this table was kept"):
        read_results(path)
    path.write_text('{"runs": 3}')
    with pytest.raises(ValueError, match="no list of runs"):
        read_results(path)


@pytest.mark.parametrize("data", ["cuhk_pedes", "synthetic_pairs"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_narrow_terminal_keeps_every_number(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, data: str, width: int
) -> None:
    verdict = judge(manifest.with_data(data), some_runs(manifest))
    narrow_terminal(monkeypatch, 200)
    wide = terminal(verdict)

    narrow_terminal(monkeypatch, width)
    narrow = terminal(verdict)

    assert figures(narrow) == figures(wide)
    assert max(map(len, plain(narrow).splitlines())) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_no_sentence_of_a_row_stands_on_many_lines(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    told = "3 of 6 pairs agree (2 separated); 3 flip (1 separated, 2 within noise)"
    verdict = judge(manifest.with_data("synthetic_pairs"), some_runs(manifest))
    rows = tuple(
        replace(row, name=f"{row.name} with momentum", verdict=told) for row in verdict.rows
    )
    narrow_terminal(monkeypatch, width)

    table = plain(terminal(replace(verdict, rows=rows))).partition("Source: ")[0]

    told_on = [
        line
        for line in table.splitlines()
        if re.search("6 pairs|agree|separated|flip|within|noise", line)
    ]
    assert 0 < len(told_on) <= 6 * len(rows)


def test_a_very_narrow_terminal_has_row_below_row_and_breaks_no_word(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = judge(manifest, some_runs(manifest))
    narrow_terminal(monkeypatch, 200)
    wide = terminal(verdict)

    narrow_terminal(monkeypatch, 40)
    narrow = plain(terminal(verdict))

    lines = [line.rstrip() for line in narrow.splitlines()]
    place = lines.index("B")
    assert lines[place + 1 : place + 7] == [
        "  R@1 published   69.00",
        "  R@1 obtained    53.00",
        "  R@1 difference  -16.00",
        "  mAP published   -",
        "  mAP obtained    51.00",
        "  mAP difference  -",
    ]
    assert figures(narrow) == figures(wide)
    assert max(map(len, lines)) <= 40


def test_words_of_verdicts_are_explained_once_where_they_stand(manifest: Manifest) -> None:
    moved = manifest.with_data("synthetic_pairs")

    one = " ".join(terminal(judge(moved, runs_with(moved, ONE_EACH))).split())
    nothing = terminal(judge(moved, []))

    assert '"spread unknown" means: one seed does not tell' in one
    assert '"tau-b" means: 1 is the published order, -1 its reverse.' in one
    assert "within seed noise" not in one
    assert "means:" not in nothing


def test_on_the_page_numbers_come_before_the_verdict(manifest: Manifest) -> None:
    page = render_html(judge(manifest, some_runs(manifest)))

    heads = re.findall("<th>(.*?)</th>", page.split("</thead>")[0])
    row = page.split("<tbody>")[1].split("</tr>")[0]
    numbers = [bool(each) for each in re.findall(r"<td( class=\"number\")?", row)]
    assert heads[-1] == "verdict"
    assert heads[2].startswith("R@1")
    assert numbers == [False, *[True] * (len(heads) - 2), False]
