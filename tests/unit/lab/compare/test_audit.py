from __future__ import annotations

import csv
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.mixture import GaussianMixture

from crosswalk.data.pipeline.noise import noisy_caption_index
from crosswalk.data.readers.records import Record
from crosswalk.diagnostics.division import DivisionRecord, division_file, write_division
from crosswalk.lab.compare import audit
from crosswalk.lab.compare.audit import (
    FEW,
    Suspect,
    TrainingPair,
    apart_in_words,
    check_same_pairs,
    distances,
    division_of,
    quality_of,
    suspects,
    to_csv,
    training_pairs,
)
from crosswalk.run.run_folder import RunFolder


def make_data(folder: Path, *, noise: float = 0.0, unreadable: tuple[int, ...] = ()) -> Any:  # noqa: ANN401
    """Five images with 2, 1, 3, 1 and 2 captions, as a data module shows them."""
    records = []
    for number, captions in enumerate((2, 1, 3, 1, 2)):
        path = folder / f"{number}.png"
        Image.new("RGB", (8, 16), (40 * number, 0, 0)).save(path)
        texts = tuple(f"image {number}, caption {each}" for each in range(captions))
        records.append(Record(path, 10 + number, captions=texts))
    read = [record for number, record in enumerate(records) if number not in unreadable]
    captions = [caption for record in read for caption in record.captions]
    index = noisy_caption_index(len(captions), noise)
    return SimpleNamespace(
        splits=SimpleNamespace(train=tuple(records)),
        evaluation_images=lambda split: [record.image_path for record in read],
        evaluation_captions=lambda split: captions,
        caption_of_sample=index,
        spec=SimpleNamespace(num_samples=len(captions)),
        true_pairs=torch.from_numpy(index == np.arange(len(index))) if noise else None,
        noise_index=None,
    )


def record_of(probability: list[list[float]], **more: Any) -> DivisionRecord:  # noqa: ANN401
    values = np.array(probability)
    losses = np.arange(values.size, dtype=np.float32).reshape(values.shape) / 3
    prediction = values > 0.5
    votes = prediction.sum(axis=0)
    given = {"losses": losses, "clean": votes == len(values), "true_pair": None}
    return DivisionRecord(
        epoch=4,
        views=("global", "token_selection")[: len(values)],
        probability=values,
        prediction=prediction,
        votes=votes,
        **(given | more),
    )


def pairs_of(number: int) -> list[TrainingPair]:
    return [TrainingPair(Path(f"{each}.jpg"), f"caption {each}", each) for each in range(number)]


def test_pairs_come_in_the_order_of_the_annotation(tmp_path: Path) -> None:
    pairs = training_pairs(make_data(tmp_path))

    assert [(pair.image.stem, pair.caption, pair.person_id) for pair in pairs[:4]] == [
        ("0", "image 0, caption 0", 10),
        ("0", "image 0, caption 1", 10),
        ("1", "image 1, caption 0", 11),
        ("2", "image 2, caption 0", 12),
    ]
    assert len(pairs) == 9


def test_persons_are_called_what_the_data_call_them(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    data.people = {10: "anna"}

    assert [pair.person_id for pair in training_pairs(data)][:3] == ["anna", "anna", 11]


def test_exchanged_captions_stand_beside_the_image_they_were_trained_with(tmp_path: Path) -> None:
    data = make_data(tmp_path, noise=0.7)

    pairs, unchanged = training_pairs(data), training_pairs(make_data(tmp_path))

    assert not data.true_pairs.all()
    for sample, caption in enumerate(data.caption_of_sample.tolist()):
        assert pairs[sample].image == unchanged[sample].image
        assert pairs[sample].person_id == unchanged[sample].person_id
        assert pairs[sample].caption == unchanged[caption].caption


def test_images_that_were_left_out_of_training_are_left_out_here(tmp_path: Path) -> None:
    pairs = training_pairs(make_data(tmp_path, unreadable=(0, 3)))

    assert [pair.image.stem for pair in pairs] == ["1", "2", "2", "2", "4", "4"]
    assert pairs[-1].caption == "image 4, caption 1"


def test_the_lowest_mean_probability_comes_first() -> None:
    record = record_of([[0.9, 0.2, 0.1, 0.6], [0.8, 0.4, 0.1, 0.2]])

    listed = suspects(record, pairs_of(4), threshold=0.5)

    assert [each.sample_index for each in listed] == [2, 1, 3]
    assert [each.probability for each in listed] == pytest.approx([0.1, 0.3, 0.4])
    assert listed[2].probabilities == {"global": 0.6, "token_selection": 0.2}
    assert listed[2].losses == {"global": np.float32(3 / 3), "token_selection": np.float32(7 / 3)}
    assert [each.kept for each in listed] == [False, False, False]


def test_of_equal_probabilities_the_larger_scaled_loss_comes_first() -> None:
    losses = np.array([[0.0, 10.0, 5.0, 9.0], [1.0, 1.0, 1.4, 2.0]], dtype=np.float32)
    record = record_of([[0.0] * 4, [0.0] * 4], losses=losses)

    listed = suspects(record, pairs_of(4), threshold=0.5)

    # scaled and averaged: 0, 0.5, 0.45, 0.95
    assert [each.sample_index for each in listed] == [3, 1, 2, 0]


def test_losses_that_are_all_equal_leave_the_order_of_the_annotation() -> None:
    record = record_of([[0.0, 0.0, 0.0]], losses=np.ones((1, 3), np.float32))

    assert [each.sample_index for each in suspects(record, pairs_of(3), threshold=0)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("threshold", "limit", "expected"),
    [(0.5, None, [2, 1]), (0.05, None, []), (0.1, None, [2]), (1, 3, [2, 1, 3]), (0.5, 1, [2])],
)
def test_threshold_and_limit_cut_the_list(
    threshold: float, limit: int | None, expected: list[int]
) -> None:
    record = record_of([[0.9, 0.5, 0.1, 0.6]])

    listed = suspects(record, pairs_of(4), threshold=threshold, limit=limit)

    assert [each.sample_index for each in listed] == expected


@pytest.mark.parametrize(("threshold", "limit"), [(-0.1, None), (1.5, None), (0.5, 0)])
def test_values_that_make_no_sense_are_refused(threshold: float, limit: int | None) -> None:
    with pytest.raises(ValueError, match=r"--threshold|--limit"):
        suspects(record_of([[0.5]]), pairs_of(1), threshold=threshold, limit=limit)


def test_the_list_is_measured_against_the_injected_noise() -> None:
    true_pair = np.array([True, False, False, False, True])
    record = record_of([[0.1, 0.2, 0.3, 0.9, 0.8]], true_pair=true_pair)

    quality = quality_of(suspects(record, pairs_of(5), threshold=0.5), record)

    assert quality is not None
    assert (quality.found, quality.listed, quality.injected) == (2, 3, 3)
    assert "precision 66.7 %, recall 66.7 % of 3" in quality.in_words()


def test_the_table_gives_probabilities_and_losses_in_full() -> None:
    true_pair = np.array([True, False, True])
    record = record_of([[1 / 3, 1e-30, 0.9], [0.1, 0.2, 0.9]], true_pair=true_pair)
    listed = suspects(record, pairs_of(3), threshold=0.5)

    rows = list(csv.DictReader(to_csv(listed, record.views).splitlines()))

    assert [row["sample_index"] for row in rows] == ["1", "0"]
    for row in rows:
        sample = int(row["sample_index"])
        assert row["caption"] == f"caption {sample}"
        assert (row["kept"], row["true_pair"]) == ("false", str(bool(true_pair[sample])).lower())
        for number, view in enumerate(record.views):
            assert float(row[f"probability_{view}"]) == record.probability[number, sample]
            assert np.float32(row[f"loss_{view}"]) == record.losses[number, sample]


def test_captions_and_file_names_of_the_table_are_no_formulas() -> None:
    pair = TrainingPair(Path("=cmd.jpg"), '=HYPERLINK("http://x.example")', 3)
    listed = suspects(record_of([[0.1]]), [pair], threshold=0.5)

    row = next(csv.DictReader(to_csv(listed, ["global"]).splitlines()))

    assert (row["image"], row["caption"]) == ("'=cmd.jpg", f"'{pair.caption}")


@pytest.mark.parametrize(("gap", "overlap"), [(0.0, True), (6.0, False)])
def test_the_audit_says_whether_the_two_gaussians_are_apart(gap: float, overlap: bool) -> None:
    draw = np.random.default_rng(0)
    losses = np.concatenate([draw.normal(size=1000), draw.normal(size=1000) + gap])[None]
    mixture = GaussianMixture(2, random_state=0).fit(losses[0][:, None])
    right = mixture.predict_proba(losses[0][:, None])[:, mixture.means_[:, 0].argmin()]
    record = record_of(right[None].tolist(), losses=losses.astype(np.float32))

    (apart,) = distances(record).values()
    means, variances = mixture.means_[:, 0], mixture.covariances_[:, 0, 0]

    # the mixture's own numbers, but for its last step
    expected = abs(means[0] - means[1]) / np.sqrt(variances.mean())
    assert apart == pytest.approx(expected, rel=0.1)
    assert (apart < 2) == overlap
    assert ("is no evidence that a pair is wrong" in apart_in_words(record)) == overlap


def test_few_losses_lie_apart_by_chance_and_the_audit_says_so() -> None:
    draw = np.random.default_rng(0)
    shares = []
    for number in (FEW // 10, FEW):
        far = []
        for _ in range(30):
            losses = draw.normal(size=(number, 1))  # of one kind alone
            mixture = GaussianMixture(2, random_state=0).fit(losses)
            right = mixture.predict_proba(losses).T[:1]
            record = record_of(right.tolist(), losses=losses.T.astype(np.float32))
            far.append(distances(record)["global"] >= 2)
            by_chance = f"so few losses as {number} " in apart_in_words(record)
            assert by_chance == (number < FEW)
        shares.append(np.mean(far))

    assert shares[0] > 0.3
    assert shares[1] < 0.1


def test_pairs_that_are_all_called_right_are_not_apart() -> None:
    assert distances(record_of([[1.0, 1.0, 1.0]])) == {"global": 0.0}


# Which runs can be audited


def make_run(path: Path, method: dict[str, Any], record: DivisionRecord | None = None) -> RunFolder:
    path.mkdir(exist_ok=True)
    folder = RunFolder(path)
    folder.save_config({"method": method, "choices": {"method": "some"}})
    if record is not None:
        write_division(division_file(path, "last"), record)
    return folder


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        ({"margin": 0.1}, ValueError, "a run of some, which judges no training pairs"),
        ({"division": None}, ValueError, "division=off"),
        ({"division": {}, "warmup_epochs": 2}, FileNotFoundError, "method.warmup_epochs=2"),
    ],
)
def test_other_runs_are_refused_with_a_reason(
    method: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        division_of(make_run(tmp_path, method), "last")


def test_a_run_of_no_epoch_judged_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.save_config({"method": {"division": {}}, "trainer": {"max_epochs": 0}})

    with pytest.raises(ValueError, match=r"trained for no epoch \(trainer\.max_epochs=0\)"):
        division_of(folder, "last")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not the folder of a run"):
        division_of(RunFolder(tmp_path), "last")


def test_data_with_other_pairs_are_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.save_config({"data": {"noise_index": "other.npy"}})
    data = make_data(tmp_path, noise=0.7)
    true_pair = data.true_pairs.numpy()
    probability = [[0.5] * 9]

    check_same_pairs(record_of(probability, true_pair=true_pair), data, folder)

    with pytest.raises(ValueError, match="divided 8 training pairs, but its data have 9"):
        check_same_pairs(record_of([[0.5] * 8]), data, folder)
    with pytest.raises(ValueError, match=r"data\.noise_index=other\.npy"):
        check_same_pairs(record_of(probability, true_pair=~true_pair), data, folder)
    with pytest.raises(ValueError, match=r"data\.noise_index=other\.npy"):
        check_same_pairs(record_of(probability), data, folder)


# The page


def audited(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record: DivisionRecord,
    **options: Any,  # noqa: ANN401
) -> str:
    folder = make_run(tmp_path / "run", {"division": {"threshold": 0.4}}, record)
    data = make_data(tmp_path)
    data.true_pairs = None if record.true_pair is None else torch.from_numpy(record.true_pair)
    monkeypatch.setattr(audit, "evaluation_data", lambda run_folder: data)
    out = tmp_path / "lists" / "suspects.csv"

    assert audit.run_audit(folder.path, out, **options) == 0

    return out.with_suffix(".html").read_text()


def test_the_page_shows_picture_caption_and_probability(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    probability = [[0.9, 0.1, 0.9, 0.9, 0.9, 0.9, 0.3, 0.45, 0.9]]
    true_pair = np.arange(9) != 1

    page = audited(tmp_path, monkeypatch, record_of(probability, true_pair=true_pair))

    captions = re.findall(r"<p>(image \d, caption \d)</p>", page)
    assert captions == ["image 0, caption 1", "image 3, caption 0"]
    assert re.findall(r'<img class="(\w*)" alt="([^"]*)"', page) == [
        ("wrong", "0.png"),
        ("right", "3.png"),
    ]
    assert re.findall(r"right with (\S+) %", page) == ["10", "30"]
    assert f'title="{tmp_path / "0.png"}, person 10"' in page
    assert "pair 1, person 10, 0.png<" in page
    printed = capsys.readouterr().out
    assert "2 of 9 training pairs are listed: right with a probability of at most 0.4" in printed
    assert "1 of them is injected noise: precision 50.0 %, recall 100.0 % of 1." in printed
    rows = (tmp_path / "lists" / "suspects.csv").read_text().splitlines()
    assert len(rows) == 3


def test_a_long_list_is_shown_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MOST_SHOWN", 2)

    page = audited(tmp_path, monkeypatch, record_of([[0.1] * 9]))

    assert len(re.findall("<img", page)) == 2
    assert "7 more are in the table only" in page
    assert 'class=""' in page  # nobody knows: no frame


def test_a_list_without_suspects_is_written_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = audited(tmp_path, monkeypatch, record_of([[0.9] * 9]), threshold=0.2)

    assert "<img" not in page
    said = capsys.readouterr().out
    assert "0 of 9 training pairs are listed" in said
    assert "suspects.csv\n" in said

    out = tmp_path / "lists" / "suspects.csv"
    assert audit.run_audit(tmp_path / "run", out) == 0
    assert f"Table: {out}, in the place of an earlier one\n" in capsys.readouterr().out


def test_a_picture_that_is_gone_is_named() -> None:
    pair = TrainingPair(Path("gone/a.jpg"), "a coat", 3)
    suspect = Suspect(0, pair, 0.1, {"global": np.float64(0.1)}, {}, False, None)

    assert "a.jpg is gone" in audit.audit_page("run", [suspect], "One.")


def test_a_picture_that_is_none_any_more_leaves_the_rest_of_the_page(tmp_path: Path) -> None:
    pair = TrainingPair(tmp_path / "a.jpg", "a coat", 3)
    pair.image.write_bytes(b"no picture")
    suspect = Suspect(0, pair, 0.1, {"global": np.float64(0.1)}, {}, False, None)

    assert "a.jpg cannot be shown" in audit.audit_page("run", [suspect], "One.")


def test_the_table_must_be_a_csv(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", {"division": {}}, record_of([[0.5]]))

    with pytest.raises(ValueError, match=r"does not end in \.csv"):
        audit.run_audit(folder.path, tmp_path / "suspects.html")
