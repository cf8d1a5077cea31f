"""What a run of RDE on noisy pairs leaves behind to look at, and its audit."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from crosswalk.cli import main
from crosswalk.data.pipeline.noise import noisy_caption_index
from crosswalk.diagnostics.division import division_file, read_division
from crosswalk.diagnostics.token_selection import read_token_selection, token_selection_file
from crosswalk.files import read_arrays
from crosswalk.lab.report.report import diagnostic_sections, diagnostics_in
from crosswalk.run.run_folder import RunFolder
from tests.end_to_end.small_runs import evaluated_copy, run_small, small_run, tiny_pairs

NOISE = 0.3


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pairs(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def noisy_run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    overrides = small_run("rde", f"data.root={root}", f"data.noise_rate={NOISE}")
    code, folder = run_small(overrides, tmp_path_factory.mktemp("runs"), root.parent / "cache")
    assert code == 0
    return folder


@pytest.fixture(autouse=True)
def cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", str(root.parent / "cache"))


def training_pairs_of(root: Path) -> tuple[list[Path], list[str]]:
    """Return image and own caption of every training pair, from the annotation itself."""
    folder = root / "CUHK-PEDES"
    entries = json.loads((folder / "reid_raw.json").read_text())
    pairs = [
        (folder / "imgs" / entry["file_path"], caption)
        for entry in entries
        if entry["split"] == "train"
        for caption in entry["captions"]
    ]
    images, captions = zip(*pairs, strict=True)
    return list(images), list(captions)


def test_the_audit_lists_the_pairs_as_they_were_trained_and_judged(
    root: Path, noisy_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "suspects.csv"

    status = main(["audit", str(noisy_run.path), "--out", str(out), "--threshold", "0.9"])

    assert status == 0
    record = read_division(division_file(noisy_run.path, "last"))
    images, captions = training_pairs_of(root)
    caption_of_sample = noisy_caption_index(len(images), NOISE)
    rows = list(csv.DictReader(out.read_text().splitlines()))
    means = record.probability.mean(axis=0)
    samples = [int(row["sample_index"]) for row in rows]
    assert sorted(samples) == np.flatnonzero(means <= 0.9).tolist()
    assert means[samples].tolist() == sorted(means[samples].tolist())
    for sample, row in zip(samples, rows, strict=True):
        assert Path(row["image"]) == images[sample]
        assert row["caption"] == captions[caption_of_sample[sample]]
        assert row["true_pair"] == str(bool(caption_of_sample[sample] == sample)).lower()
        assert row["kept"] == str(bool(record.clean[sample])).lower()
        assert float(row["probability"]) == means[sample]
        for number, view in enumerate(record.views):
            assert float(row[f"probability_{view}"]) == record.probability[number, sample]
            assert np.float32(row[f"loss_{view}"]) == record.losses[number, sample]
    noise = caption_of_sample != np.arange(len(images))
    assert 0 < noise[samples].sum() < len(samples)
    found = int(noise[samples].sum())
    words = (
        f"precision {100 * found / len(samples):.1f} %, recall {100 * found / noise.sum():.1f} %"
    )
    assert words in capsys.readouterr().out
    assert out.with_suffix(".html").read_text().count("<img") == min(200, len(samples))


def test_both_divisions_are_kept_with_the_truth(noisy_run: RunFolder) -> None:
    first, last = (
        read_division(division_file(noisy_run.path, which)) for which in ("first", "last")
    )

    assert (first.epoch, last.epoch) == (0, 1)
    expected = noisy_caption_index(122, NOISE) == np.arange(122)
    for record in (first, last):
        assert record.views == ("global", "token_selection")
        assert record.losses.shape == record.probability.shape == (2, 122)
        assert record.true_pair is not None
        assert record.true_pair.tolist() == expected.tolist()
        assert (record.votes == record.prediction.sum(axis=0)).all()


def test_the_mixtures_of_a_real_run_are_found_again(noisy_run: RunFolder) -> None:
    shown = diagnostic_sections(noisy_run, diagnostics_in(noisy_run))
    sections = {section.anchor: section for section in shown}

    assert list(sections) == ["division", "token-selection"]
    assert "fit: right" in sections["division"].body
    assert "could not be repeated" not in sections["division"].body


def test_selected_tokens_are_kept_of_every_checkpoint_that_is_tested(
    noisy_run: RunFolder, root: Path, tmp_path: Path
) -> None:
    records = [
        read_token_selection(token_selection_file(noisy_run.path, t)) for t in ("best", "last")
    ]
    again = evaluated_copy(noisy_run, tmp_path, root.parent / "cache")

    for record in records:
        assert record.grid == (12, 4)
        assert len(record.captions) == 9
        for caption in record.captions:
            assert 1 <= len(caption.selected) <= 13  # 0.3 of 46 words
            assert max(caption.selected) < len(caption.pieces)
            assert set(caption.found) <= record.images.keys()
        for image in record.images.values():
            assert len(set(image.selected)) == 14  # 0.3 of 48 patches
            assert max(image.selected) < 48
            assert image.picture.size == (32, 96)
    drawn = [
        [caption.pieces for caption in record.captions if caption.choice == "drawn"]
        for record in records
    ]
    assert drawn[0] == drawn[1]
    for tag in ("best", "last"):
        expected = read_arrays(token_selection_file(noisy_run.path, tag))
        found = read_arrays(token_selection_file(again.path, tag))
        assert {name: array.tolist() for name, array in found.items()} == {
            name: array.tolist() for name, array in expected.items()
        }


def test_data_that_have_changed_are_refused(
    noisy_run: RunFolder, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = Path(shutil.copytree(root, tmp_path / "data"))
    annotation = changed / "CUHK-PEDES" / "reid_raw.json"
    entries = json.loads(annotation.read_text())
    entries[0]["captions"][0] = "Somebody else."
    annotation.write_text(json.dumps(entries))
    run = RunFolder(Path(shutil.copytree(noisy_run.path, tmp_path / "run")))
    config = run.config()
    config["data"]["root"] = str(changed)
    run.config_file.write_text(yaml.safe_dump(config))

    status = main(["audit", str(run.path), "--out", str(tmp_path / "suspects.csv")])

    assert status == 2
    assert "have changed since it ran" in capsys.readouterr().err
    assert not (tmp_path / "suspects.csv").exists()
