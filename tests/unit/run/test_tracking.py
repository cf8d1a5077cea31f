import ast
import inspect
import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crosswalk.config.constructors import check_node
from crosswalk.run import tracking, wandb_server
from crosswalk.run.run_folder import RunFolder
from crosswalk.run.tracking import RunLogger, wandb_logger
from crosswalk.run.wandb_server import is_logged_in, wandb_mode


def logged(folder: Path) -> list[dict[str, Any]]:
    lines = RunFolder(folder).metrics()
    return [{name: value for name, value in line.items() if name != "time"} for line in lines]


def test_a_line_has_step_epoch_time_and_values(tmp_path: Path) -> None:
    RunLogger(tmp_path).log_metrics({"train/loss": 0.5, "epoch": 2.0}, step=7)

    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert list(line) == ["global_step", "epoch", "time", "train/loss"]
    assert (line["global_step"], line["epoch"], line["train/loss"]) == (7, 3, 0.5)


def test_lines_after_the_checkpoint_are_dropped_and_a_broken_last_line_too(tmp_path: Path) -> None:
    logger = RunLogger(tmp_path)
    for step in range(4):
        logger.log_metrics({"train/loss": step}, step=step)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "train/lo')

    logger.cut(2)
    logger.log_metrics({"train/loss": 20}, step=2)

    assert [line["train/loss"] for line in logged(tmp_path)] == [0, 1, 20]


def test_values_that_json_does_not_know_are_words(tmp_path: Path) -> None:
    RunLogger(tmp_path).log_metrics({"a": float("nan"), "b": float("inf")}, step=0)

    assert logged(tmp_path) == [{"global_step": 0, "epoch": None, "a": "nan", "b": "inf"}]


def test_the_table_has_one_row_per_step_and_a_column_per_name(tmp_path: Path) -> None:
    logger = RunLogger(tmp_path)
    logger.log_metrics({"train/loss": 1.0, "epoch": 0}, step=0)
    logger.log_metrics({"val/rank1": 0.25, "epoch": 0}, step=1)
    logger.log_metrics({"train/loss": 0.5, "epoch": 0}, step=1)

    logger.finalize("success")

    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "global_step,epoch,train/loss,val/rank1",
        "0,1,1.0,",
        "1,1,0.5,0.25",
    ]


@pytest.mark.parametrize(
    ("machine", "variables", "expected"),
    [
        ("api.wandb.ai", {}, True),
        ("example.org", {}, False),
        ("wandb.example.org", {"WANDB_BASE_URL": "https://wandb.example.org:8080"}, True),
    ],
)
def test_a_netrc_entry_of_the_server_is_a_login(
    tmp_path: Path, machine: str, variables: dict[str, str], expected: bool
) -> None:
    (tmp_path / ".netrc").write_text(f"machine {machine} login user password {'0' * 40}\n")

    assert is_logged_in({"HOME": str(tmp_path), **variables}) is expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": "0"}, "online"),
        ({"WANDB_MODE": ""}, "offline"),
        ({"WANDB_API_KEY": "0", "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_MODE": "dryrun"}, "offline"),
        ({"WANDB_MODE": "online"}, "online"),
        ({"WANDB_DISABLED": "true"}, "disabled"),
    ],
)
def test_wandb_is_offline_unless_the_user_logged_in_or_says_so(
    tmp_path: Path, variables: dict[str, str], expected: str
) -> None:
    assert wandb_mode({"HOME": str(tmp_path), **variables}) == expected


@pytest.fixture
def no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))


@pytest.mark.usefixtures("no_login")
def test_an_offline_run_and_its_continuation_lie_in_the_run_folder_under_one_id(
    tmp_path: Path,
) -> None:
    import wandb

    ids = []
    for step in range(2):
        logger = wandb_logger(tmp_path / "run", config={"method": {"margin": 0.1}})
        logger.log_metrics({"train/loss": 0.5}, step=step)
        ids.append(logger.experiment.id)
        summary = dict(logger.experiment.summary)
        config = dict(logger.experiment.config)
        wandb.finish()

    assert ids[0] == ids[1]
    assert (summary["global_step"], config["method"]) == (1, {"margin": 0.1})
    files = list((tmp_path / "run" / "wandb").glob(f"offline-run-*-{ids[0]}/*.wandb"))
    assert len(files) in (1, 2)  # one if both began within one second


@pytest.mark.usefixtures("no_login")
def test_epochs_count_from_1_in_wandb_as_in_the_files(tmp_path: Path) -> None:
    logged: list[dict[str, float]] = []
    logger = wandb_logger(tmp_path, config={})
    logger._experiment = SimpleNamespace(define_metric=lambda *_, **__: None, log=logged.append)

    logger.log_metrics({"train/loss": 0.5, "epoch": 2}, step=7)

    assert logged == [{"train/loss": 0.5, "epoch": 3, "global_step": 7}]


def test_wandb_is_not_imported_before_it_is_used() -> None:
    statements = ast.parse(inspect.getsource(tracking)).body

    imported = [ast.unparse(each) for each in statements if isinstance(each, ast.Import)]
    assert "import wandb" not in imported
    assert "import secrets" in imported


@pytest.mark.usefixtures("no_login")
def test_wandb_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")

    logger = wandb_logger(tmp_path, config={})
    logger.log_metrics({"train/loss": 0.5}, step=0)
    logger.experiment.finish()  # the next logger of this process would take this run for its own

    assert not list(tmp_path.glob("wandb/*run-*-*"))


@pytest.mark.parametrize(("sweep", "expected"), [("abc", "run1"), (None, None)])
def test_a_run_that_the_agent_of_a_sweep_started_has_the_agents_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: str | None, expected: str | None
) -> None:
    """Outside of a sweep the variable may be left over from another run."""
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    monkeypatch.setenv("WANDB_RUN_ID", "run1")
    if sweep is not None:
        monkeypatch.setenv("WANDB_SWEEP_ID", sweep)

    found = tracking.wandb_run_id(tmp_path)

    assert (found == "run1") == (expected == "run1")
    monkeypatch.delenv("WANDB_RUN_ID")
    assert tracking.wandb_run_id(tmp_path) == found


@pytest.mark.usefixtures("no_login")
def test_a_run_belongs_to_its_group_as_what_it_is_there(tmp_path: Path) -> None:
    import wandb

    logger = wandb_logger(tmp_path, config={}, group="margins", job_type="trial")

    assert (logger.experiment.group, logger.experiment.job_type) == ("margins", "trial")
    wandb.finish()


@pytest.mark.parametrize("mode", ["onlin", "0"])
def test_a_mode_that_wandb_has_not_is_named(mode: str) -> None:
    with pytest.raises(ValueError, match=rf"WANDB_MODE={mode} is no mode of W&B.*offline"):
        wandb_mode({"WANDB_MODE": mode})


def test_without_a_network_a_run_with_a_login_goes_on_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    for name in ("WANDB_MODE", "WANDB_DISABLED", "http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)

    logger = wandb_logger(tmp_path / "it", config={})

    assert logger._wandb_init["mode"] == "offline"
    assert "the run is logged offline" in capsys.readouterr().err


def test_a_server_that_answers_is_reachable_by_itself_and_by_a_proxy() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"

        assert wandb_server.is_reachable({"WANDB_BASE_URL": address})
        assert wandb_server.is_reachable({"HTTPS_PROXY": address})


def test_an_id_that_wandb_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    monkeypatch.setenv("WANDB_RUN_ID", "a/b")

    with pytest.raises(ValueError, match="WANDB_RUN_ID=a/b"):
        tracking.wandb_run_id(tmp_path)


@pytest.mark.parametrize("project", ["a/b", "a:b", "", "x" * 129])
def test_a_project_that_wandb_refuses_is_no_value(project: str) -> None:
    node = {"_target_": "crosswalk.run.tracking.wandb_logger", "project": project}

    with pytest.raises(ValueError, match=r"logger\.wandb\.project=.* is not allowed"):
        check_node(node, "logger.wandb", frozenset({"folder", "config", "tags"}))


@pytest.mark.usefixtures("no_login")
def test_a_run_goes_on_where_wandb_fails_and_says_so_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Lost:
        def __getattr__(self, name: str) -> None:
            raise FileNotFoundError(2, "No such file or directory", str(tmp_path / "wandb"))

    logger = wandb_logger(tmp_path, config={})
    logger._experiment = Lost()

    for step in range(2):
        logger.log_metrics({"train/loss": 0.5}, step=step)
    logger.log_table("lists", columns=["a"], data=[[1]])
    logger.log_hyperparams({"a": 1})
    logger.finalize("success")

    said = capsys.readouterr().err
    assert said.count("The run goes on without it") == 1
    assert "FileNotFoundError" in said
