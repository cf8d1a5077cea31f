import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crosswalk.lab.tables.collect import Collector, measures_of
from crosswalk.lab.tables.files import TableFiles
from crosswalk.lab.tables.kept import read_results
from crosswalk.lab.tables.manifest import Row, row_overrides
from crosswalk.lab.tables.plan import Plan
from tests.unit.lab.fake_runs import (
    fake_manifest,
    fake_plan,
    finish,
    write_fake_queries,
)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Return the table of two rows and two seeds; of the second row one seed is finished."""
    fake = fake_plan(tmp_path, "full", "off", seeds=(1, 2))
    manifest = fake.manifest
    rows = {"full": manifest.rows[0], "off": manifest.rows[2]}
    runs = [replace(run, rows=(rows[run.config["do"]],)) for run in fake.runs]
    for run in runs[:3]:
        results = {"epoch": 2, "test/rank1": 0.5, "test/map": 0.75}
        results |= {"test/view/global/rank1": 0.0, "test/view/global/map": 5 / 12}
        finish(run.folder, results={"best": results})
        write_fake_queries(run.folder, [2, 0, 1], index=[7, 5, 3])
    return Plan(manifest, fake.pool, tuple(runs), tuple(runs))


def test_there_is_one_entry_for_each_trained_row_and_finished_seed(plan: Plan) -> None:
    results = Collector(plan).results()

    assert [(each["row"], each["seed"]) for each in results] == [
        *(("full", 1), ("no division", 1), ("full", 2)),
    ]
    assert results[1]["command"] == (
        "crosswalk train method=rde data=synthetic_pairs division=off seed=1"
    )
    assert json.loads(json.dumps(results[0]))["results"]["best"]["test/rank1"] == 0.5


def test_queries_of_all_rows_have_one_order_and_gaps_where_a_row_lacks_one(plan: Plan) -> None:
    write_fake_queries(plan.runs[1].folder, [2, 0, 1], index=[7, 5, 4])

    queries = Collector(plan).queries()

    nan = float("nan")
    assert queries["sample_index"].tolist() == [3, 4, 5, 7]
    np.testing.assert_array_equal(queries["full|1|rank1"], [1, nan, nan, 0])
    np.testing.assert_array_equal(queries["no division|1|rank1"], [nan, 1, nan, 0])
    np.testing.assert_array_equal(queries["full|1|map"], [1, nan, nan, 0.5])
    assert queries["full|1|map"].dtype == np.float32
    assert "no division|2|map" not in queries


def test_a_row_about_a_view_has_the_queries_of_that_view(plan: Plan) -> None:
    queries = Collector(plan).queries()

    np.testing.assert_array_equal(
        queries["one view|1|map"], np.array([1 / 2, np.nan, 1 / 3], np.float32)
    )


def test_a_view_that_the_run_does_not_have_is_named(plan: Plan) -> None:
    row = Row("odd", (), None, view="local")

    with pytest.raises(
        ValueError, match=r"row 'odd': .*test-best\.npz has no view local; it has g"
    ):
        measures_of(plan.runs[0].folder, row)


def test_the_first_number_of_a_run_is_said_when_it_ends(plan: Plan) -> None:
    collector = Collector(plan)

    assert collector.headline(plan.runs[0]) == "test rank1 50.00"
    assert collector.headline(plan.runs[3]) == ""


def test_a_row_that_is_a_view_of_a_run_has_its_own_number_where_it_was_asked_for(
    plan: Plan,
) -> None:
    view = plan.manifest.rows[1]

    said = Collector(plan).headline(replace(plan.runs[0], views=(view,)))

    assert said == "test rank1 50.00; one view: 0.00"


def test_the_files_of_a_table_can_be_read_back(plan: Plan) -> None:
    table = TableFiles(Collector(plan))

    table.write()

    path = plan.pool.path / "tables" / "rde-two.json"
    kept = read_results(path)
    assert (kept.data, len(kept.runs)) == ("synthetic_pairs", 3)
    assert kept.queries is not None
    assert set(kept.queries) == set(table.collector.queries())
    content = json.loads(path.read_text())
    assert content["overrides"] == []
    assert (content["manifest"], content["code"]) == ("rde/two", plan.codes())
    assert "no division" in path.with_suffix(".md").read_text()
    assert "<html" in path.with_suffix(".html").read_text()


def test_a_table_without_runs_says_that_nothing_ran(plan: Plan) -> None:
    empty = Plan(plan.manifest, plan.pool, plan.runs[3:], plan.runs[3:])
    TableFiles(Collector(empty)).write()

    path = plan.pool.path / "tables" / "rde-two.json"
    assert read_results(path).runs == ()
    assert "not run" in path.with_suffix(".md").read_text()


def test_a_table_is_kept_beside_its_manifest_without_a_page(plan: Plan) -> None:
    paths = TableFiles(Collector(plan)).save()

    results = plan.manifest.path.parent / "results"
    assert sorted(paths) == sorted(results.iterdir())
    assert {path.name for path in paths} == {"two.json", "two.md", "two.queries.npz"}


def test_overrides_of_all_rows_stand_in_front_of_those_of_a_row_and_are_said(
    tmp_path: Path, plan: Plan
) -> None:
    manifest = fake_manifest(tmp_path).with_overrides(["trainer.max_epochs=2"])

    table = TableFiles(Collector(replace(plan, manifest=manifest)))
    table.write()

    words = row_overrides(manifest, manifest.row("no division"), 1)
    assert words[-3:] == ["trainer.max_epochs=2", "division=off", "seed=1"]
    assert table.judged().notes[0] == "All rows were run with trainer.max_epochs=2."
    assert read_results(table.path).overrides == ("trainer.max_epochs=2",)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data=cuhk_pedes", "choose the data with --data"),
        ("dataa=cuhk_pedes", "choose the data with --data"),
        ("seed=3", "choose seeds with --seeds"),
        ("resume=true", "go on by themselves"),
        ("method=mar", "a table is about one method"),
    ],
)
def test_overrides_of_what_distinguishes_runs_are_refused(
    tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fake_manifest(tmp_path).with_overrides([override])
