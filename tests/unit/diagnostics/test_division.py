from __future__ import annotations

import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture  # type: ignore[import-untyped,unused-ignore]
from torch import Tensor

from crosswalk.diagnostics.division import (
    Division,
    DivisionRecord,
    boundaries,
    division_file,
    division_quality,
    heaps,
    read_division,
    write_division,
)
from crosswalk.labels import consensus_division
from tests.unit.diagnostics.pages import cells, folder_with, section_of, titles

SETTINGS = {"max_iter": 10, "tol": 1e-2, "reg_covar": 5e-4}
METHOD = {"method": {"division": SETTINGS, "seed": 3}}


def test_the_shares_are_those_counted_by_hand() -> None:
    clean = np.array([1, 1, 1, 0, 0, 0, 0]) > 0
    true_pair = np.array([1, 1, 0, 1, 0, 0, 0]) > 0

    quality = division_quality(clean, true_pair)

    assert quality == pytest.approx(
        {
            "clean_precision": 2 / 3,
            "clean_recall": 2 / 3,
            "noisy_precision": 3 / 4,
            "noisy_recall": 3 / 4,
        }
    )


def test_shares_of_nothing_are_left_out() -> None:
    quality = division_quality(np.ones(3) > 0, np.ones(3) > 0)

    assert quality == {"clean_precision": 1.0, "clean_recall": 1.0}


# The record


class Dividing:
    """Stands for a method that divides 7 pairs from epoch 1 on."""

    def __init__(self, epoch: int) -> None:
        generator = torch.Generator().manual_seed(epoch)
        self.logged: dict[str, float] = {}
        self.latest_losses: dict[str, Tensor] | None = {
            view: torch.rand(7, generator=generator) for view in ("global", "token_selection")
        }
        self.latest_division: consensus_division.Division | None = consensus_division.divide(
            *self.latest_losses.values(), seed=epoch, **SETTINGS
        )
        self.clean = self.latest_division.clean

    def log_dict(self, values: dict[str, float]) -> None:
        self.logged |= values

    def wants_sweep(self, epoch: int) -> bool:
        return epoch >= 1


def start_epoch(
    folder: Path, epoch: int, method: Dividing, *, true_pairs: Tensor | None = None, rank: int = 0
) -> None:
    trainer: Any = SimpleNamespace(current_epoch=epoch, is_global_zero=rank == 0)
    diagnostic = Division()
    diagnostic.watch(folder, SimpleNamespace(true_pairs=true_pairs))
    diagnostic.on_train_epoch_start(trainer, method)


def test_a_record_holds_what_the_division_was_made_of(tmp_path: Path) -> None:
    method = Dividing(1)
    true_pairs = torch.tensor([True, False, True, True, False, True, True])

    start_epoch(tmp_path, 1, method, true_pairs=true_pairs)
    record = read_division(division_file(tmp_path, "last"))

    assert method.latest_losses is not None
    assert method.latest_division is not None
    assert (record.epoch, record.views) == (1, ("global", "token_selection"))
    for row, losses in enumerate(method.latest_losses.values()):
        assert record.losses[row].tolist() == losses.tolist()
    for name in ("probability", "prediction", "votes"):
        found, expected = getattr(record, name), getattr(method.latest_division, name)
        assert found.tolist() == expected.tolist()
    assert record.clean.tolist() == [kept == 1 for kept in method.latest_division.clean.tolist()]
    assert record.true_pair is not None
    assert record.true_pair.tolist() == true_pairs.tolist()


def test_the_first_file_keeps_the_first_epoch_and_the_last_file_follows(tmp_path: Path) -> None:
    for epoch in (0, 1, 2, 3):
        start_epoch(tmp_path, epoch, Dividing(epoch))

    first, last = (read_division(division_file(tmp_path, which)) for which in ("first", "last"))

    assert (first.epoch, last.epoch) == (1, 3)
    assert first.losses[0].tolist() == Dividing(1).latest_losses["global"].tolist()  # type: ignore[index]
    assert first.true_pair is None


def test_a_run_that_starts_anew_after_a_kill_writes_its_first_division_again(
    tmp_path: Path,
) -> None:
    start_epoch(tmp_path, 2, Dividing(9))

    start_epoch(tmp_path, 1, Dividing(1))

    assert read_division(division_file(tmp_path, "first")).epoch == 1


@pytest.mark.parametrize("case", ["other process", "before the first sweep", "resumed within"])
def test_nothing_is_written_where_there_is_nothing_to_write(tmp_path: Path, case: str) -> None:
    method = Dividing(1)
    if case == "resumed within":
        method.latest_losses = method.latest_division = None

    start_epoch(
        tmp_path,
        epoch=0 if case == "before the first sweep" else 1,
        method=method,
        rank=1 if case == "other process" else 0,
    )

    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("rank", [0, 1])
def test_every_process_logs_the_quality_of_every_epoch_where_the_noise_is_known(
    tmp_path: Path, rank: int
) -> None:
    method, truth = Dividing(1), torch.tensor([True, False, True, True, False, True, True])

    start_epoch(tmp_path, 0, method, true_pairs=truth, rank=rank)  # no sweep, all pairs as before

    expected = division_quality(method.clean.numpy() > 0, truth.numpy())
    assert method.logged == {f"train/{name}": value for name, value in expected.items()}


def test_no_unfinished_file_is_left(tmp_path: Path) -> None:
    start_epoch(tmp_path, 1, Dividing(1))

    names = sorted(path.name for path in (tmp_path / "diagnostics").iterdir())
    assert names == ["division-first.npz", "division-last.npz"]
    with np.load(division_file(tmp_path, "last"), allow_pickle=False) as file:
        assert "true_pair" not in file


# The section


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

    section = section_of(Division(), folder)

    heading, first, last = cells(section)
    assert heading[:6] == ["epoch", "pairs", "kept", "all views: right", "views differ",
                           "all views: wrong"]  # fmt: skip
    # of 20 kept pairs one is noise, of 20 rejected ones one is right
    assert first == ["1", "40", "20", "20", "0", "20", "95.0 %", "95.0 %", "95.0 %", "95.0 %"]
    assert last[0] == "3"
    views = ("global", "token_selection")
    assert titles(section) == [
        *(f"Losses of all training pairs: {view}, epoch {n}" for view in views for n in (1, 3)),
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

    section = section_of(Division(), folder)

    assert cells(section) == [
        ["epoch", "pairs", "kept", "all views: right", "views differ", "all views: wrong"],
        ["1", "40", "20", "20", "0", "20"],  # one epoch, one row
    ]
    assert titles(section) == [
        "Losses of all training pairs: global, epoch 1",
        "Losses of all training pairs: token_selection, epoch 1",
        "Pairs kept by epoch",
    ]
    assert "noise" not in re.sub(r"<p.*?</p>", "", section.body)


def test_a_division_that_nothing_tells_apart_is_shown_too(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, [], METHOD)
    one = np.ones((1, 7))
    record = DivisionRecord(
        0, ("global",), one.astype(np.float32), one, one > 0, one[0].astype(int), one[0] > 0, None
    )
    write_division(division_file(tmp_path, "first"), record)

    section = section_of(Division(), folder)

    assert cells(section)[1] == ["1", "7", "7", "7", "0", "0"]
    assert "could not be repeated" in section.body


def test_equal_runs_give_equal_pages(tmp_path: Path) -> None:
    bodies = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        folder = folder_with(tmp_path / name, [{"epoch": 0, "train/clean_fraction": 0.5}], METHOD)
        write_division(division_file(folder.path, "last"), division(1))
        bodies.append(section_of(Division(), folder).body)

    assert bodies[0] == bodies[1]
