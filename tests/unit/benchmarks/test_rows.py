"""Rows of benchmarks, and the program that runs all of them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.rows import VARIABLE, facts, report, write

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
OTHERS = {"rows", "run", "steps", "plain_steps", "peers", "gpu", "wire"}
"""Files that are no script of a whole run."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the program that runs all scripts."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("run")


@pytest.mark.parametrize(
    ("aim", "baseline", "ratio", "met"),
    [
        ({"at_least": 4}, 9.0, 4.5, True),
        ({"at_least": 5}, 9.0, 4.5, False),
        ({"at_most": 1.2}, 1.0, 2.0, False),
        ({"at_most": 2.5}, 1.0, 2.0, True),
        ({"at_most": 1.9}, None, None, False),
        ({"at_least": 1.9}, None, None, True),
        ({}, 9.0, 4.5, None),
    ],
)
def test_a_row_says_whether_its_aim_is_met(
    aim: dict[str, float],
    baseline: float | None,
    ratio: float | None,
    met: bool | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "rows"))

    said = report("work", 2.0, baseline, **aim)

    [line] = (tmp_path / "rows").read_text().splitlines()
    assert (json.loads(line)["ratio"], json.loads(line)["met"]) == (ratio, met)
    assert said is (met is not False)


def test_facts_name_no_machine() -> None:
    told = facts()

    assert "numpy" in told["versions"]
    assert set(told) == {
        *("processor", "cores", "memory_gb", "system", "threads_per_process", "versions")
    }
    assert Path.home().as_posix() not in json.dumps(told)


def test_a_file_of_results_holds_five_digits(tmp_path: Path) -> None:
    write(tmp_path / "made" / "rows.json", {"rows": [{"ours": 1.23456789, "cores": 2}]})

    text = (tmp_path / "made" / "rows.json").read_text()
    assert json.loads(text) == {"rows": [{"ours": 1.2346, "cores": 2}]}
    assert [each.name for each in (tmp_path / "made").iterdir()] == ["rows.json"]


def test_every_script_is_part_of_a_whole_run(run: ModuleType) -> None:
    scripts = {path.stem for path in BENCHMARKS.glob("*.py")}

    assert set(run.SCRIPTS) == scripts - OTHERS


def test_a_script_that_fails_ends_a_whole_run_with_1_after_the_others(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "import rows, sys\nrows.report({name!r}, 1.0, 3.0, at_least=9)\nsys.exit({code})\n"
    (tmp_path / "rows.py").write_text((BENCHMARKS / "rows.py").read_text())
    for name, code in (("wrong", 1), ("right", 0)):
        (tmp_path / f"{name}.py").write_text(body.format(name=name, code=code))
    monkeypatch.setattr(run, "FOLDER", tmp_path)
    monkeypatch.setattr(run, "SCRIPTS", {"wrong": [], "right": []})

    outcomes = [run.main([]), run.main(["--only", "right", "--out", str(tmp_path / "one.json")])]

    assert outcomes == [1, 0]  # an aim that is missed is no failure
    whole = json.loads((tmp_path / "results" / "bench.json").read_text())
    assert whole["finished"]
    assert [(row["script"], row["ratio"]) for row in whole["rows"]] == [
        ("wrong", 3.0),
        ("right", 3.0),
    ]
    assert [each["exit"] for each in whole["scripts"].values()] == [1, 0]
    assert not json.loads((tmp_path / "one.json").read_text())["finished"]

    (tmp_path / "wrong.py").write_text(body.format(name="mended", code=0))
    assert run.main(["--again", "wrong"]) == 0

    again = json.loads((tmp_path / "results" / "bench.json").read_text())
    assert [row["name"] for row in again["rows"]] == ["right", "mended"]
    assert [each["exit"] for each in again["scripts"].values()] == [0, 0]
    assert ["commit" in each for each in again["scripts"].values()] == [True, False]
    assert again["seconds"] > whole["seconds"]
