"""Tables in documents, filled in from kept results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from docs.tools.readme_tables import main, rewrite, wanted_files
from tests.unit.lab.small_tables import runs_with, small_manifest

NUMBERS = {
    "plain": {1: (50.0, 40.0), 2: (52.0, 41.0), 3: (51.0, 42.0)},
    "better": {1: (53.0, 44.0), 2: (54.0, 46.0), 3: (55.0, 48.0)},
}


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    """Return a folder with one table of which two rows were run."""
    rows = [{"name": "plain", "published": [60.0, 50.0]}, {"name": "better"}, {"name": "third"}]
    manifest = small_manifest(tmp_path, rows).with_data("synthetic_pairs")
    results = tmp_path / "experiments" / "rde" / "results"
    results.mkdir()
    content = {"data": "synthetic_pairs", "runs": runs_with(manifest, NUMBERS)}
    (results / "small.synthetic_pairs.json").write_text(json.dumps(content))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "choosing.md").write_text("no table\n")
    return tmp_path / "experiments"


def block(options: str = "", content: str = "old") -> str:
    begin = f"<!-- table: rde/small.synthetic_pairs{options} -->"
    return f"Before\n\n{begin}\n{content}\n<!-- /table -->\nend\n"


def test_a_table_is_filled_in_between_its_marks(experiments: Path) -> None:
    text = rewrite(block(), experiments, place="README.md")

    assert text == block(
        content="""| row | R@1 published | R@1 | mAP published | mAP |
|---|---:|---:|---:|---:|
| plain | 60.00 | 51.0 ± 1.0 | 50.00 | 41.0 ± 1.0 |
| better | - | 54.0 ± 1.0 | - | 46.0 ± 2.0 |
| third | - | not run | - | not run |

*Test on synthetic_pairs, percent; published numbers are for cuhk_pedes and are not comparable; \
best epoch; mean ± standard deviation over 3 runs a row, commit 0123456.*"""
    )
    assert rewrite(text, experiments, place="README.md") == text


def test_a_document_chooses_rows_and_columns(experiments: Path) -> None:
    options = (
        " {metrics: [map], rows: {better: ours, plain: base}, baseline: plain, digits: 2, "
        "published: false}"
    )

    text = rewrite(block(options), experiments, place="README.md")

    # paired by seed 4, 5, 6
    assert "| row | mAP | difference |\n|---|---:|---:|\n" in text
    assert "| ours | 46.00 ± 2.00 | +5.00 ± 1.00 |\n| base | 41.00 ± 1.00 |  |\n" in text


def test_different_numbers_of_runs_are_said_row_by_row(experiments: Path) -> None:
    path = experiments / "rde" / "results" / "small.synthetic_pairs.json"
    content = json.loads(path.read_text())
    content["runs"].pop()
    path.write_text(json.dumps(content))

    text = rewrite(block(" {metrics: [map], verdict: true}"), experiments, place="README.md")

    assert "| row | runs | mAP published | mAP | verdict |" in text
    assert "| better | 2 | - | 45.0 ± 1.4 | nothing published to compare with |" in text


def test_numbers_of_the_val_split_can_be_shown(experiments: Path) -> None:
    path = experiments / "rde" / "results" / "small.synthetic_pairs.json"
    content = json.loads(path.read_text())
    for run in content["runs"]:
        run["results"]["last"] = {"val/map": 0.125, "test/map": 0.25}
    path.write_text(json.dumps(content))

    options = " {metrics: [map, val/map], rows: [better], checkpoint: last, published: false}"
    text = rewrite(block(options), experiments, place="README.md")

    assert (
        "| row | mAP | mAP on val |\n|---|---:|---:|\n| better | 25.0 ± 0.0 | 12.5 ± 0.0 |" in text
    )
    assert "last epoch" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (block(" {metric: [map]}"), r"unknown option metric\. Did you mean metrics"),
        (block(" {rows: [best]}"), "has no row 'best'"),
        (block(" {checkpoint: worst}"), "checkpoint=worst"),
        (block(" {metrics: [rank7]}"), "unknown metric rank7"),
        (block(" {metrics: [minp]}"), "not all runs measured minp"),
        (block().replace("<!-- /table -->", ""), "opens 1 tables and closes 0"),
    ],
)
def test_what_a_mark_gets_wrong_is_said(experiments: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rewrite(text, experiments, place="README.md")


def test_a_table_of_which_nothing_was_kept_is_refused(experiments: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing of this table was kept"):
        rewrite(block().replace(".synthetic_pairs", ""), experiments, place="README.md")


def test_the_command_writes_what_is_not_current(
    experiments: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = experiments.parent
    (root / "README.md").write_text(block())
    (experiments / "README.md").write_text("no table\n")

    assert main([str(root)]) == 0

    written = capsys.readouterr().out
    assert written.count("wrote") == 2
    assert "51.0 ± 1.0" in (root / "README.md").read_text()
    results = experiments / "rde" / "results" / "small.synthetic_pairs.md"
    assert results.read_text().startswith("# Small; here on synthetic_pairs\n")
    assert all(path.read_text() == text for path, text in wanted_files(root).items())
    main([str(root)])
    assert capsys.readouterr().out == ""


def test_overrides_of_all_rows_are_those_of_the_kept_runs(experiments: Path) -> None:
    path = experiments / "rde" / "results" / "small.synthetic_pairs.json"
    content = json.loads(path.read_text())
    content["overrides"] = ["optim.lr=1"]
    for run in content["runs"]:
        run["overrides"].insert(2, "optim.lr=1")
    path.write_text(json.dumps(content))
    for name in ("README.md", "experiments/README.md"):
        (experiments.parent / name).write_text("")

    text = wanted_files(experiments.parent)[path.with_suffix(".md")]

    assert "All rows were run with optim.lr=1." in text
    assert "| better | 3 |" in text
