import json
from pathlib import Path

import pytest

from crosswalk.ablation import read_manifest, render_table, row_overrides, run_table

MANIFEST = """
title: Two rows
source: {paper: none, table: 1, verified: false}
base: [method=rde]
metrics: [rank1, map]
seeds: [1, 2]
rows:
  - {name: full, overrides: [], published: [70.0, null]}
  - {name: no division, overrides: [division=off], published: null}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "experiments" / "rde" / "two.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(MANIFEST)
    return file


def test_a_row_may_be_about_other_weights_than_the_table(path: Path) -> None:
    path.write_text(
        MANIFEST.replace("seeds: [1, 2]", "seeds: [1, 2]\ncheckpoint: last").replace(
            "overrides: [],", "overrides: [], checkpoint: start,"
        )
    )
    manifest = read_manifest(path)
    runs = [result(row.name, 1, row_overrides(manifest, row, 1), 0.5) for row in manifest.rows]
    for run in runs:
        run["results"]["start"] = {"test/rank1": 0.25, "test/map": 0.125}
        run["results"]["last"] = {"test/rank1": 0.75, "test/map": 0.375}
    manifest.results_path.parent.mkdir()
    manifest.results_path.write_text(json.dumps(runs))

    lines = render_table(manifest).splitlines()

    assert [row.checkpoint for row in manifest.rows] == ["start", "last"]
    assert lines[2] == "| full | 1 | 70.00 | 25.00 | - | 12.50 |"
    assert lines[3] == "| no division | 1 | - | 75.00 | - | 37.50 |"


def result(row: str, seed: int, overrides: list[str], rank1: float) -> dict:
    metrics = {"epoch": 1, "test/rank1": rank1, "test/map": rank1 / 2}
    return {
        "row": row,
        "seed": seed,
        "overrides": overrides,
        "results": {"best": metrics, "last": metrics},
    }


def test_a_manifest_is_read_row_by_row(path: Path) -> None:
    manifest = read_manifest(path)

    assert [row.name for row in manifest.rows] == ["full", "no division"]
    assert manifest.rows[0].published == (70.0, None)
    assert row_overrides(manifest, manifest.rows[1], 2) == ["method=rde", "division=off", "seed=2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seeds: [1, 2]\n", ""), "needs the keys"),
        (("seeds: [1, 2]\n", "seeds: [1, 2]\nepoch: last\n"), "needs the keys .* it has .*epoch"),
        (("overrides: [],", "overrides: [], checkpoint: first,"), "row 'full': checkpoint=first"),
        (("[70.0, null]", "[70.0]"), "row 'full': 1 published numbers for 2 metrics"),
        (("name: no division", "name: full"), "two rows have the same name"),
    ],
)
def test_a_broken_manifest_is_refused(path: Path, change: tuple[str, str], message: str) -> None:
    path.write_text(MANIFEST.replace(*change))

    with pytest.raises(ValueError, match=message):
        read_manifest(path)


def test_a_table_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.yaml does not exist"):
        read_manifest(tmp_path / "none.yaml")


def test_only_what_is_not_done_is_run(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = read_manifest(path)
    manifest.results_path.parent.mkdir()
    manifest.results_path.write_text(
        json.dumps(
            [
                result("full", 1, ["method=rde", "seed=1"], 0.5),
                result(
                    "full", 2, ["method=rde", "loss=info_nce", "seed=2"], 0.5
                ),  # another row then
            ]
        )
    )

    assert run_table(manifest, dry_run=True) == 0

    assert capsys.readouterr().out.splitlines()[1:] == [
        "crosswalk train method=rde division=off seed=1",
        "crosswalk train method=rde seed=2",
        "crosswalk train method=rde division=off seed=2",
    ]


def test_a_row_that_does_not_exist_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no row \['ful'\]; it has \['full', 'no division'\]"):
        run_table(read_manifest(path), rows=["ful"], dry_run=True)


def test_the_table_has_mean_and_deviation_or_says_that_nothing_ran(path: Path) -> None:
    manifest = read_manifest(path)
    manifest.results_path.parent.mkdir()
    manifest.results_path.write_text(
        json.dumps(
            [
                result("full", 1, ["method=rde", "seed=1"], 0.60),
                result("full", 2, ["method=rde", "seed=2"], 0.64),
            ]
        )
    )

    lines = render_table(manifest).splitlines()

    assert lines[2] == "| full | 2 | 70.00 | 62.00 ± 2.83 | - | 31.00 ± 1.41 |"
    assert lines[3] == "| no division | not run | - | not run | - | not run |"
