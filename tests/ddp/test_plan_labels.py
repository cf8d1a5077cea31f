"""Batches by pseudo identity: an epoch's labels decide them, on any number of processes."""

from collections.abc import Callable
from functools import cache as once
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crosswalk.config.build import build
from crosswalk.config.check import check
from crosswalk.config.compose import compose
from crosswalk.data.pipeline.plans import IdentityBatches
from crosswalk.distributed import all_gather_rows
from crosswalk.methods.base import Method, OptimFactory
from crosswalk.methods.cmmt import CMMT
from crosswalk.run.callbacks.run_record import RunRecord
from crosswalk.run.run_folder import RunFolder
from crosswalk.run.train import make_trainer
from crosswalk.types import DataSpec, ImageBatch, Needs, PairBatch, TextBatch
from tests.ddp.processes import run_on_processes
from tests.ddp.small_fits import assert_equal_to_one_process, composed, fit, fit_in_parts
from tests.end_to_end.small_runs import small_run
from tests.end_to_end.toy_run import assert_same

EPOCHS, PEOPLE, SAMPLES_EACH = 2, 4, 2
Outcomes = Callable[[str, int, int], list[dict[str, Any]]]
PLAN = "crosswalk.data.pipeline.plans.identity_plan"


class Labelling(Method[ImageBatch | PairBatch]):
    """Groups the samples by brightness in every epoch, and takes down what it is trained on."""

    needs = Needs(batches=(ImageBatch, PairBatch))
    labels: Tensor
    labels_of_epoch: Tensor
    seen: Tensor

    def __init__(self, encoder: nn.Module, data: DataSpec, optim: OptimFactory) -> None:
        super().__init__(optim)
        self.net = nn.Linear(3, 4)
        steps = data.num_samples // (PEOPLE * SAMPLES_EACH)
        self.register_buffer("labels", torch.full((data.num_samples,), -1))
        self.register_buffer("labels_of_epoch", self.labels.repeat(EPOCHS, 1))
        self.register_buffer("seen", torch.full((EPOCHS, steps, PEOPLE * SAMPLES_EACH), -1))

    def embed(self, batch: ImageBatch | PairBatch | TextBatch) -> dict[str, Tensor]:
        if isinstance(batch, TextBatch):
            colours = batch.tokens[:, :3].to(self.net.weight.dtype)
        else:
            colours = batch.image.mean(dim=(2, 3))
        return {"global": nn.functional.normalize(self.net(colours))}

    def wants_sweep(self, epoch: int) -> bool:
        return True

    def sweep_step(self, batch: ImageBatch | PairBatch) -> dict[str, Tensor]:
        return {"brightness": batch.image.mean(dim=(1, 2, 3)) * self.net.weight.sum()}

    def on_sweep_end(self, table: dict[str, Tensor]) -> None:
        rank = table["brightness"].argsort(stable=True).argsort(stable=True)
        self.labels.copy_((rank + self.current_epoch) % 7 - 1)  # a seventh are outliers
        self.labels_of_epoch[self.current_epoch] = self.labels

    def plan_labels(self) -> Tensor:
        return self.labels

    def pseudo_labels(self) -> dict[str, Tensor]:
        return {"sample": self.labels}

    def training_step(self, batch: ImageBatch | PairBatch, batch_idx: int) -> Tensor:
        self.seen[self.current_epoch, batch_idx] = all_gather_rows(batch.sample_index)
        rows = all_gather_rows(self.embed(batch)["global"])
        return self.log_total("train", {"toy": (rows - 0.3).square().mean()})


def toy_run(kind: str, folder: Path, *more: str) -> tuple[dict[str, Any], Path]:
    """Return the configuration and the cache folder of a run of `Labelling`."""
    overrides = [
        f"data.plan._target_={PLAN}",
        f"+data.plan.samples_per_person={SAMPLES_EACH}",
        "checkpoint_every_n_steps=2",
        *more,
        f"data.batch_size={PEOPLE * SAMPLES_EACH}",
    ]
    method = {"images": "mmcl", "pairs": "cmmt"}[kind]
    config = composed(small_run(method, "protocol=official", *overrides))
    config["optim"]["rules"] = []  # for parts of an encoder
    config["diagnostics"] = [{"_target_": "crosswalk.diagnostics.clusters.Clusters"}]
    config["method"] = {"_target_": "tests.ddp.test_plan_labels.Labelling"}
    return config, folder / "cache"


def trained(outcome: dict[str, Any]) -> dict[str, Any]:
    """Return what `fit` returned without the evaluation, where the toy has ties."""
    metrics = {name: v for name, v in outcome["metrics"].items() if name.startswith("train/")}
    return {**outcome, "metrics": metrics, "lines": []}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Return what uninterrupted runs come to, each made when it is first asked for."""
    folder = tmp_path_factory.mktemp("data")

    @once
    def outcomes_of(kind: str, processes: int, workers: int) -> list[dict[str, Any]]:
        run = toy_run(kind, folder, f"data.num_workers={workers}")
        return run_on_processes(fit, processes, *run, tmp_path_factory.mktemp("run"), processes)

    return outcomes_of


@pytest.fixture
def alone(kind: str, outcomes: Outcomes) -> dict[str, Any]:
    """Return what one process without workers comes to."""
    return outcomes(kind, 1, 0)[0]


every_kind = pytest.mark.parametrize("kind", ["images", "pairs"])


@every_kind
def test_every_epoch_takes_the_batches_of_its_own_labels(alone: dict[str, Any]) -> None:
    labels, seen = (alone["state"][name].numpy() for name in ("labels_of_epoch", "seen"))
    plan = IdentityBatches(np.full(labels.shape[1], -1), seen.shape[2], 1, SAMPLES_EACH)

    for epoch in range(EPOCHS):
        plan.set_labels(labels[epoch])
        plan.set_epoch(epoch)
        assert np.array_equal(seen[epoch], list(plan))
    assert not np.array_equal(*labels)


@every_kind
def test_their_clusters_are_compared_with_the_truth(alone: dict[str, Any]) -> None:
    assert alone["metrics"]["train/sample_clusters"] == 6
    assert 0 < alone["metrics"]["train/sample_purity"] <= 1


several = pytest.mark.parametrize(
    ("kind", "processes", "workers"), [("images", 1, 2), ("images", 2, 0), ("pairs", 2, 2)]
)
"""Every kind with workers and without, on one process and on two; workers on one and on two."""


@several
def test_neither_processes_nor_workers_change_the_batches(
    kind: str, processes: int, workers: int, alone: dict[str, Any], outcomes: Outcomes
) -> None:
    for outcome in outcomes(kind, processes, workers):
        assert torch.equal(outcome["state"]["seen"], alone["state"]["seen"])
        assert_equal_to_one_process(trained(alone), trained(outcome))


@several
def test_a_run_goes_on_within_an_epoch_with_the_labels_that_it_began_with(
    kind: str, processes: int, workers: int, outcomes: Outcomes, tmp_path: Path
) -> None:
    whole = outcomes(kind, processes, workers)
    stop = whole[0]["state"]["seen"].shape[1] + 3
    run = toy_run(kind, tmp_path, f"data.num_workers={workers}")

    parts = run_on_processes(fit_in_parts, processes, *run, tmp_path / "parts", processes, stop)

    for whole_one, parts_one in zip(whole, parts, strict=True):
        assert parts_one["metrics"] == whole_one["metrics"]
        assert_same(parts_one["state"], whole_one["state"])


class Batches(L.Callback):
    """Takes down which samples CMMT is trained on, and the labels that they have in that epoch."""

    def __init__(self) -> None:
        self.labels: list[list[int]] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: CMMT, batch: PairBatch, batch_idx: int
    ) -> None:
        labels = pl_module.pseudo_labels()["image_refined"]
        self.labels.append(labels[batch.image_index].tolist())


def test_cmmt_takes_batches_of_its_own_clusters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", str(tmp_path / "cache"))
    more = (f"data.plan._target_={PLAN}", "data.batch_size=16")
    run = build(check(compose(small_run("cmmt", *more))))
    seen = Batches()
    run_folder = RunFolder(tmp_path / "run")
    trainer = make_trainer(run, run_folder, RunRecord(run_folder, seeds={}))
    trainer.callbacks.insert(0, seen)

    trainer.fit(run.method, datamodule=run.data)

    assert len(seen.labels) == EPOCHS * (122 // 16)
    for batch in seen.labels:
        clusters, times = np.unique(batch, return_counts=True)
        assert clusters[0] >= 0
        assert times.tolist() == [4] * 4
