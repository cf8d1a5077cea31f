import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from crosswalk.config.compose import compose
from crosswalk.config.plain import to_plain
from crosswalk.lab.pool import Pool
from crosswalk.lab.progress import UNKNOWN
from crosswalk.lab.tables import plan as planning
from crosswalk.lab.tables.manifest import Manifest, read_manifest
from crosswalk.lab.tables.plan import estimates_of, make_plan
from tests.unit.lab.fake_runs import (
    CODE,
    MANIFEST,
    fake_config,
    fake_plan,
    finish,
    write_manifest,
)


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool(tmp_path / "runs" / "ablations", code=lambda config: CODE)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return read_manifest(write_manifest(tmp_path))


@pytest.fixture
def table(tmp_path: Path) -> Callable[[str, str], Manifest]:
    def make(before: str, after: str) -> Manifest:
        assert before in MANIFEST
        return read_manifest(write_manifest(tmp_path, MANIFEST.replace(before, after)))

    return make


def titles(runs: object) -> list[str]:
    return [run.title for run in runs]


def test_a_table_is_its_rows_times_its_seeds_seed_by_seed(manifest: Manifest, pool: Pool) -> None:
    plan = make_plan(manifest, pool)

    assert titles(plan.wanted) == [
        *("full, seed 1", "no division, seed 1", "full, seed 2", "no division, seed 2"),
    ]
    assert plan.runs[3].command == (
        "crosswalk train method=rde data=synthetic_pairs division=off seed=2"
    )
    assert plan.missing() == list(plan.runs)


def test_every_run_has_the_configuration_of_its_command(manifest: Manifest, pool: Pool) -> None:
    plan = make_plan(manifest, pool)

    for run in plan.runs:
        assert run.config == to_plain(compose(["logger=csv", *run.overrides]))


def test_rows_and_seeds_can_be_chosen_and_the_table_keeps_all(
    manifest: Manifest, pool: Pool
) -> None:
    plan = make_plan(manifest, pool, rows=["no division"], seeds=[2, 5])

    assert titles(plan.wanted) == ["no division, seed 2", "no division, seed 5"]
    assert len(plan.runs) == 6


def test_a_row_measured_on_another_ones_run_stands_for_that_run(
    manifest: Manifest, pool: Pool
) -> None:
    plan = make_plan(manifest, pool, rows=["one view"])

    assert titles(plan.wanted) == ["full, seed 1", "full, seed 2"]
    assert [[row.name for row in run.views] for run in plan.wanted] == [["one view"]] * 2


def test_rows_of_the_same_configuration_share_a_run(
    table: Callable[[str, str], Manifest], pool: Pool
) -> None:
    manifest = table("[division=off]", "[method.warmup_epochs=1, method.warmup_epochs=0]")
    same = [row.name for row in manifest.rows if row.run is None]
    default = compose(["method=rde"]).method.warmup_epochs
    manifest = replace(
        manifest,
        rows=tuple(
            replace(row, overrides=(f"method.warmup_epochs={default}",))
            if row.name == "no division"
            else row
            for row in manifest.rows
        ),
    )

    plan = make_plan(manifest, pool)

    assert len(plan.runs) == 2
    assert [row.name for row in plan.runs[0].rows] == same


def test_rows_without_a_place_on_these_data_are_named_with_the_reason(
    table: Callable[[str, str], Manifest], pool: Pool
) -> None:
    manifest = table("data=synthetic_pairs", "data=cuhk_pedes")
    manifest = replace(
        manifest, rows=(*manifest.rows[:2], replace(manifest.rows[2], synthetic="too small"))
    ).with_data("synthetic_pairs")

    plan = make_plan(manifest, pool)

    assert plan.skipped == {"no division": "too small"}
    assert titles(plan.runs) == ["full, seed 1", "full, seed 2"]
    with pytest.raises(ValueError, match="row 'no division' is not run on data=synthetic_pairs"):
        make_plan(manifest, pool, rows=["no division"])


def test_a_row_that_does_not_exist_is_refused_with_the_choices(
    manifest: Manifest, pool: Pool
) -> None:
    with pytest.raises(
        ValueError, match=r"no row 'no divison'. Did you mean no division\? It has: full; one view"
    ):
        make_plan(manifest, pool, rows=["no divison"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("division=of", "division=of does not exist"),
        ("method.warmup_epoch=1", "method.warmup_epoch is not a key"),
        ("method.warmup_epochs=few", "method.warmup_epochs='few' is of type str"),
        ("trainer.max_epoch=1", "has no argument max_epoch"),
        ("data.batch_size=7 trainer.devices=2", "does not split over 2 processes"),
    ],
)
def test_a_mistake_in_the_last_row_is_found_before_anything_runs(
    table: Callable[[str, str], Manifest], pool: Pool, override: str, message: str
) -> None:
    manifest = table("[division=off]", f"[{', '.join(override.split())}, trainer.accelerator=cpu]")

    with pytest.raises(ValueError, match=message) as found:
        make_plan(manifest, pool)

    assert str(found.value).startswith("row 'no division': ")


def test_only_the_rows_that_are_wanted_need_to_be_right(
    table: Callable[[str, str], Manifest], pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = table("[division=off]", "[method.warmup_epochs=few]")
    checked = []
    monkeypatch.setattr(planning, "check", lambda config, stored: checked.append(config["seed"]))

    make_plan(manifest, pool, rows=["full"])

    assert checked == [1]


def test_nothing_is_known_of_the_time_before_a_run_has_ended(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "finish")
    estimates = estimates_of(plan)

    assert estimates.seconds(plan.runs[0]) == (None, UNKNOWN)
    assert "is not known yet" in estimates.total_in_words(plan.runs, 1)
    assert estimates.total_in_words([], 1) == "Nothing is left to run."


def test_time_is_estimated_from_other_runs_by_their_epochs(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "finish")
    other = fake_config(trainer={"max_epochs": 5})
    finish(plan.pool.folder(other), config=other)

    seconds, source = estimates_of(plan).seconds(plan.runs[0])

    assert seconds == pytest.approx(100 / 5 * 2)
    assert source == "other runs of the same method and data"


def test_time_is_estimated_better_from_the_kept_results_of_the_table(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, "finish", "finish")
    path = plan.manifest.committed_path
    path.parent.mkdir(parents=True)
    first, second = (list(run.overrides) for run in plan.runs)
    old = {"started": "2026-01-01T10:00:00+00:00", "ended": "2026-01-01T10:05:00+00:00"}
    kept = [
        {"overrides": [*first[:-1], "seed=8"], "seconds": 40},
        {"overrides": [*first[:-1], "seed=9"], "sessions": [old]},
        {"overrides": [*second, "+more=1"], "seconds": 7000},
    ]
    path.write_text(json.dumps(kept))
    estimates = estimates_of(plan)

    assert estimates.seconds(plan.runs[0]) == (170, "the committed results of the table")
    assert estimates.seconds(plan.runs[1]) == (None, UNKNOWN)


def test_time_is_estimated_best_from_runs_of_the_row_whatever_seed_and_code(
    tmp_path: Path,
) -> None:
    plan = fake_plan(tmp_path, "finish", seeds=(1, 2, 3))
    config = dict(plan.runs[2].config)
    finish(
        Pool(plan.pool.path, code=lambda config: "ffffff0").folder(config),
        code="ffffff0",
        config=config,
    )
    estimates = estimates_of(plan)

    assert estimates.seconds(plan.runs[0]) == (100, "finished runs of the same rows")
    assert estimates.total_in_words(plan.runs, 2) == (
        "That takes about 2 min, 2 at a time (from finished runs of the same rows)."
    )
    assert "about 5 min, 1 at a time" in estimates.total_in_words(plan.runs, 1)
