import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from crosswalk.cli import main, parse
from crosswalk.lab import launch
from crosswalk.lab.pool import Pool
from crosswalk.lab.progress import Estimates
from crosswalk.lab.tables import command
from crosswalk.lab.tables.command import check_data, run_ablation
from crosswalk.lab.tables.manifest import read_manifest
from crosswalk.lab.tables.plan import make_plan
from crosswalk.lab.tables.runs import CodeChanged, Failure, TableRuns
from tests.unit.lab.fake_runs import (
    CODE,
    MANIFEST,
    finish,
    write_fake_queries,
    write_manifest,
)

EXPERIMENTS = Path(__file__).parents[4] / "experiments"
RESULTS = {
    "best": {
        "epoch": 2,
        **{"test/rank1": 0.5, "test/map": 0.75},
        **{"test/view/global/rank1": 0.0, "test/view/global/map": 5 / 12},
    }
}
Ablate = Callable[..., int]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_manifest(tmp_path)


@pytest.fixture
def ablate(tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> Ablate:
    """Return the command on a table of ours; its runs are finished folders at once."""
    monkeypatch.setattr(command, "code_digest", lambda config: CODE)

    def run_at_once(runs: TableRuns, slots: object, **_: object) -> None:
        for run in runs.waiting:
            if run.rows[0].name == "bad":
                failure = Failure(run, "it ended with status 2", Path("log"), ("no images",))
                runs.failures.append(failure)
                return
            finish(run.folder, config=dict(run.config), results=RESULTS)
            write_fake_queries(run.folder, [2, 0, 1], index=[7, 5, 3])
            runs.on_done(run)

    monkeypatch.setattr(launch, "run_locally", run_at_once)
    return lambda *words: main(
        ["ablate", str(table), "--output-dir", str(tmp_path / "runs"), *words]
    )


def test_a_dry_run_says_what_would_be_run_and_runs_nothing(
    ablate: Ablate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ablate("--dry-run", "--seeds", "5", "trainer.max_epochs=1") == 0

    assert capsys.readouterr().out.splitlines() == [
        "A table",
        "On synthetic_pairs: 2 runs, 0 finished and 2 left.",
        "All rows are run with trainer.max_epochs=1.",
        "How long that takes is not known yet: no run of a table with this method and data has "
        "ended here yet.",
        "# full, one view; seed 5",
        "crosswalk train method=rde data=synthetic_pairs trainer.max_epochs=1 seed=5",
        "# no division; seed 5",
        "crosswalk train method=rde data=synthetic_pairs trainer.max_epochs=1 division=off seed=5",
    ]
    assert not (tmp_path / "runs").exists()


def test_a_table_is_run_printed_and_written(
    ablate: Ablate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ablate() == 0

    said = capsys.readouterr().out
    assert "4 runs, 0 finished and 4 left" in said
    assert "50.00 ± 0.00" in said
    tables = tmp_path / "runs" / "ablations" / "tables"
    assert {path.name for path in tables.iterdir()} == {
        *("rde-two.json", "rde-two.md", "rde-two.html", "rde-two.queries.npz"),
    }
    assert len(json.loads((tables / "rde-two.json").read_text())["runs"]) == 4


def test_a_second_time_nothing_is_left_and_the_table_can_be_kept(
    ablate: Ablate, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ablate()
    capsys.readouterr()

    assert ablate("--save") == 0

    said = capsys.readouterr().out
    assert "4 runs, 4 finished and 0 left.\nNothing is left to run." in said
    kept = table.parent / "results"
    assert f"Kept: {kept / 'two.json'}" in said
    assert {path.name for path in kept.iterdir()} == {"two.json", "two.md", "two.queries.npz"}


def test_what_other_code_finished_is_run_again_unless_any_code_will_do(
    ablate: Ablate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ablate()
    monkeypatch.setattr(command, "code_digest", lambda config: "ffffff112233")
    capsys.readouterr()

    ablate("--dry-run")
    said = capsys.readouterr().out
    assert "4 left.\nFinished by other code, of those left: 4; --any-code takes them" in said
    ablate("--any-code")
    said = " ".join(capsys.readouterr().out.split())
    assert "4 finished and 0 left" in said
    assert CODE in said or "other code" in said


def test_the_table_as_it_stands_can_be_shown(
    ablate: Ablate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ablate("--show") == 0
    assert "not run" in capsys.readouterr().out
    ablate("--row", "full", "--seeds", "1")
    capsys.readouterr()

    assert ablate("--show") == 0

    said = capsys.readouterr().out
    assert "not run" in said
    assert "50.00" in said


@pytest.mark.parametrize("overrides", [(), ("trainer.max_epochs=2",)], ids=str)
def test_results_that_were_kept_are_shown_where_nothing_was_run(
    ablate: Ablate,
    table: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    overrides: tuple[str, ...],
) -> None:
    ablate("--save", *overrides)
    capsys.readouterr()

    assert main(["ablate", str(table), "--show", "--output-dir", str(tmp_path / "other")]) == 0

    said = capsys.readouterr().out
    assert f"No finished run of this table by the code as it is now lies in {tmp_path}" in said
    assert "overrides of a run are repeated behind --show." in said
    assert f"These are the results that are kept in {table.parent / 'results'}" in said
    assert "50.00 ± 0.00" in said

    words = ["--show", "--seeds", "1", "--output-dir", str(tmp_path / "other")]
    assert main(["ablate", str(table), *words]) == 0

    said = capsys.readouterr().out
    assert "50.00" in said
    assert "±" not in said  # of the one seed alone


def test_a_failed_run_gives_status_1_and_the_rest_of_the_table(
    ablate: Ablate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_manifest(tmp_path, MANIFEST.replace("name: no division", "name: bad"))

    assert ablate("--seeds", "1") == 1

    said = capsys.readouterr()
    assert "failed: bad, seed 1: it ended with status 2; see log" in said.err
    assert "50.00" in said.out


def test_code_that_was_changed_meanwhile_gives_status_1(
    ablate: Ablate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def changed(*_: object, **__: object) -> None:
        raise CodeChanged("the code was changed")

    monkeypatch.setattr(launch, "run_locally", changed)

    assert ablate("--debug") == 1
    assert "crosswalk: the code was changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--row", "ful"], "Did you mean full? It has: full; one view; no division"),
        (
            ["--seeds", "1,b"],
            "write different whole numbers, such as 1,2,3. The table's are",
        ),
        (["--seeds", "2,2"], "write different whole numbers"),
        (["--data", "cuhk"], "--data cuhk does not exist. Did you mean cuhk_pedes"),
        (["data=cuhk_pedes"], "choose the data with --data"),
        (["--jobs", "3", "--devices", "0,1"], "3 runs at a time with 1 devices each"),
        (["--devices", "0,1,2", "--jobs", "2", "trainer.devices=2"], "2 runs at a time with 2"),
        (["--slurm", "partition=gpu"], "add --launcher slurm"),
        (["--launcher", "slurm", "--devices", "0"], "--devices is about this machine"),
        (["trainer.num_nodes=2", "trainer.devices=1"], "is more than 1: add --launcher slurm"),
        (["trainer.max_epoch=1"], "crosswalk: trainer.max_epoch=1: Lightning's Trainer has no"),
        (["--row=no division", "data.batch_size=0"], "crosswalk: data.batch_size=0 "),
    ],
)
def test_a_mistake_is_told_before_anything_runs(
    ablate: Ablate,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    assert ablate(*words) == 2

    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rde", "rde is neither a file nor a table of experiments/. Those of rde are rde/heads, "),
        ("mar", "mar is neither a file nor a table of experiments/. Those of mar are mar/margin."),
        ("experiments/rde/nope.yaml", "experiments/. Those of rde are rde/heads, rde/table2"),
        ("rde/tabel2.yaml", "Did you mean rde/table2? Those of rde are rde/"),
        ("table2", "Did you mean rde/table2? Name one as <method>/<table>; there are tables of "),
        ("nowhere.yaml", "experiments/. Name one as <method>/<table>; there are tables of mar, rd"),
    ],
)
def test_a_table_that_does_not_exist_is_told_with_those_that_are_there(
    name: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables = [
        tmp_path / f"experiments/{each}.yaml" for each in ("rde/table2", "rde/heads", "mar/margin")
    ]
    for table in tables:
        table.parent.mkdir(parents=True, exist_ok=True)
        table.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("crosswalk.lab.tables.manifest.beside_configs", lambda path: [path])

    assert main(["ablate", name]) == 2

    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["ablate", "sweep"])
def test_only_one_of_what_runs_nothing_is_taken(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "rde", "--show", "--dry-run"])

    assert "argument --dry-run: not allowed with argument --show" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["rde/two", "rde/two.yaml", "experiments/rde/two"])
def test_a_table_is_found_by_its_method_and_name(
    name: str,
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["ablate", name, "--show"]) == 0
    assert main(["ablate", "mar/margin", "--show"]) == 0  # beside the package's configurations

    assert "A table" in capsys.readouterr().out


def test_rows_that_were_asked_for_are_printed_alone(
    ablate: Ablate, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (("--seeds=1",), ("--show",)):
        capsys.readouterr()

        assert ablate("--row=one view", *words) == 0

        said = capsys.readouterr().out
        assert "one view" in said
        assert "no division" not in said
        assert " ".join(said.split()).count("Rows that were not asked for are left out here") == 1


def test_no_more_runs_are_made_at_a_time_than_there_are(
    ablate: Ablate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slots: list[int] = []
    monkeypatch.setattr(launch, "run_locally", lambda runs, given, **_: slots.append(len(given)))
    monkeypatch.setattr(command, "estimates_of", lambda plan: Estimates([("us", lambda _: [5.0])]))

    ablate("--jobs", "1000", "--row=full", "--seeds=1")

    assert "That takes about 5 s, 1 at a time (from us)." in capsys.readouterr().out
    assert slots == [1]


def test_a_table_that_is_interrupted_says_the_command_that_goes_on(
    ablate: Ablate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "run_locally", interrupted)
    monkeypatch.setattr(sys, "argv", ["env/crosswalk", "ablate", "rde/two", "--row=one view"])
    monkeypatch.setenv("PATH", "")

    assert ablate() == 130

    said = capsys.readouterr().err
    assert (
        "goes on where this one was stopped:\n  env/crosswalk ablate rde/two '--row=one view'"
        in said
    )


def test_a_run_that_another_row_was_asked_for_says_so(
    ablate: Ablate, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []

    def run_locally(runs: TableRuns, slots: object, **_: object) -> None:
        notes.extend(run.note for run in runs.waiting)

    monkeypatch.setattr(launch, "run_locally", run_locally)

    ablate("--row=one view", "--seeds=1")
    ablate("--row=full", "--seeds=1")

    assert notes == ["for one view", ""]


def test_a_dry_run_writes_the_last_value_of_a_key_alone(
    ablate: Ablate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ablate("--dry-run", "--row=full", "--seeds=5", "protocol=official", "protocol=val") == 0

    command = capsys.readouterr().out.splitlines()[-1]
    assert command == "crosswalk train method=rde data=synthetic_pairs protocol=val seed=5"


def test_data_of_another_kind_are_named_with_the_option(
    ablate: Ablate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ablate("--data=synthetic_images", "--dry-run") == 2

    said = capsys.readouterr().err
    assert "--data synthetic_images gives images of people; method=rde trains on image" in said
    assert "Choose one of --data cuhk_pedes, --data icfg_pedes" in said
    assert "method=mmcl" not in said


def test_names_of_rows_and_what_slurm_is_asked_for_are_no_overrides(
    ablate: Ablate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_manifest(tmp_path, MANIFEST.replace("name: no division", "name: margin=0.1"))

    assert ablate("--row", "margin=0.1", "--dry-run", "--seeds=3") == 0

    assert capsys.readouterr().out.splitlines()[-1].endswith("division=off seed=3")


def test_other_data_make_a_table_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = MANIFEST.replace("data=synthetic_pairs", "data=cuhk_pedes")
    path = write_manifest(tmp_path, text + "synthetic: [trainer.max_epochs=1]\n")
    words = ["--data", "synthetic_pairs", "--dry-run", "--output-dir", str(tmp_path / "runs")]

    assert main(["ablate", str(path), *words]) == 0

    assert "data=synthetic_pairs trainer.max_epochs=1 seed=1" in capsys.readouterr().out
    moved = read_manifest(path).with_data("synthetic_pairs")
    assert (moved.name, moved.committed_path.name) == (
        "rde-two-synthetic_pairs",
        "two.synthetic_pairs.json",
    )


@pytest.mark.parametrize(
    ("table", "data", "overrides"),
    [
        ("rde/table2", "synthetic_pairs", ()),
        ("rde/table2", "", ("data.root=/datasets",)),
        ("mar/table3_market", "synthetic_transfer", ()),
        ("mar/table3_market", "", ("data.source.root=/a", "data.target.root=/b")),
    ],
)
def test_a_table_with_data_may_start(
    tmp_path: Path, table: str, data: str, overrides: tuple[str, ...]
) -> None:
    manifest = read_manifest(EXPERIMENTS / f"{table}.yaml")
    manifest = (manifest.with_data(data) if data else manifest).with_overrides(overrides)
    plan = make_plan(manifest, Pool(tmp_path, code=lambda config: CODE), seeds=[1])

    check_data(plan.wanted[0])

    assert plan.wanted[0].config["choices"]["data"] == (data or manifest.published_data)


@pytest.mark.parametrize("table", ["rde/table2", "mar/table3_market"])
def test_a_table_without_its_data_starts_nothing(tmp_path: Path, table: str) -> None:
    path = EXPERIMENTS / f"{table}.yaml"

    with pytest.raises(ValueError, match=r"needs data\.root=<folder of the data set>"):
        run_ablation(parse(["ablate", str(path), "--output-dir", str(tmp_path)]))

    assert not list(tmp_path.rglob("*.log"))


def test_a_dry_run_without_the_folder_of_the_data_says_that_no_run_can_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = str(EXPERIMENTS / "rde/table2.yaml")

    assert main(["ablate", table, "--dry-run", "--seeds=1", "--output-dir", str(tmp_path)]) == 0

    said = "note: no run can start as it is: data=cuhk_pedes needs data.root=<folder of the data"
    assert said in capsys.readouterr().err


def test_a_table_whose_data_are_not_there_starts_nothing_and_a_dry_run_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ablate", str(EXPERIMENTS / "rde/table2.yaml"), "--output-dir", str(tmp_path / "runs")]
    words += ["--data", "cuhk_pedes", f"data.root={tmp_path / 'people'}", "--seeds", "1"]

    with pytest.raises(FileNotFoundError, match=r"data\.root=.*people does not exist"):
        run_ablation(parse(words))
    (tmp_path / "people").mkdir()
    with pytest.raises(FileNotFoundError, match="people"):
        run_ablation(parse(words))

    assert not list(tmp_path.rglob("*.log"))
    capsys.readouterr()
    assert run_ablation(parse([*words, "--dry-run"])) == 0
    said = capsys.readouterr()
    assert f"data.root={tmp_path / 'people'} seed=1" in said.out
    assert "note: no run can start as it is: No annotation file of CUHK-PEDES" in said.err


def test_a_run_that_was_damaged_before_a_table_begins_does_not_end_it(
    ablate: Ablate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ablate()
    sorted(tmp_path.rglob("run.json"))[0].write_text("{")
    capsys.readouterr()

    assert ablate("--show") == ablate("--dry-run") == 0
    assert "4 runs, 3 finished and 1 left" in capsys.readouterr().out
    assert ablate() == 0
