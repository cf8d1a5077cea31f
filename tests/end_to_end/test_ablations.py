import json
import shutil
import time
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from crosswalk.run.run_folder import RunFolder
from tests.end_to_end.commands import start_command
from tests.end_to_end.small_runs import assert_same_run, small_run, tiny_pairs
from tests.unit.lab import fake_slurm

ROWS = (
    {"name": "RDE", "overrides": [], "published": [70.0, None]},
    {"name": "one view", "run": "RDE", "view": "global", "published": [68.0, None]},
    {"name": "without CCD", "overrides": ["division=off"], "published": [60.0, 50.0]},
)
BROKEN = {"name": "broken", "overrides": ["data.root=/nowhere"], "published": None}
PATIENCE = 600.0


class Table:
    """A table of tiny runs in a folder of its own."""

    def __init__(self, folder: Path, root: Path, rows: Sequence[dict] = ROWS) -> None:
        self.runs, self.root, self.said = folder / "runs", root, folder / "said.txt"
        self.path = folder / "experiments" / "rde" / "tiny.yaml"
        self.write(rows)

    def write(self, rows: Sequence[dict]) -> None:
        content = {
            "title": "A tiny table",
            "source": {"paper": "none", "table": 1, "verified": False},
            "base": ["method=rde", "data=cuhk_pedes"],
            "synthetic": [
                *small_run("rde")[1:],
                "trainer.max_epochs=1",
                "checkpoint_every_n_steps=2",
            ],
            "metrics": ["rank1", "map"],
            "seeds": [1],
            "rows": list(rows),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(yaml.safe_dump(content, sort_keys=False))

    def start(self, *words: str) -> BaseProcess:
        command = ["ablate", str(self.path), "--data", "synthetic_pairs"]
        command += ["--output-dir", str(self.runs), f"data.root={self.root}", *words]
        cache = str(self.root.parent / "cache")
        return start_command(command, self.said, CROSSWALK_CACHE=cache)

    def run(self, *words: str) -> tuple[int | None, str]:
        self.said.unlink(missing_ok=True)
        process = self.start(*words)
        process.join()
        return process.exitcode, self.said.read_text()

    def folders(self) -> dict[str, RunFolder]:
        """Return the run folders by what distinguishes the rows."""
        found = [RunFolder(path) for path in (self.runs / "ablations").glob("rde-*")]
        return {_row(folder.config()): folder for folder in found if folder.config_file.exists()}

    def content(self) -> dict:
        path = self.runs / "ablations" / "tables" / "rde-tiny-synthetic_pairs.json"
        return json.loads(path.read_text())


def _row(config: Mapping[str, Any]) -> str:
    if config["data"]["root"] == "/nowhere":
        return "broken"
    return "without CCD" if config["choices"]["division"] == "off" else "RDE"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pairs(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def uninterrupted(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Table:
    table = Table(tmp_path_factory.mktemp("table"), root)
    status, said = table.run("--jobs", "2")
    assert status == 0, said
    return table


def test_a_table_has_every_row_with_its_runs_and_a_verdict(uninterrupted: Table) -> None:
    content = uninterrupted.content()

    assert [(run["row"], run["seed"]) for run in content["runs"]] == [
        *(("RDE", 1), ("without CCD", 1)),
    ]
    assert {row["name"] for row in content["verdict"]["rows"]} == {
        *("RDE", "one view", "without CCD"),
    }
    for run in content["runs"]:
        folder = uninterrupted.folders()[run["row"]]
        assert run["results"] == folder.results()
        assert run["seconds"] > 0


def test_the_queries_of_a_table_are_those_of_its_runs(uninterrupted: Table) -> None:
    tables = uninterrupted.runs / "ablations" / "tables"
    with np.load(tables / "rde-tiny-synthetic_pairs.queries.npz") as queries:
        stored = uninterrupted.folders()["RDE"].queries("test", "best")
        for row, direction in (("RDE", "text_to_image"), ("one view", "view/global")):
            expected = stored[direction]
            order = np.argsort(expected.sample_index)
            np.testing.assert_array_equal(queries["sample_index"], expected.sample_index[order])
            np.testing.assert_allclose(
                queries[f"{row}|1|map"], expected.average_precision[order], rtol=1e-6
            )


def test_what_is_done_is_not_run_again_and_a_broken_row_harms_no_other(
    uninterrupted: Table,
) -> None:
    before = {name: folder.record() for name, folder in uninterrupted.folders().items()}
    uninterrupted.write([*ROWS, BROKEN])

    status, said = uninterrupted.run()

    uninterrupted.write(ROWS)
    assert status == 1
    assert "3 runs, 2 finished and 1 left" in said
    assert "failed: broken, seed 1: it ended with status 2" in said
    assert "/nowhere" in said
    assert len(uninterrupted.content()["runs"]) == 2
    assert {name: uninterrupted.folders()[name].record() for name in before} == before


def test_a_killed_table_goes_on_and_ends_as_if_nothing_had_happened(
    root: Path, uninterrupted: Table, tmp_path: Path
) -> None:
    table = Table(tmp_path, root)
    finished = uninterrupted.folders()["RDE"].path
    shutil.copytree(finished, table.runs / "ablations" / finished.name)
    process = table.start()
    deadline = time.monotonic() + PATIENCE
    while not (ours := table.folders().get("without CCD")) or not ours.last_checkpoint.exists():
        assert process.is_alive()
        assert time.monotonic() < deadline, "no run has come to its first checkpoint"
        time.sleep(0.01)
    process.kill()
    process.join()

    status, said = table.run()

    assert status == 0, said
    assert len(ours.record()["sessions"]) == 2
    assert_same_run(ours, uninterrupted.folders()["without CCD"])
    numbers = [
        [(run["row"], run["results"]) for run in each.content()["runs"]]
        for each in (table, uninterrupted)
    ]
    assert numbers[0] == numbers[1]


def test_slurm_runs_a_row_as_one_job_in_which_lightning_finds_all_processes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed")
    for name, value in fake_slurm.install(tmp_path / "slurm").items():
        monkeypatch.setenv(name, value)
    table = Table(tmp_path, root, ROWS[2:])

    status, said = table.run(
        *("--launcher", "slurm", "--slurm", "timeout_min=9"),
        *("trainer.devices=2", "trainer.num_nodes=1"),
    )

    assert status == 0, said
    (job,) = [json.loads(path.read_text()) for path in (tmp_path / "slurm/jobs").glob("*.json")]
    assert (job["nodes"], job["ntasks-per-node"]) == ("1", "2")
    (run,) = table.content()["runs"]
    assert run["results"]["last"]["epoch"] == 1
    second = table.runs / "ablations" / "slurm" / "1_1_log.out"
    assert "GLOBAL_RANK: 1, MEMBER: 2/2" in second.read_text()
