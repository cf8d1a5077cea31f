import csv
import json
from pathlib import Path

import pytest
import torch

from crosswalk.run.run_folder import RunFolder
from tests.end_to_end.small_runs import tiny_pairs, train
from tests.end_to_end.toy_run import exit_code_of

SMALL = (
    *("method=cmmt", "data=own_pairs", "trainer=cpu", "trainer.max_epochs=2", "logger=csv"),
    *("encoder=resnet_tiny_normed", "text=lstm_learned_words_tiny", "data.image_size=[48,16]"),
    *("data.batch_size=16", "data.eval_batch_size=16", "data.num_workers=0"),
    *("encoder.image.pretrained=null", "method.clustering.k1=4", "method.clustering.k2=2"),
    *("data.tokenizer.min_count=1", "encoder.text.vectors.start=null"),
)


def write_pairs(root: Path, folder: Path, *, labelled: bool) -> Path:
    """Write the pairs of ``root``, without the people of the training images if so wanted."""
    source = root / "CUHK-PEDES"
    folder.mkdir()
    (folder / "imgs").symlink_to(source / "imgs")
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption", "person_id", "split"])
        for entry in json.loads((source / "reid_raw.json").read_text()):
            known = labelled or entry["split"] != "train"
            for caption in entry["captions"]:
                person_id = entry["id"] if known else ""
                rows.writerow([f"imgs/{entry['file_path']}", caption, person_id, entry["split"]])
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, RunFolder]:
    """Return a run on labelled pairs and one on the same pairs without people."""
    folder = tmp_path_factory.mktemp("data")
    root = tiny_pairs(folder)
    output = tmp_path_factory.mktemp("runs")
    found = {}
    for labelled in (True, False):
        name = "known" if labelled else "unknown"
        pairs = write_pairs(root, folder / name, labelled=labelled)
        overrides = [*SMALL, f"data.root={pairs}", f"output_dir={output}", f"name={name}"]
        assert exit_code_of(train, overrides, str(folder / "cache")) == 0
        found[labelled] = RunFolder(output / f"cmmt-own_pairs-{name}")
    return found


def test_people_who_are_not_known_change_no_weight(runs: dict[bool, RunFolder]) -> None:
    known, unknown = (
        torch.load(runs[labelled].last_checkpoint, map_location="cpu", weights_only=False)
        for labelled in (True, False)
    )

    # NaN: a threshold that the default clustering does not use
    exactly = {"rtol": 0, "atol": 0, "equal_nan": True}
    torch.testing.assert_close(unknown["state_dict"], known["state_dict"], **exactly)


def test_clusters_are_scored_only_where_somebody_knows_the_people(
    runs: dict[bool, RunFolder],
) -> None:
    scores = {"ari", "nmi", "purity"}
    logged = {
        labelled: {
            name: value
            for row in map(json.loads, run.metrics_file.read_text().splitlines())
            for name, value in row.items()
        }
        for labelled, run in runs.items()
    }

    scored = {name for name in logged[True] if name.rsplit("_", 1)[-1] in scores}
    assert scored
    assert logged[False].keys() == logged[True].keys() - scored
    assert logged[False]["train/image_clusters"] == logged[True]["train/image_clusters"]


def test_the_record_says_whether_the_people_are_known(runs: dict[bool, RunFolder]) -> None:
    known, unknown = (runs[labelled].record()["data"] for labelled in (True, False))

    assert (known["labelled"], unknown["labelled"]) == (True, False)
    assert unknown["counts"]["train"] == {**known["counts"]["train"], "person_ids": 0}
    assert unknown["counts"]["test"] == known["counts"]["test"]
