import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from crosswalk.run.run_folder import RunFolder
from crosswalk.run.train import evaluate
from tests.end_to_end.small_runs import evaluate_again, tiny_pairs, train
from tests.end_to_end.toy_run import exit_code_of

SMALL_WORDS = (
    *("method=cm_moco", "text=gru_learned_words_tiny", "trainer=cpu", "trainer.max_epochs=1"),
    *("logger=csv", "data.batch_size=16", "data.eval_batch_size=16", "method.queue_size=32"),
    *("encoder.text.hidden_size=8", "encoder.text.vectors.size=6", "encoder.embedding_size=12"),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pairs(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    runs = tmp_path_factory.mktemp("runs")
    overrides = [*SMALL_WORDS, f"data.root={root}", f"output_dir={runs}", "name=it"]
    assert exit_code_of(train, overrides, str(root.parent / "cache")) == 0
    return RunFolder(runs / "cm_moco-synthetic_pairs-it")


@pytest.fixture
def pairs(root: Path, tmp_path: Path) -> Path:
    """Return a file with the pairs of ``root``, whose training captions have other words."""
    folder = root / "CUHK-PEDES"
    path = tmp_path / "pairs.csv"
    (tmp_path / "imgs").symlink_to(folder / "imgs")
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption", "person_id", "split"])
        for entry in json.loads((folder / "reid_raw.json").read_text()):
            captions = ["zebra zebra zebra"] if entry["split"] == "train" else entry["captions"]
            for caption in captions:
                image = f"imgs/{entry['file_path']}"
                rows.writerow([image, caption, entry["id"], entry["split"]])
    return path


def test_a_run_keeps_its_words(root: Path, trained: RunFolder) -> None:
    entries = json.loads((root / "CUHK-PEDES" / "reid_raw.json").read_text())
    counts: dict[str, int] = {}
    for entry in entries:
        for caption in entry["captions"]:
            for word in caption.lower().replace("-", "").replace(",", "").replace(".", "").split():
                counts[word] = counts.get(word, 0) + 1

    kept = json.loads(trained.vocabulary_file.read_text())

    assert {word for word in kept["words"] if word != "UNK"} == {
        word for word, number in counts.items() if number >= 3
    }


def test_a_model_reads_captions_of_other_data_with_its_own_words(
    root: Path, trained: RunFolder, pairs: Path, tmp_path: Path
) -> None:
    copy = RunFolder(shutil.copytree(trained.path, tmp_path / "copy"))

    code = exit_code_of(
        evaluate_again,
        copy.path,
        str(root.parent / "cache"),
        ["data=own_pairs", f"data.root={pairs}", "data.num_workers=0", "data.eval_batch_size=16"],
    )

    assert code == 0
    for name in ("val-best", "test-best", "test-last"):
        ours = np.load(next(copy.path.glob(f"evaluations/*/queries/{name}.npz")))
        theirs = np.load(trained.path / "queries" / f"{name}.npz")
        assert set(ours.files) == set(theirs.files)
        for column in ours.files:
            assert np.array_equal(ours[column], theirs[column]), (name, column)


def test_a_model_without_its_words_is_not_evaluated(
    root: Path, trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", str(root.parent / "cache"))
    copy = RunFolder(shutil.copytree(trained.path, tmp_path / "copy"))
    copy.vocabulary_file.unlink()

    with pytest.raises(FileNotFoundError, match=r"vocabulary\.json is missing"):
        evaluate(copy.path)
