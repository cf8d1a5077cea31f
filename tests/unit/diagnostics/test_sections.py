from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.mixture import GaussianMixture  # type: ignore[import-untyped,unused-ignore]

from crosswalk.diagnostics.division_record import DivisionRecord, division_file, write_division
from crosswalk.diagnostics.figures import Line, line_of
from crosswalk.diagnostics.label_record import label_file
from crosswalk.diagnostics.mixture import boundaries, heaps
from crosswalk.diagnostics.sections import diagnostic_sections
from crosswalk.diagnostics.token_selection import dimmed
from crosswalk.diagnostics.token_selection_record import (
    SelectedCaption,
    SelectedImage,
    TokenSelectionRecord,
    token_selection_file,
    write_token_selection,
)
from crosswalk.files import write_arrays
from crosswalk.pages import Section
from crosswalk.run.run_folder import RunFolder

SETTINGS = {"max_iter": 10, "tol": 1e-2, "reg_covar": 5e-4}
METHOD = {"method": {"division": SETTINGS, "seed": 3}}


def folder_with(
    path: Path, history: list[dict[str, Any]], config: dict[str, Any] | None = None
) -> RunFolder:
    folder = RunFolder(path)
    folder.save_config(config or {"method": {}})
    folder.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in history))
    return folder


def only(sections: list[Section]) -> Section:
    (section,) = sections
    return section


def cells(section: Section) -> list[list[str]]:
    """Return the rows of the section's table, headings ahead."""
    rows = re.findall(r"<tr>(.*?)</tr>", section.body)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


def titles(section: Section) -> list[str]:
    return re.findall(r'aria-label="([^"]*)"', section.body)


def test_a_run_without_diagnostics_has_no_sections(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, [{"step": 1, "epoch": 0, "train/loss": 2.0}])

    assert diagnostic_sections(folder) == []


def test_the_last_value_of_each_epoch_counts() -> None:
    history = [
        {"epoch": 0, "a": 1.0},
        {"epoch": 0, "a": 2.0},
        {"epoch": 1, "b": 5.0},
        {"epoch": 2, "a": "inf"},
        {"epoch": None, "a": 9.0},
    ]

    assert line_of(history, "a") == Line((1, 3), (2.0, math.inf))
    assert line_of(history, "c") == Line((), ())


# The division


def division(epoch: int, num_pairs: int = 40, *, known: bool = True) -> DivisionRecord:
    """Half of the pairs have small losses, half large ones; of each heap one pair is noise."""
    generator = np.random.default_rng(epoch)
    half = num_pairs // 2
    heap = np.repeat([0, 1], half)
    losses = (generator.normal(0, 0.1, (2, num_pairs)) + 1 + 2 * heap).astype(np.float32)
    probability = np.stack([posterior_of(row, seed=3 + epoch) for row in losses])
    prediction = probability > 0.5
    votes = prediction.sum(axis=0)
    true_pair = heap == 0
    true_pair[[0, half]] = ~true_pair[[0, half]]
    return DivisionRecord(
        epoch=epoch,
        views=("global", "token_selection"),
        losses=losses,
        probability=probability,
        prediction=prediction,
        votes=votes,
        clean=votes == 2,
        true_pair=true_pair if known else None,
    )


def fit(losses: np.ndarray, seed: int) -> tuple[GaussianMixture, np.ndarray]:
    scaled = ((losses - losses.min()) / np.ptp(losses)).astype(np.float32)
    column = scaled.astype(np.float64)[:, None]
    return GaussianMixture(2, random_state=seed, **SETTINGS).fit(column), column


def posterior_of(losses: np.ndarray, seed: int) -> np.ndarray:
    mixture, column = fit(losses, seed)
    posterior: np.ndarray = mixture.predict_proba(column)[:, np.argmin(mixture.means_)]
    return posterior


def test_the_heaps_are_those_of_the_runs_fit_in_units_of_the_loss() -> None:
    record = division(4)

    found = heaps(record, 1, division=SETTINGS, seed=3)

    assert found is not None
    mixture, _ = fit(record.losses[1], seed=7)
    low, extent = float(record.losses[1].min()), float(np.ptp(record.losses[1]))
    order = np.argsort(mixture.means_[:, 0])
    for heap, number in zip(found, order, strict=True):
        assert heap.weight == pytest.approx(mixture.weights_[number], abs=1e-6)
        assert heap.mean == pytest.approx(low + extent * mixture.means_[number, 0], abs=1e-5)
        deviation = extent * math.sqrt(mixture.covariances_[number, 0, 0])
        assert heap.deviation == pytest.approx(deviation, abs=1e-5)
    assert found[0].mean == pytest.approx(1, abs=0.1)
    assert found[1].mean == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("case", ["other division", "other probabilities", "equal losses"])
def test_a_fit_that_is_not_the_runs_is_not_drawn(case: str) -> None:
    record = division(0)
    settings = {} if case == "other division" else SETTINGS
    if case == "other probabilities":
        record = record._replace(probability=1 - record.probability)
    if case == "equal losses":
        record = record._replace(losses=np.ones_like(record.losses))

    assert heaps(record, 0, division=settings, seed=3) is None


def test_boundaries_lie_midway_where_the_judgement_changes() -> None:
    losses = np.array([5.0, 1.0, 3.0, 9.0, 2.0])

    assert boundaries(losses, np.array([True, False, True, False, False])) == [2.5, 7.0]
    assert boundaries(losses, np.ones(5, dtype=bool)) == []


def test_the_division_is_shown_at_the_first_and_the_last_epoch(tmp_path: Path) -> None:
    history = [
        {"epoch": epoch, "train/clean_fraction": 0.5, "train/clean_precision": 0.9}
        for epoch in range(3)
    ]
    folder = folder_with(tmp_path, history, METHOD)
    for which, epoch in (("first", 0), ("last", 2)):
        write_division(division_file(tmp_path, which), division(epoch))

    section = only(diagnostic_sections(folder))

    heading, first, last = cells(section)
    assert heading[:6] == ["epoch", "pairs", "kept", "all views: right", "views differ",
                           "all views: wrong"]  # fmt: skip
    # of 20 kept pairs one is noise, of 20 rejected ones one is right
    assert first == ["1", "40", "20", "20", "0", "20", "95.0 %", "95.0 %", "95.0 %", "95.0 %"]
    assert last[0] == "3"
    assert titles(section) == [
        "Losses of all training pairs by view",
        "Kept and rejected pairs by truth",
        "Pairs kept by epoch",
        "Precision and recall of the division by epoch",
    ]
    for text in ("global, epoch 1", "token_selection, epoch 3", "noise", "fit: right", "of 40"):
        assert text in section.body
    assert "could not be repeated" not in section.body


def test_without_known_noise_nothing_is_said_of_truth(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, [{"epoch": 0, "train/clean_fraction": 0.5}], METHOD)
    for which in ("first", "last"):
        write_division(division_file(tmp_path, which), division(0, known=False))

    section = only(diagnostic_sections(folder))

    assert cells(section) == [
        ["epoch", "pairs", "kept", "all views: right", "views differ", "all views: wrong"],
        ["1", "40", "20", "20", "0", "20"],  # one epoch, one row
    ]
    assert titles(section) == ["Losses of all training pairs by view", "Pairs kept by epoch"]
    assert "noise" not in re.sub(r"<p.*?</p>", "", section.body)


def test_a_division_that_nothing_tells_apart_is_shown_too(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, [], METHOD)
    one = np.ones((1, 7))
    record = DivisionRecord(
        0, ("global",), one.astype(np.float32), one, one > 0, one[0].astype(int), one[0] > 0, None
    )
    write_division(division_file(tmp_path, "first"), record)

    section = only(diagnostic_sections(folder))

    assert cells(section)[1] == ["1", "7", "7", "7", "0", "0"]
    assert "could not be repeated" in section.body


# Clusters


def test_clusters_are_shown_before_and_after_refinement(tmp_path: Path) -> None:
    measures = {"purity": 0.5, "ari": 0.25, "nmi": 0.75, "clusters": 12.0, "outliers": 0.125}
    names = ("image", "image_refined", "text", "text_refined")
    line = {
        f"train/{name}_{measure}": value + (number if measure == "clusters" else 0)
        for number, name in enumerate(names)
        for measure, value in measures.items()
    }
    folder = folder_with(tmp_path, [{"epoch": 0, **line}])

    section = only(diagnostic_sections(folder))

    heading, *rows = cells(section)
    assert heading == ["last epoch", "Purity", "ARI", "NMI", "Clusters", "Outliers"]
    assert sorted(rows) == [
        ["image, after refinement", "0.5", "0.25", "0.75", "13", "0.125"],
        ["image, before refinement", "0.5", "0.25", "0.75", "12", "0.125"],
        ["text, after refinement", "0.5", "0.25", "0.75", "15", "0.125"],
        ["text, before refinement", "0.5", "0.25", "0.75", "14", "0.125"],
    ]
    assert [title.removesuffix(" by epoch") for title in titles(section)] == heading[1:]


def test_clusters_of_people_nobody_knows_are_counted_only(tmp_path: Path) -> None:
    line = {"train/image_clusters": 4.0, "train/image_outliers": 0.5}
    folder = folder_with(tmp_path, [{"epoch": 2, **line}])

    section = only(diagnostic_sections(folder))

    assert cells(section)[1] == ["image, before refinement", "-", "-", "-", "4", "0.5"]
    assert titles(section) == ["Clusters by epoch", "Outliers by epoch"]


# Labels, agreement, keys


def test_labels_per_image_come_with_their_distribution(tmp_path: Path) -> None:
    history = [{"epoch": 0, "train/labels_per_sample": 2.0, "train/label_precision": 0.5}]
    folder = folder_with(tmp_path, history)
    numbers = np.array([1, 1, 2, 60, 3])
    arrays = {"epoch": np.array(6), "sample_index": np.arange(5), "num_labels": numbers}
    write_arrays(label_file(tmp_path), arrays)

    section = only(diagnostic_sections(folder))

    assert titles(section) == [
        *("Labels per image by epoch", "Right labels by epoch", "Labels per image in epoch 7"),
    ]
    assert (
        "5 images, 2 labels in the middle, 60 at most; 2 have none but their own. The last bar "
        "holds all with 40 or more."
    ) in section.body


def test_agreement_is_shown_with_its_pairs(tmp_path: Path) -> None:
    line = {
        "train/agreement_threshold": 0.5,
        "train/positive_pairs": 3.0,
        "train/true_positive_rate": 0.25,
    }
    folder = folder_with(tmp_path, [{"epoch": 0, **line}])

    assert titles(only(diagnostic_sections(folder))) == [
        *("Agreement threshold by epoch", "Positive pairs by epoch", "True positive rate by epoch"),
    ]


def test_similarities_to_keys_share_a_panel(tmp_path: Path) -> None:
    line = {"train/positive_similarity": 0.75, "train/negative_similarity": 0.25}
    folder = folder_with(tmp_path, [{"epoch": 0, **line}])

    section = only(diagnostic_sections(folder))

    assert titles(section) == ["Similarity to keys by epoch"]
    assert "partner&#39;s key" in section.body or "partner's key" in section.body


def test_equal_runs_give_equal_pages(tmp_path: Path) -> None:
    bodies = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        folder = folder_with(tmp_path / name, [{"epoch": 0, "train/clean_fraction": 0.5}], METHOD)
        write_division(division_file(folder.path, "last"), division(1))
        bodies.append(only(diagnostic_sections(folder)).body)

    assert bodies[0] == bodies[1]


# Selected tokens


@pytest.mark.parametrize("size", [(6, 9), (7, 10), (64, 128)])
def test_patches_that_were_not_selected_are_dark(size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, (200, 100, 40))

    found = np.asarray(dimmed(SelectedImage(picture, (0, 5)), (3, 2)))

    for y in range(size[1]):
        for x in range(size[0]):
            patch = (y * 3 // size[1]) * 2 + x * 2 // size[0]
            expected = (200, 100, 40) if patch in (0, 5) else (50, 25, 10)
            assert tuple(found[y, x]) == expected


def test_captions_are_marked_and_images_framed(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, [])
    captions = (
        SelectedCaption(
            3, "best", ("a ", "<b> ", "red ", "hat "), (3, 2), 0.5, (5, 8), (False, True)
        ),
    )
    pictures = {
        index: SelectedImage(Image.new("RGB", (8, 16), (index, 200, 0)), (0,)) for index in (5, 8)
    }
    record = TokenSelectionRecord((2, 1), captions, pictures)
    for tag in ("last", "best"):
        write_token_selection(token_selection_file(tmp_path, tag), record)

    section = only(diagnostic_sections(folder))

    assert "a &lt;b&gt; <mark>red hat</mark>" in section.body
    assert "<b>best: query 3</b>, AP 50.0 %, 2 of\n4 pieces selected" in section.body
    assert "the best epoch finds" in section.body
    frames = re.findall(r'<img class="(\w+)" alt="([^"]*)" width="(\d+)"', section.body)
    assert [frame for frame, _, _ in frames] == ["wrong", "wrong", "right", "right"]
    assert frames[1][1] == "selected patches of image 5"
    assert frames[0][2] == "96"  # 12 times as large
