import json
from pathlib import Path

import torch

from crosswalk.synthetic.generate import synthesize_pairs
from tests.end_to_end.small_runs import WholeRuns, evaluated_copy, run_kind


def test_a_run_measures_both_views_and_divides_the_pairs_before_every_epoch(
    whole: WholeRuns,
) -> None:
    folder = whole["rde"]
    results = folder.results()
    divided = [line for line in folder.metrics() if "train/clean_fraction" in line]
    state = torch.load(folder.best_checkpoint, weights_only=True)["state_dict"]

    for split in ("val", "test"):
        for direction in ("", "image_to_text/", "view/global/", "view/token_selection/"):
            value = results["best"][f"{split}/{direction}rank1"]
            assert 0 <= value <= results["best"][f"{split}/{direction}rank10"] <= 1
    assert [line["epoch"] for line in divided] == [1, 2]
    assert all(0 < line["train/clean_fraction"] < 1 for line in divided)
    assert state["clean"].shape == (122,)


def test_the_official_protocol_chooses_on_test_and_reports_both(
    cache: Path, tmp_path: Path
) -> None:
    code, folder = run_kind("rde", tmp_path, cache, "protocol=official")

    assert code == 0
    results = folder.results()
    logged = [line["test/rank1"] for line in folder.metrics() if "test/rank1" in line]
    assert results["best"]["test/rank1"] == max(logged[:2])
    assert "val/rank1" in results["best"]


def test_a_run_is_evaluated_on_other_data(whole: WholeRuns, cache: Path, tmp_path: Path) -> None:
    other = synthesize_pairs(tmp_path / "other", size="tiny", seed=9, progress=False)
    annotation = other / "CUHK-PEDES" / "reid_raw.json"
    entries = json.loads(annotation.read_text())
    alone = next(e for e in entries if sum(e["id"] == other["id"] for other in entries) > 1)
    entries.remove(alone)  # one training image less, nobody less
    annotation.write_text(json.dumps(entries))

    copy = evaluated_copy(
        whole["rde"],
        tmp_path,
        cache,
        [f"data.root={other}", "data=cuhk_pedes", "data.num_workers=0"],
    )

    assert copy.results_file.read_text() == whole["rde"].results_file.read_text()
    (kept,) = (copy.path / "evaluations").iterdir()
    assert (kept / "queries" / "test-best.npz").exists()
