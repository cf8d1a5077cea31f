import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from crosswalk.config.compose import compose
from crosswalk.lab.pool import (
    Pool,
    config_digest,
    remove_half_made,
    total_seconds,
)
from crosswalk.lab.tables.collect import entry_of
from tests.unit.lab.fake_runs import CODE, fake_config, finish


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool(tmp_path / "ablations", code=lambda config: CODE)


def test_a_run_is_named_by_method_data_configuration_and_code(pool: Pool) -> None:
    digest = config_digest(fake_config())

    assert pool.folder(fake_config()).name == f"rde-toy-{digest}-c0de00"
    assert pool.run_name(fake_config()) == f"{digest}-c0de00"


@pytest.mark.parametrize(
    ("words", "spelled"),
    [
        ("MAR without L_RAL-seed1", "MAR-without-L_RAL-seed1"),
        ("../a/b: *x* [1] (ours)-seed2", "a-b-x-1-ours-seed2"),
        ("K = 0.5, 行人-seed1", "K-=-0.5-seed1"),
        ("行人-seed1", "seed1"),
    ],
)
def test_a_run_is_named_for_people_too(pool: Pool, words: str, spelled: str) -> None:
    config = fake_config()

    folder = pool.folder(config, words)

    assert folder.name == f"rde-toy-{spelled}-{pool.run_name(config)}"
    assert folder.path.parent == pool.path
    assert pool.place(config, folder)[1] == f"name={spelled}-{pool.run_name(config)}"
    compose([pool.place(config, folder)[1]])  # it is a name of a run


@pytest.mark.parametrize("before", ["", "row of another table-seed1", "行人-seed1"])
def test_a_run_is_found_under_whatever_name_it_has(pool: Pool, before: str) -> None:
    found = finish(pool.folder(fake_config(), before))

    assert pool.folder(fake_config(), "row-seed1") == found
    assert pool.finished(fake_config()) == found
    assert pool.of_any_code(fake_config()) == pool.of_method_and_data(fake_config()) == [found]
    assert pool.folder(fake_config(2), "row-seed2") != found


@pytest.mark.parametrize(
    "change",
    [
        {"name": "it"},
        {"output_dir": "elsewhere"},
        {"diagnostics": []},
        {"resume": True},
        {"tags": ["paper"]},
        {"logger": {"wandb": {"project": "it"}}},
        {"choices": {"method": "rde", "data": "toy", "logger": "wandb"}},
    ],
)
def test_what_does_not_change_a_number_makes_no_other_run(change: dict) -> None:
    assert config_digest(fake_config(**change)) == config_digest(fake_config())


@pytest.mark.parametrize(
    "change",
    [
        {"trainer": {"max_epochs": 3}},
        {"data": {"root": "/datasets"}},
        {"method": {"margin": 0.1}},
        {"choices": {"method": "rde", "data": "toy", "logger": "csv", "loss": "info_nce"}},
    ],
)
def test_any_other_key_makes_another_run(change: dict) -> None:
    assert config_digest(fake_config(**change)) != config_digest(fake_config())
    assert config_digest(fake_config(seed=2)) != config_digest(fake_config())


def test_a_run_is_finished_only_with_the_same_configuration_and_code(pool: Pool) -> None:
    finish(pool.folder(fake_config()))
    newer = Pool(pool.path, code=lambda config: "ffffff112233")

    assert pool.finished(fake_config()) == pool.folder(fake_config())
    assert pool.finished(fake_config(seed=2)) is None
    assert newer.finished(fake_config()) is None
    assert newer.finished(fake_config(), any_code=True) == pool.folder(fake_config())


def test_data_are_the_same_by_their_place_not_by_how_it_was_typed(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed, held = {"root": "sets"}, {"root": str(tmp_path / "sets")}
    monkeypatch.chdir(tmp_path)
    folder = pool.folder(fake_config(data=typed))
    finish(folder)
    folder.save_config(fake_config(data=held))  # as the run has it
    newer = Pool(pool.path, code=lambda config: "ffffff112233")

    for place in (typed, held):
        assert pool.finished(fake_config(data=place)) == folder
        assert newer.finished(fake_config(data=place), any_code=True) == folder
    monkeypatch.chdir(pool.path)
    assert pool.finished(fake_config(data=held)) == folder
    assert pool.finished(fake_config(data=typed)) is None
    assert newer.finished(fake_config(data=typed), any_code=True) is None


def test_of_several_codes_the_newest_run_is_taken(pool: Pool) -> None:
    for code, ended in (("aaaaaa0", "2026-01-02"), ("bbbbbb0", "2026-01-03"), ("cccccc0", "2026")):
        other = Pool(pool.path, code=lambda config, code=code: code)
        finish(other.folder(fake_config()), code=code, ended=ended)

    found = pool.finished(fake_config(), any_code=True)

    assert found is not None
    assert found.record()["code"] == "bbbbbb0"


def test_a_run_of_a_release_that_named_classes_otherwise_is_of_any_code(pool: Pool) -> None:
    data = {"plan": {"_target_": "crosswalk.data.pipeline.plans.identity_plan"}}
    before = {"plan": {"_target_": "crosswalk.data.plans.identity_plan"}}
    folder = finish(
        pool.folder(fake_config(data=before)), config=fake_config(data=before), code="ffffff112233"
    )

    assert pool.folder(fake_config(data=data)) != folder
    assert pool.finished(fake_config(data=data)) is None
    assert pool.finished(fake_config(data=data), any_code=True) == folder


@pytest.mark.parametrize("missing", ["run.json", "results.json"])
def test_a_run_that_was_killed_is_not_finished(pool: Pool, missing: str) -> None:
    folder = finish(pool.folder(fake_config()))
    (folder.path / missing).unlink()

    assert pool.finished(fake_config()) is None
    assert pool.finished(fake_config(), any_code=True) is None


def test_a_damaged_folder_hides_no_other_run(pool: Pool) -> None:
    damaged, whole = (Pool(pool.path, code=lambda _, code=code: code) for code in "ab")
    for each in (damaged, whole):
        finish(each.folder(fake_config()), code=each.code_of(fake_config()))
    damaged.folder(fake_config()).config_file.write_text("seed: [1")

    found = pool.finished(fake_config(), any_code=True)

    assert found == whole.folder(fake_config())


def test_a_run_whose_record_names_other_code_than_its_folder_is_not_finished(pool: Pool) -> None:
    finish(pool.folder(fake_config()), code="ffffff112233")

    assert pool.finished(fake_config()) is None


def test_runs_of_the_same_method_and_data_are_found(pool: Pool) -> None:
    for config in (fake_config(1), fake_config(2)):
        finish(pool.folder(config))
    other = fake_config(choices={"method": "rde", "data": "toy-2", "logger": "csv"})
    finish(pool.folder(other))

    assert {folder.name for folder in pool.of_method_and_data(fake_config(3))} == {
        pool.folder(fake_config(1)).name,
        pool.folder(fake_config(2)).name,
    }


def test_a_folder_without_its_configuration_is_removed(pool: Pool) -> None:
    folder = pool.folder(fake_config())
    folder.path.mkdir(parents=True)
    (folder.path / "config.yaml.123.unfinished").write_text("seed: ")
    (folder.path / ".lock").touch()

    remove_half_made(folder)

    assert not folder.path.exists()


def test_a_folder_with_a_configuration_stays(pool: Pool) -> None:
    folder = finish(pool.folder(fake_config()))

    remove_half_made(folder)

    assert folder.is_finished


def test_a_folder_of_something_else_is_not_removed(pool: Pool) -> None:
    folder = pool.folder(fake_config())
    folder.path.mkdir(parents=True)
    folder.last_checkpoint.write_bytes(b"weeks of work")

    with pytest.raises(ValueError, match=r"holds last\.ckpt and no config\.yaml"):
        remove_half_made(folder)
    assert folder.last_checkpoint.exists()


def test_a_result_has_all_it_takes_to_repeat_it_and_no_place_or_name_of_a_machine(
    pool: Pool,
) -> None:
    folder = finish(pool.folder(fake_config()))

    result = entry_of(folder, "full", 1, ("seed=1",))

    assert [result[name] for name in ("row", "seed", "overrides")] == ["full", 1, ["seed=1"]]
    assert result["command"] == "crosswalk train seed=1"
    assert (result["config"], result["code"]) == (config_digest(fake_config()), CODE)
    assert result["seconds"] == 100
    assert result["last_epoch"] == {"train/loss": 1.0}
    assert result["results"]["best"]["test/rank1"] == 0.5
    assert result["hardware"] == {"cpus": 2}
    assert result["data"] == {"dataset": "toy", "source": {"n": 1}}
    json.dumps(result)


def test_a_killed_session_lasted_until_it_last_logged() -> None:
    begin = "2026-01-01T10:00:00+00:00"
    again, end = "2026-01-01T11:00:00+00:00", "2026-01-01T11:00:30+00:00"
    sessions = [{"started": begin, "ended": None}, {"started": again, "ended": end}]
    at_ten = 1767261600.0

    assert total_seconds(sessions) == 30
    assert total_seconds(sessions, [at_ten + 7, at_ten + 60, at_ten + 3610]) == 90


def test_each_configuration_is_asked_for_its_code_once_whatever_its_seed(tmp_path: Path) -> None:
    asked = []

    def code(config: Mapping[str, Any]) -> str:
        asked.append(config["seed"])
        return f"{len(asked)}ode00112233"

    pool = Pool(tmp_path, code=code)

    codes = [pool.code_of(each) for each in (fake_config(1), fake_config(2), fake_config(1, do=3))]

    assert codes == ["1ode00112233", "1ode00112233", "2ode00112233"]
    assert pool.run_name(fake_config(2)).endswith("-1ode00")
