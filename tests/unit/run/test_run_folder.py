import json
import os
import re
import socket
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.utilities import rank_zero_only

from crosswalk import distributed
from crosswalk.config.keys import differing_keys, idle_keys, with_absolute_paths
from crosswalk.files import write_text
from crosswalk.run import run_folder
from crosswalk.run.run_folder import (
    CHILD_VARIABLE,
    FIRST_VARIABLE,
    RunFolder,
    create_run_folder,
    find_run_to_resume,
    forget_stale_ranks,
    open_run_to_resume,
    prepare_run_folder,
)

CONFIG: dict[str, Any] = {"seed": 1, "method": {"margin": 0.1, "views": ["a", "b"]}, "resume": None}
OTHER: dict[str, Any] = {"seed": 2, "method": {"margin": 0.1, "views": ["a"]}, "resume": True}
LAUNCHER_VARIABLES = (
    CHILD_VARIABLE,
    FIRST_VARIABLE,
    "LOCAL_RANK",
    "RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RUN_ID",
    "SLURM_NTASKS",
    "SLURM_PROCID",
)


def whole(root: Path, resume: str | None = None) -> dict[str, Any]:
    choices = {"method": "rde", "data": "toy"}
    return {**CONFIG, "choices": choices, "output_dir": str(root), "name": None, "resume": resume}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHER_VARIABLES:
        monkeypatch.setenv(name, "")  # restored afterwards, even where the code sets it
        monkeypatch.delenv(name)


def finish(folder: RunFolder, status: str = "finished") -> None:
    write_text(folder.record_file, f'{{"status": "{status}"}}')


def start(root: Path, config: dict[str, Any] = CONFIG, name: str | None = None) -> RunFolder:
    folder = create_run_folder(root, "rde", "toy", name=name, config=config)
    number = len(list(root.iterdir()))
    os.utime(folder.config_file, (number, number))  # later runs are newer
    return folder


def test_another_list_of_diagnostics_makes_no_other_run(tmp_path: Path) -> None:
    node = {"_target_": "crosswalk.diagnostics.division.Division"}
    run = start(tmp_path, {**CONFIG, "diagnostics": [node]})

    assert open_run_to_resume(run.path, config={**CONFIG, "diagnostics": []}) == run
    assert open_run_to_resume(run.path, config=CONFIG) == run  # of the release before


def test_a_run_without_a_name_is_named_by_the_time(tmp_path: Path) -> None:
    first, second = start(tmp_path), start(tmp_path)

    assert re.fullmatch(r"rde-toy-\d{8}-\d{6}", first.name)
    assert first.path != second.path
    assert first.config() == CONFIG


def test_a_name_is_used_once(tmp_path: Path) -> None:
    start(tmp_path, name="first")

    with pytest.raises(FileExistsError, match=r"rde-toy-first exists\. Continue .* resume=true"):
        start(tmp_path, name="first")


@pytest.mark.parametrize("name", ["a/b", "..\\x", "", "two words"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="may contain letters"):
        start(tmp_path, name=name)


def test_the_newest_unfinished_run_of_the_same_config_is_continued(tmp_path: Path) -> None:
    start(tmp_path)
    wanted = start(tmp_path)
    start(tmp_path, OTHER)
    finish(start(tmp_path))

    found = find_run_to_resume(
        tmp_path, "rde", "toy", name=None, config={**CONFIG, "resume": True, "name": None}
    )

    assert found == wanted


def test_a_run_whose_data_begins_alike_is_another_one(tmp_path: Path) -> None:
    create_run_folder(tmp_path, "rde", "toy-noisy", name=None, config=CONFIG)

    with pytest.raises(FileNotFoundError, match="no run"):
        find_run_to_resume(tmp_path, "rde", "toy", name=None, config=CONFIG)


def test_a_finished_run_is_not_continued(tmp_path: Path) -> None:
    folder = start(tmp_path, name="first")
    finish(folder)

    told = rf"finished.*`crosswalk report {re.escape(str(folder.path))}`"  # it may lack that alone
    with pytest.raises(FileNotFoundError, match=told):
        find_run_to_resume(tmp_path, "rde", "toy", name="first", config=CONFIG)
    with pytest.raises(ValueError, match=told):
        open_run_to_resume(folder.path, config=CONFIG)


def test_keys_that_differ_are_named_with_both_values(tmp_path: Path) -> None:
    folder = start(tmp_path)

    expected = r"  method.views: \['a', 'b'\] → \['a'\]\n  seed: 1 → 2\n"
    with pytest.raises(ValueError, match=expected):
        find_run_to_resume(tmp_path, "rde", "toy", name=None, config=OTHER)
    with pytest.raises(ValueError, match=expected):
        open_run_to_resume(folder.path, config=OTHER)


def test_a_config_equals_itself_after_it_was_saved(tmp_path: Path) -> None:
    config = {"size": (384, 128), "rate": 1e-5, "none": None, "text": "1e-5", "empty": {}}

    folder = create_run_folder(tmp_path, "rde", "toy", name=None, config=config)

    assert differing_keys(config, folder.config()) == {}


def test_a_run_whose_data_lie_in_a_folder_that_is_not_utf8_is_compared(tmp_path: Path) -> None:
    config = {"data": {"root": os.fsdecode(b"/sets/\xe9t\xe9"), "size": 1}}
    folder = RunFolder(tmp_path)
    folder.save_config(config)

    assert differing_keys(config, folder.config()) == {}
    other = {"data": {"root": "/sets/été", "size": 1}}
    assert differing_keys(config, other) == {"data.root": "/sets/été → /sets/\udce9t\udce9"}
    assert idle_keys(config, {**config, "tags": ["é"]}) == ["tags"]


@pytest.mark.parametrize("last", ["", "last.ckpt"])
def test_a_path_to_a_run_or_its_checkpoint_is_continued(tmp_path: Path, last: str) -> None:
    folder = start(tmp_path, whole(tmp_path))

    found = prepare_run_folder(whole(tmp_path, resume=str(folder.path / last)))

    assert found == folder


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"^resume={tmp_path}: .*not the folder of a run"):
        open_run_to_resume(tmp_path, config=CONFIG)


def test_a_word_in_the_place_of_a_run_is_answered_with_its_key_and_the_folder_of_runs() -> None:
    said = r"^resume=maybe: maybe is no run folder; `ls 'my runs'` shows .* resume=true finds"
    with pytest.raises(FileNotFoundError, match=said):
        open_run_to_resume(Path("maybe"), config={**CONFIG, "output_dir": "my runs"})


@pytest.mark.parametrize("status", ["failed", "finished"])
def test_a_run_that_cannot_go_on_is_left_by_another_name(tmp_path: Path, status: str) -> None:
    ours = {**OTHER, "name": "first"}
    folder = create_run_folder(tmp_path, "rde", "toy", name="first", config=CONFIG)
    folder.save_record({"status": status})

    with pytest.raises(FileExistsError, match=r"exists\. Choose another name=, or delete"):
        create_run_folder(tmp_path, "rde", "toy", name="first", config=ours)
    anew = "new run without resume and with another name="
    for call in (
        lambda: find_run_to_resume(tmp_path, "rde", "toy", name="first", config=ours),
        lambda: open_run_to_resume(folder.path, config=ours),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=anew) as refused:
            call()
        assert "newest" not in str(refused.value)


def test_processes_that_lightning_starts_share_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare_run_folder(whole(tmp_path))
    monkeypatch.setenv("LOCAL_RANK", "1")

    second = prepare_run_folder(whole(tmp_path))

    assert second.path == first.path.resolve()
    assert os.environ[FIRST_VARIABLE] == str(os.getpid())


def test_runs_that_start_at_the_same_moment_do_not_share_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one starts when the first has made its folder and put nothing in it yet."""
    now = SimpleNamespace(now=lambda: datetime(2026, 1, 2, 3, 4, 5))
    monkeypatch.setattr(run_folder, "datetime", now)
    save_config = RunFolder.save_config
    seconds: list[RunFolder] = []
    other = threading.Thread(target=lambda: seconds.append(start(tmp_path)))

    def slow(folder: RunFolder, config: dict[str, Any]) -> None:
        monkeypatch.setattr(RunFolder, "save_config", save_config)
        other.start()
        other.join(0.5)  # it waits for this one
        save_config(folder, config)

    monkeypatch.setattr(RunFolder, "save_config", slow)
    first = create_run_folder(tmp_path, "rde", "toy", name=None, config=OTHER)
    other.join()

    assert [first.name, seconds[0].name] == ["rde-toy-20260102-030405", "rde-toy-20260102-030405-2"]
    assert first.config() == OTHER


def test_a_run_started_by_another_run_has_its_own_folder(tmp_path: Path) -> None:
    first = prepare_run_folder(whole(tmp_path))

    second = prepare_run_folder(whole(tmp_path))

    assert second.path != first.path


@pytest.mark.parametrize(
    ("launcher", "rank"),
    [
        ({"TORCHELASTIC_RUN_ID": "none", "MASTER_PORT": "29500"}, "RANK"),
        ({"SLURM_NTASKS": "2", "SLURM_JOB_ID": "17"}, "SLURM_PROCID"),
    ],
)
def test_processes_of_torchrun_and_slurm_share_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: dict[str, str], rank: str
) -> None:
    for name, value in {**launcher, rank: "0"}.items():
        monkeypatch.setenv(name, value)
    first = prepare_run_folder(whole(tmp_path))
    monkeypatch.delenv(CHILD_VARIABLE)
    monkeypatch.setenv(rank, "1")

    second = prepare_run_folder(whole(tmp_path))

    assert second.path == first.path.resolve()
    assert [path.name for path in tmp_path.iterdir()] == [first.name]  # no note is left


def test_two_launches_do_not_take_each_others_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same name and port, one after the other, the second's first process being slow."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    launch = {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in {**launch, "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    earlier = prepare_run_folder(whole(tmp_path))
    distributed._stores.clear()  # as it is when the process has ended
    told: list[RunFolder] = []
    store_of = run_folder.store_of

    def slow(environment: dict[str, str]) -> object:
        """Let the second process ask before the first one has told."""
        store = store_of(environment)
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setattr(run_folder, "store_of", store_of)
        other = threading.Thread(target=lambda: told.append(prepare_run_folder(whole(tmp_path))))
        other.start()
        others.append(other)
        return store

    others: list[threading.Thread] = []
    monkeypatch.setattr(run_folder, "store_of", slow)
    later = prepare_run_folder(whole(tmp_path))
    others[0].join()

    assert later.path != earlier.path
    assert told[0].path == later.path.resolve()


def test_the_vocabulary_of_a_run_that_goes_on_must_be_the_same(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for _ in range(2):
        folder.keep_vocabulary(lambda path: path.write_text('["a", "man"]'))

    with pytest.raises(ValueError, match=r"other words than .*vocabulary\.json"):
        folder.keep_vocabulary(lambda path: path.write_text('["a", "woman"]'))

    assert folder.vocabulary_file.read_text() == '["a", "man"]'
    assert list(tmp_path.iterdir()) == [folder.vocabulary_file]


@pytest.mark.parametrize("people", [{}, {3: "anna", 5: "0005", 6: "caf\u00e9", 7: "\udce9"}])
def test_what_the_data_call_people_is_kept(tmp_path: Path, people: dict[int, str]) -> None:
    folder = RunFolder(tmp_path)

    folder.keep_people(people)

    kept = json.loads(folder.people_file.read_text()) if people else {}
    assert kept == {str(number): name for number, name in people.items()}
    assert folder.people_file.exists() == bool(people)


@pytest.mark.parametrize("output_dir", ["evaluations", "runs/it/evaluations"])
def test_only_what_lies_below_a_run_is_an_evaluation(tmp_path: Path, output_dir: str) -> None:
    RunFolder(tmp_path / "runs" / "it").path.mkdir(parents=True)
    RunFolder(tmp_path / "runs" / "it").save_config(CONFIG)
    folder = RunFolder(tmp_path / output_dir / "rde-toy")

    if output_dir == "evaluations":
        folder.check_is_run("evaluate")
        assert folder.evaluated == folder.path
    else:
        with pytest.raises(ValueError, match=r"is an evaluation of a run, not a run"):
            folder.check_is_run("evaluate")


def test_what_a_run_leaves_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "rde-toy")
    before = (folder.record(), folder.results(), folder.metrics(), folder.latest_metrics())

    folder.save_record({"status": "finished", "folder": Path("runs")})
    folder.save_results({"last": {"epoch": 2, "test/rank1": 490 / 930}})
    for step in range(3):
        folder.append_metrics({"global_step": step, "epoch": 1, "train/loss": 1 / 3})

    assert before == ({}, {}, [], None)
    assert folder.record() == {"status": "finished", "folder": "runs"}
    assert folder.results() == {"last": {"epoch": 2, "test/rank1": 0.5268817204301075}}
    assert [line["global_step"] for line in folder.metrics()] == [0, 1, 2]
    assert folder.latest_metrics() == {"global_step": 2, "epoch": 1, "train/loss": 1 / 3}


def test_lines_of_runs_whose_epochs_counted_from_0_are_read_as_those_of_today(
    tmp_path: Path,
) -> None:
    folder = RunFolder(tmp_path)
    lines = [
        {"step": 3, "epoch": 0, "time": 1.0, "train/loss": 0.5},
        {"step": 4, "epoch": None, "time": 2.0, "best/test/rank1": 0.25},
        {"global_step": 7, "epoch": 2, "time": 3.0, "train/loss": 0.25},
    ]
    folder.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    assert folder.metrics() == [
        {"global_step": 3, "epoch": 1, "time": 1.0, "train/loss": 0.5},
        {"global_step": 4, "epoch": None, "time": 2.0, "best/test/rank1": 0.25},
        {"global_step": 7, "epoch": 2, "time": 3.0, "train/loss": 0.25},
    ]
    folder.save_metrics(folder.metrics())  # as a run does that goes on
    assert [line["epoch"] for line in folder.metrics()] == [1, None, 2]


@pytest.mark.parametrize("size", [54, 59, 65536])
def test_the_last_line_is_found_without_reading_all(tmp_path: Path, size: int) -> None:
    folder = RunFolder(tmp_path)
    for step in range(100, 200):
        folder.append_metrics({"global_step": step})  # 21 bytes a line
    with folder.metrics_file.open("a") as file:
        file.write('{"global_step": 200')  # not whole yet

    assert folder.latest_metrics(size) == {"global_step": 199}


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("config.yaml", "seed: 1\n\tname: x", RunFolder.config),
        ("config.yaml", "- seed", RunFolder.config),
        ("run.json", '{"status": "fini', RunFolder.record),
        ("results.json", "null", RunFolder.results),
        ("metrics.jsonl", '{"step": 1}\n{"step": \n', RunFolder.metrics),
        ("metrics.jsonl", '{"step": 1}\n{"step": \n', RunFolder.latest_metrics),
    ],
)
def test_a_damaged_file_is_named(
    tmp_path: Path, name: str, text: str, read: Callable[[RunFolder], object]
) -> None:
    (tmp_path / name).write_text(text)

    with pytest.raises(
        ValueError, match=rf"{re.escape(str(tmp_path / name))} is (damaged \(|not valid)"
    ):
        read(RunFolder(tmp_path))


def test_missing_queries_name_those_that_there_are(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.save_config({"protocol": "last"})
    for checkpoint in ("last", "start"):
        folder.save_queries("test", checkpoint, {})

    with pytest.raises(FileNotFoundError, match=r"chose no best epoch .* may be last or start"):
        folder.queries("test", "best")


@pytest.mark.parametrize(("processes", "left"), [(1, []), (2, ["LOCAL_RANK", "RANK"])])
def test_one_process_without_a_launcher_is_the_first_whatever_the_environment_says(
    processes: int, left: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr(rank_zero_only, "rank", 3)

    forget_stale_ranks(processes)

    assert [name for name in ("LOCAL_RANK", "RANK") if name in os.environ] == left
    assert (rank_zero_only.rank == 0) == (processes == 1)  # type: ignore[attr-defined]


def test_a_process_of_a_launcher_keeps_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    monkeypatch.setenv("RANK", "3")

    forget_stale_ranks(1)

    assert os.environ["RANK"] == "3"


@pytest.mark.parametrize("key", ["num_workers", "cache", "allow_outside"])
def test_a_run_goes_on_with_another_value_of_what_changes_no_weight(
    tmp_path: Path, key: str
) -> None:
    before = {**CONFIG, "data": {key: 0}, "trainer": {"log_every_n_steps": 1}, "logger": {"csv": 1}}
    folder = start(tmp_path, before)
    now = {**CONFIG, "data": {key: 1}, "trainer": {"log_every_n_steps": 9}, "logger": {"wandb": 1}}

    assert find_run_to_resume(tmp_path, "rde", "toy", name=None, config=now) == folder
    assert open_run_to_resume(folder.path, config=now) == folder


def test_a_run_goes_on_with_its_data_elsewhere(tmp_path: Path) -> None:
    """Whether they are the same data their fingerprint tells."""
    folder = start(tmp_path, {**CONFIG, "data": {"root": "/old/sets"}})
    moved = {**CONFIG, "data": {"root": "/new/sets"}}

    found = find_run_to_resume(tmp_path, "rde", "toy", name=None, config=moved)

    assert found.path == folder.path


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("checkpoint", "start.ckpt"),
        ("encoder", {"backbone": {"pretrained": "weights.pth"}}),  # it need not be there any more
        ("data", {"tokenizer": {"vocabulary": "words.json"}}),
    ],
)
def test_a_run_goes_on_by_the_command_that_named_its_files_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, value: object
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = {**CONFIG, part: value}
    folder = start(tmp_path, with_absolute_paths(typed))

    assert find_run_to_resume(tmp_path, "rde", "toy", name=None, config=typed) == folder
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="elsewhere"):
        find_run_to_resume(tmp_path, "rde", "toy", name=None, config=typed)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"checkpoint": None}, "began with no weights of another run, so nothing was evaluated"),
        ({"checkpoint": "a.ckpt"}, "writes those of all checkpoints of a run"),
        ({"stage": {"load": {}}}, "writes those of all checkpoints of a run"),
    ],
)
def test_results_at_the_start_are_only_of_runs_that_started_from_something(
    tmp_path: Path, config: dict[str, Any], told: str
) -> None:
    folder = RunFolder(tmp_path)
    folder.save_config({"protocol": "val", **config})
    folder.last_checkpoint.touch()

    with pytest.raises(FileNotFoundError, match=told):
        folder.queries("test", "start")


def test_a_run_without_an_epoch_is_to_be_continued(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.save_config({"protocol": "val"})

    with pytest.raises(FileNotFoundError, match=r"did not finish an epoch.*resume=true\."):
        folder.queries("test", "best")
