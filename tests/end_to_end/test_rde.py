import json
import signal
from pathlib import Path

import pytest
import torch

from crosswalk.run.run_folder import RunFolder
from crosswalk.synthetic.generate import synthesize_pairs
from tests.end_to_end.small_runs import (
    assert_same_run,
    evaluated_copy,
    run_small,
    small_overrides,
    tiny_pairs,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pairs(tmp_path_factory.mktemp("data"))


def run(
    root: Path, runs: Path, *more: str, event: str | None = None, count: int = 0
) -> tuple[int | None, RunFolder]:
    overrides = small_overrides(root, "checkpoint_every_n_steps=3", *more)
    return run_small(overrides, runs, root.parent / "cache", event, count)


@pytest.fixture(scope="module")
def uninterrupted(root: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    code, folder = run(root, tmp_path_factory.mktemp("runs"))
    assert code == 0
    return folder


def test_a_run_leaves_everything_the_readme_names(uninterrupted: RunFolder) -> None:
    results = uninterrupted.results()
    names = {path.name for path in uninterrupted.path.iterdir()}

    assert names >= {"config.yaml", "run.json", "metrics.jsonl", "metrics.csv", "results.json"}
    assert names >= {"last.ckpt", "best.ckpt", "queries"}
    assert uninterrupted.record()["status"] == "finished"
    assert set(results) == {"best", "last"}
    assert results["last"]["epoch"] == 2
    for split in ("val", "test"):
        for direction in ("", "image_to_text/", "view/global/", "view/token_selection/"):
            value = results["best"][f"{split}/{direction}rank1"]
            assert 0 <= value <= results["best"][f"{split}/{direction}rank10"] <= 1


def test_the_logged_metrics_are_those_of_every_epoch(uninterrupted: RunFolder) -> None:
    lines = uninterrupted.metrics()

    epochs = {
        name: [line["epoch"] for line in lines if name in line]
        for name in ("train/loss", "train/clean_fraction", "val/rank1", "val/map")
    }
    assert all(found == [0, 1] for found in epochs.values()), epochs


def test_a_checkpoint_holds_plain_values_and_the_whole_configuration(
    uninterrupted: RunFolder,
) -> None:
    checkpoint = torch.load(uninterrupted.best_checkpoint, weights_only=True)

    assert checkpoint["crosswalk"]["config"] == uninterrupted.config()
    assert checkpoint["state_dict"]["clean"].shape == (122,)


@pytest.mark.parametrize(
    ("event", "count"),
    [("step", 1), ("step", 5), ("step", 12), ("sweep", 3), ("sweep", 9), ("evaluation", 2)],
)
def test_a_run_killed_anywhere_and_resumed_ends_as_if_nothing_had_happened(
    root: Path, uninterrupted: RunFolder, tmp_path: Path, event: str, count: int
) -> None:
    code, _ = run(root, tmp_path, event=event, count=count)
    assert code == -signal.SIGKILL

    code, resumed = run(root, tmp_path, "resume=true")

    assert code == 0
    assert_same_run(resumed, uninterrupted)


def test_workers_change_nothing(root: Path, uninterrupted: RunFolder, tmp_path: Path) -> None:
    code, with_workers = run(root, tmp_path, "data.num_workers=2")

    assert code == 0
    assert_same_run(with_workers, uninterrupted)


def test_the_official_protocol_chooses_on_test_and_reports_both(root: Path, tmp_path: Path) -> None:
    code, folder = run(root, tmp_path, "protocol=official")

    assert code == 0
    results = folder.results()
    logged = [line["test/rank1"] for line in folder.metrics() if "test/rank1" in line]
    assert results["best"]["test/rank1"] == max(logged[:2])
    assert "val/rank1" in results["best"]


def test_an_evaluation_of_a_run_repeats_its_results(
    uninterrupted: RunFolder, root: Path, tmp_path: Path
) -> None:
    copy = evaluated_copy(uninterrupted, tmp_path, root.parent / "cache")

    assert copy.results_file.read_text() == uninterrupted.results_file.read_text()


def test_a_run_is_evaluated_on_other_data(
    root: Path, uninterrupted: RunFolder, tmp_path: Path
) -> None:
    other = synthesize_pairs(tmp_path / "other", size="tiny", seed=9, progress=False)
    annotation = other / "CUHK-PEDES" / "reid_raw.json"
    entries = json.loads(annotation.read_text())
    alone = next(e for e in entries if sum(e["id"] == other["id"] for other in entries) > 1)
    entries.remove(alone)  # one training image less, nobody less
    annotation.write_text(json.dumps(entries))

    copy = evaluated_copy(
        uninterrupted,
        tmp_path,
        root.parent / "cache",
        [f"data.root={other}", "data=cuhk_pedes", "data.num_workers=0"],
    )

    assert copy.results_file.read_text() == uninterrupted.results_file.read_text()
    assert (copy.path / "evaluations" / "queries" / "test-best.npz").exists()


def test_the_cache_changes_nothing(root: Path, uninterrupted: RunFolder, tmp_path: Path) -> None:
    code, without_cache = run(root, tmp_path, "data.cache=off")

    assert code == 0
    assert_same_run(without_cache, uninterrupted)
