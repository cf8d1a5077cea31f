from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from crosswalk.cli import main
from crosswalk.config.compose import compose
from crosswalk.config.plain import to_plain
from crosswalk.diagnostics.division import DivisionRecord, read_division
from crosswalk.files import write_arrays
from crosswalk.metrics.queries import QueryResults
from crosswalk.run.run_folder import RunFolder, create_run_folder, prepare_run_folder

SESSION = '{"started": "2026-01-01T12:00:00+00:00", "ended": null}'
DEEP = "[" * 100_000


def queries(folder: RunFolder, **changed: NDArray[Any]) -> None:
    rows, lists = np.zeros(2, np.int64), np.zeros((2, 3), np.int64)
    found = QueryResults(*[rows] * 6, *[lists] * 3)._replace(**changed)
    folder.save_queries("test", "last", {"image_to_image": found})


@pytest.mark.parametrize(
    ("name", "text", "key", "read"),
    [
        ("config.yaml", "", "config.yaml", RunFolder.config),
        ("config.yaml", "[1]", "list of 1", RunFolder.config),
        ("config.yaml", "1: 2", "1 is no name", RunFolder.config),
        ("config.yaml", "data: {root: {3: x}}", "data.root.3", RunFolder.config),
        ("config.yaml", "choices: {method: [1]}", "choices.method", RunFolder.config),
        ("config.yaml", "trainer: 3", "trainer is 3", RunFolder.config),
        ("config.yaml", "seed: 1", "choices is missing", RunFolder.runnable_config),
        ("run.json", "[]", "list of 0", RunFolder.record),
        ("run.json", DEEP, "run.json", RunFolder.record),
        ("run.json", '{"sessions": 3}', "sessions is 3", RunFolder.record),
        ("run.json", '{"sessions": [3]}', "sessions", RunFolder.record),
        ("run.json", '{"sessions": [{"started": "x"}]}', "sessions.0.started", RunFolder.record),
        ("run.json", '{"data": "x"}', "data is 'x'", RunFolder.record),
        ("results.json", '{"last": 3}', "last is 3", RunFolder.results),
        ("results.json", '{"last": {"test/map": 0.5}}', "epoch", RunFolder.results),
        ("results.json", '{"last": {"epoch": 1, "a": "x"}}', "last.a is 'x'", RunFolder.results),
        ("metrics.jsonl", '{"global_step": 1}\n[]\n', "line 2", RunFolder.metrics),
        ("metrics.jsonl", '{"step": 1, "a": "x"}\n', "line 1: a is 'x'", RunFolder.metrics),
        ("metrics.jsonl", f"{DEEP}\n", "line 1", RunFolder.metrics),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_damaged_file_is_named_with_its_key(
    tmp_path: Path, name: str, text: str, key: str, read: Callable[[RunFolder], object]
) -> None:
    (tmp_path / name).write_text(text)

    with pytest.raises(ValueError, match=re.escape(str(tmp_path / name))) as damaged:
        read(RunFolder(tmp_path))
    assert key in str(damaged.value)
    assert len(str(damaged.value)) < 700


def test_a_damaged_configuration_is_written_again_by_the_command_of_the_run(tmp_path: Path) -> None:
    command = "python -m crosswalk train method=mmcl name=x resume=true"
    RunFolder(tmp_path).save_record({"command": command, "sessions": [json.loads(SESSION)]})
    (tmp_path / "config.yaml").write_text("seed: [1")

    with pytest.raises(ValueError, match="write it again") as damaged:
        RunFolder(tmp_path).config()
    told = str(damaged.value).split("write it again: ")[1]
    assert told == f"crosswalk config show method=mmcl name=x > {tmp_path}/config.yaml"
    assert main(told.split(" > ")[0].split()[1:]) == 0


@pytest.mark.parametrize("which", ["queries/test-last.npz"])
@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04cut"])
def test_damaged_results_of_queries_name_the_command_that_writes_them(
    tmp_path: Path, which: str, content: bytes
) -> None:
    (tmp_path / which).parent.mkdir()
    (tmp_path / which).write_bytes(content)

    with pytest.raises(ValueError, match=rf"{which} is damaged.*crosswalk evaluate"):
        RunFolder(tmp_path).queries("test", "last")


@pytest.mark.parametrize(
    "changed",
    [
        {"first_hit": np.zeros(1, np.int64)},
        {"top_score": np.zeros(2)},
        {"person_id": np.array(["a", "b"])},
        {"best_score": np.zeros(1)},
        {"best_other_score": np.zeros((2, 1))},
    ],
    ids=str,
)
def test_results_of_queries_that_do_not_belong_together_are_refused(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    queries(RunFolder(tmp_path), **changed)

    with pytest.raises(ValueError, match=rf"image_to_image_{next(iter(changed))} .*evaluate"):
        RunFolder(tmp_path).queries("test", "last")


def test_results_of_queries_of_an_earlier_release_are_read_without_their_scores(
    tmp_path: Path,
) -> None:
    queries(RunFolder(tmp_path))

    found = RunFolder(tmp_path).queries("test", "last")["image_to_image"]

    assert found[-3:] == (None, None, None)
    assert found.first_hit.tolist() == [0, 0]


def config_of(tmp_path: Path, **changed: object) -> dict[str, Any]:
    words = ["method=mmcl", f"output_dir={tmp_path}", "name=x"]
    return to_plain(compose(words)) | changed


def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """Return a run of three epochs without its last.ckpt."""
    for name in (
        "CROSSWALK_RUN_DIR",
        "CROSSWALK_FIRST_PROCESS",
        "TORCHELASTIC_RUN_ID",
        "SLURM_PROCID",
    ):
        monkeypatch.setenv(name, "")  # and so put back, whatever the run sets
        monkeypatch.delenv(name)
    config = config_of(tmp_path)
    choices = config["choices"]
    folder = create_run_folder(
        tmp_path, choices["method"], choices["data"], name="x", config=config
    )
    for epoch in (1, 2, 3):
        folder.append_metrics({"global_step": epoch, "epoch": epoch})
    folder.best_checkpoint.touch()
    return folder


def test_a_run_whose_checkpoint_was_deleted_does_not_begin_anew_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(tmp_path, monkeypatch)

    with pytest.raises(ValueError, match=r"last\.ckpt is missing.*resume=restart"):
        prepare_run_folder(config_of(tmp_path, resume=True))
    with pytest.raises(ValueError, match=r"last\.ckpt is missing.*resume=restart"):
        prepare_run_folder(config_of(tmp_path, resume=str(folder.path)))
    assert folder.best_checkpoint.exists()

    assert prepare_run_folder(config_of(tmp_path, resume="restart")) == folder
    assert not folder.best_checkpoint.exists()


def test_a_run_stopped_before_its_first_checkpoint_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(tmp_path, monkeypatch)
    folder.save_metrics([{"global_step": 3, "epoch": 1}])
    folder.last_checkpoint.with_name("last.ckpt.next").touch()

    assert prepare_run_folder(config_of(tmp_path, resume=True)) == folder


def test_a_folder_of_a_run_that_was_killed_at_its_very_start_is_taken(tmp_path: Path) -> None:
    killed = tmp_path / "mmcl-toy-x"
    killed.mkdir()
    (killed / "config.yaml.123.unfinished").touch()

    folder = create_run_folder(tmp_path, "mmcl", "toy", name="x", config={"seed": 1})

    assert folder.path == killed
    assert folder.config() == {"seed": 1}
    (killed / "config.yaml").rename(killed / "last.ckpt")
    with pytest.raises(FileExistsError, match=r"has no config\.yaml\. Choose another name="):
        create_run_folder(tmp_path, "mmcl", "toy", name="x", config={"seed": 1})


@pytest.mark.parametrize("missing", ["losses", "views", "epoch"])
def test_an_array_that_is_missing_is_named_with_its_file(tmp_path: Path, missing: str) -> None:
    arrays = {name: np.zeros((1, 1)) for name in DivisionRecord._fields if name != missing}
    write_arrays(tmp_path / "division-last.npz", arrays)

    with pytest.raises(ValueError, match=rf"division-last\.npz .* no array '{missing}'"):
        read_division(tmp_path / "division-last.npz")


def evaluation_of(run: Path, command: str) -> RunFolder:
    RunFolder(run).save_config({"seed": 1})
    folder = RunFolder(run / "evaluations" / "toy-last-01234567")
    folder.save_record({"command": command, "evaluates": str(run)})
    return folder


@pytest.mark.parametrize(
    "read",
    [
        RunFolder.config,
        RunFolder.results,
        lambda folder: folder.queries("test", "last"),
        lambda folder: folder.queries("test", "best"),
    ],
)
@pytest.mark.parametrize("data", ["/sets/run", "/sets/own pairs"])
def test_what_is_missing_of_an_evaluation_is_written_by_evaluating_the_run(
    tmp_path: Path, read: Callable[[RunFolder], object], data: str
) -> None:
    run, words = tmp_path / "run", ["data=own_pairs", f"data.root={data}"]
    typed = shlex.join(["python", "-m", "crosswalk", "evaluate", f"{run}/", *words])
    folder = evaluation_of(run, typed)
    for file in (folder.config_file, folder.results_file, folder.queries_file("test", "last")):
        file.parent.mkdir(exist_ok=True)
        file.write_text("[")

    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        read(folder)
    assert shlex.join(["crosswalk", "evaluate", str(run), *words]) in str(refused.value)


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["evaluate", "{}"], "`crosswalk evaluate {}`"),
        (["evaluate", "{}", "data.eval_batch_size=4"], "`crosswalk evaluate {}`"),
        (["audit", "{}", "--out=suspects.csv"], "`crosswalk audit {}`"),
        (["train", "method=mmcl", "resume={}"], "resume={}"),
    ],
)
def test_an_evaluation_is_no_run_and_the_run_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], advice: str
) -> None:
    folder = evaluation_of(tmp_path / "run", "crosswalk evaluate run")
    folder.save_config(config_of(tmp_path))

    assert main([word.format(folder.path) for word in words]) == 2
    assert advice.format(tmp_path / "run") in capsys.readouterr().err
