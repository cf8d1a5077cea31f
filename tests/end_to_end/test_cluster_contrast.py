"""Cluster Contrast through the frame against a plain loop, and its plan with another method."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.cluster import DBSCAN
from torch import Tensor
from torch.testing import assert_close

from crosswalk.config.build import build
from crosswalk.config.check import check
from crosswalk.config.compose import compose
from crosswalk.methods.cmmt import CMMT
from crosswalk.run.callbacks.run_record import RunRecord
from crosswalk.run.run_folder import RunFolder
from crosswalk.run.train import make_trainer
from crosswalk.types import PairBatch
from tests.ddp.small_fits import composed, fit
from tests.end_to_end.small_runs import small_run

EPOCHS, BATCH, EACH, STEPS, GROUP = 2, 12, 4, 4, 4
K1, K2, EPS, MIN_SAMPLES = 6, 2, 0.7, 3
LR, DECAY, ADAM_EPS, MOMENTUM, TEMPERATURE = 3e-4, 5e-4, 1e-3, 0.1, 0.05
OVERRIDES = (
    *(f"data.batch_size={BATCH}", f"data.plan.images_per_cluster={EACH}"),
    *(f"data.plan.num_batches={STEPS}", f"bn_group_size={GROUP}", f"optim.lr={LR}"),
    # a smaller one makes steps of gradients that are rounding errors
    *("optim.schedule.decay.milestones=[1]", f"+optim.optimizer.eps={ADAM_EPS}"),
    *(f"method.clustering.k1={K1}", f"method.clustering.k2={K2}", f"method.clustering.eps={EPS}"),
    f"method.clustering.min_samples={MIN_SAMPLES}",
    # what is drawn for an image has tests of its own
    *("data.transform.flip_probability=0", "data.transform.padding=0"),
    "data.transform.erase_probability=0",
)
WAYS = {
    "image by image": (),
    "hardest, any camera": (
        "method.update._target_=crosswalk.memory.cluster_centers.move_by_hardest",
        "data.plan.by_camera=false",
    ),
}
State = dict[str, Tensor]


def normalised(x: Tensor, state: State, name: str, *, training: bool) -> Tensor:
    """Return a batch normalisation in groups; the first one is followed."""
    own = {part: state[f"{name}.{part}"] for part in ("weight", "bias")}
    running = [state[f"{name}.running_{part}"] for part in ("mean", "var")]
    if not training:
        return F.batch_norm(x, *running, **own)
    groups = []
    for number, part in enumerate(x.split(GROUP)):
        followed = [None, None] if number else running
        groups.append(F.batch_norm(part, *followed, **own, training=True, momentum=0.1))
    state[f"{name}.num_batches_tracked"] += 1
    return torch.cat(groups)


def network(state: State, image: Tensor, *, training: bool) -> Tensor:
    """Return unit vectors: a ResNet of basic blocks, last stride 1, powers' mean, neck."""

    def norm(x: Tensor, name: str) -> Tensor:
        return normalised(x, state, name, training=training)

    def convolved(x: Tensor, name: str, stride: int, padding: int) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], stride=stride, padding=padding)

    x = norm(convolved(image, "encoder.backbone.conv1", 2, 3), "encoder.backbone.bn1").relu()
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, stride in enumerate((1, 2, 2, 1), start=1):
        block = f"encoder.backbone.layer{stage}.0"
        out = norm(convolved(x, f"{block}.conv1", stride, 1), f"{block}.bn1").relu()
        out = norm(convolved(out, f"{block}.conv2", 1, 1), f"{block}.bn2")
        if f"{block}.downsample.0.weight" in state:
            shortcut = convolved(x, f"{block}.downsample.0", stride, 0)
            x = norm(shortcut, f"{block}.downsample.1")
        x = (out + x).relu()
    p = state["encoder.pooling.p"]
    pooled = x.clamp(min=1e-6).pow(p).mean(dim=(2, 3)).pow(1 / p)
    features = norm(pooled, "encoder.neck")
    return features / features.norm(dim=1, keepdim=True)


def clusters(features: Tensor) -> NDArray[np.int64]:
    """Return the labels: k-reciprocal sets, Jaccard distances, DBSCAN, all of them dense."""
    rows = features.float().numpy()
    squared = ((rows[:, None] - rows) ** 2).sum(axis=2)
    count = len(rows)
    nearest = squared.argsort(axis=1, kind="stable")[:, :K1]

    def reciprocal(i: int, k: int) -> list[int]:
        return [j for j in nearest[i][: k + 1] if i in nearest[j][: k + 1]]

    weight = np.zeros((count, count))
    for i in range(count):
        whole = reciprocal(i, K1)
        members = set(whole)
        for j in whole:
            half = reciprocal(j, round(K1 / 2))
            if len(set(half) & set(whole)) > 2 / 3 * len(half):
                members |= set(half)
        chosen = sorted(members)
        powers = np.exp(-squared[i, chosen])
        weight[i, chosen] = powers / powers.sum()
    weight = weight[nearest[:, :K2]].mean(axis=1)
    shared = np.minimum(weight[:, None], weight).sum(axis=2)
    distance = np.clip(1 - shared / (2 - shared), 0, None).astype(np.float32)
    found = DBSCAN(eps=EPS, min_samples=MIN_SAMPLES, metric="precomputed").fit_predict(distance)
    return np.asarray(found, np.int64)


def one_pass(
    labels: NDArray[np.int64], camera: NDArray[np.int64], random: np.random.Generator, cameras: bool
) -> list[int]:
    """Return the images of one pass over the clusters, numbered by their first images."""
    names = list(dict.fromkeys(labels[labels >= 0].tolist()))
    found = []
    for number in random.permutation(len(names)):
        members = np.flatnonzero(labels == names[number])
        anchor = members[random.integers(len(members))]
        found.append(int(anchor))
        pool = members[camera[members] != camera[anchor]] if cameras else members[:0]
        pool = pool if len(pool) else members[members != anchor]
        if len(pool):
            found += random.choice(pool, EACH - 1, replace=len(pool) < EACH).tolist()
    return found


def batches(
    labels: NDArray[np.int64], camera: NDArray[np.int64], seed: int, epoch: int, cameras: bool
) -> Iterator[list[int]]:
    """Yield the batches of an epoch; a short pass is filled up by further ones."""
    left, number, pending = STEPS, 0, list[int]()
    while left > 0:
        random = np.random.default_rng([seed, epoch, 0, number])
        pending += one_pass(labels, camera, random, cameras)
        number += 1
        whole = len(pending) // BATCH
        for place in range(min(whole, left)):
            yield pending[place * BATCH : (place + 1) * BATCH]
        left -= whole
        pending = [] if whole else pending


def move(memory: Tensor, f: Tensor, target: list[int], *, hardest: bool) -> None:
    """Write the memory: image by image, or by the least similar image of each cluster."""
    order = list(range(len(target)))
    if hardest:
        order = []
        for cluster in dict.fromkeys(target):
            own = [b for b, other in enumerate(target) if other == cluster]
            order.append(min(own, key=lambda b: float(f[b] @ memory[target[b]])))
    for b in order:
        moved = MOMENTUM * memory[target[b]] + (1 - MOMENTUM) * f[b]
        memory[target[b]] = moved / moved.norm()


def plain_run(
    state: State, image: Tensor, camera: NDArray[np.int64], seed: int, *, hardest: bool
) -> tuple[State, Tensor, NDArray[np.int64], list[float]]:
    """Return weights, memory and labels at the end, and the mean loss of every epoch."""
    fixed = ("running_mean", "running_var", "num_batches_tracked", "encoder.neck.bias")
    trained = [row.requires_grad_() for name, row in state.items() if not name.endswith(fixed)]
    optimizer = torch.optim.Adam(trained, lr=LR, weight_decay=DECAY, eps=ADAM_EPS)
    means = []
    for epoch in range(EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = LR * 0.1**epoch
        with torch.no_grad():
            features = network(state, image, training=False)
            labels = clusters(features)
            memory = torch.stack(
                [features[labels == k].mean(dim=0) for k in range(labels.max() + 1)]
            )
            memory /= memory.norm(dim=1, keepdim=True)
        losses = []
        for batch in batches(labels, camera, seed, epoch, not hardest):
            f = network(state, image[batch], training=True)
            target = labels[batch].tolist()
            logits = f @ memory.clone().T / TEMPERATURE
            loss = F.cross_entropy(logits, torch.tensor(target))
            optimizer.zero_grad()
            loss.backward()
            with torch.no_grad():
                move(memory, f, target, hardest=hardest)
            optimizer.step()
            losses.append(loss.item())
        means.append(sum(losses) / len(losses))
    return {name: row.detach() for name, row in state.items()}, memory, labels, means


def start_of(config: dict[str, Any], cache: Path) -> tuple[State, Tensor, NDArray[np.int64]]:
    """Return the weights that `fit` starts from, and the training images and their cameras."""
    L.seed_everything(1, verbose=False)
    run = build(check(config))
    state = {name: row.clone() for name, row in run.method.double().state_dict().items()}
    run.data.prepare_training()
    everyone = np.arange(run.data.spec.num_samples)
    batch = run.data.transform_batch(run.data.train_dataloader().batch_of(everyone))
    weights = {name: row for name, row in state.items() if name.startswith("encoder.")}
    return weights, batch.image.double(), batch.camera_id.numpy()


@pytest.mark.parametrize("way", WAYS)
def test_two_epochs_are_those_of_a_plain_loop(
    way: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", str(cache))
    config = composed(small_run("cluster_contrast", *OVERRIDES, *WAYS[way]))
    weights, image, camera = start_of(config, cache)

    outcome = fit(config, cache, tmp_path, 1)

    hardest = way.startswith("hardest")
    state, memory, labels, means = plain_run(
        weights, image, camera, config["seed"], hardest=hardest
    )
    assert labels.max() >= 2
    assert labels.min() == -1
    found = outcome["state"]
    assert found["memory.labels"].tolist() == labels.tolist()
    assert_close(found["memory.rows"][: len(memory)], memory, rtol=0, atol=1e-10)
    assert found["memory.num_clusters"] == len(memory)
    for name, expected in state.items():
        assert_close(found[name], expected, rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
    logged = [line["train/loss"] for line in outcome["lines"] if "train/loss" in line]
    assert logged == pytest.approx(means, rel=1e-6)


class Batches(L.Callback):
    """Takes down the labels and the images of every batch."""

    def __init__(self) -> None:
        self.labels: list[list[int]] = []
        self.images: list[list[int]] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: CMMT, batch: PairBatch, batch_idx: int
    ) -> None:
        labels = pl_module.plan_labels()
        self.labels.append(labels[batch.sample_index].tolist())
        self.images.append(batch.sample_index.tolist())


def test_cmmt_takes_the_plan_by_configuration_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", str(tmp_path / "cache"))
    plan = (
        "data.plan._target_=crosswalk.data.pipeline.cluster_plans.cluster_plan",
        *("+data.plan.images_per_cluster=4", "+data.plan.num_batches=5"),
        *("+data.plan.short_pass=fill", "data.batch_size=16"),
    )
    run = build(check(compose(small_run("cmmt", *plan))))
    seen = Batches()
    run_folder = RunFolder(tmp_path / "run")
    trainer = make_trainer(run, run_folder, RunRecord(run_folder, seeds={}))
    trainer.callbacks.insert(0, seen)

    trainer.fit(run.method, datamodule=run.data)

    assert len(seen.labels) == 2 * 5
    for labels, images in zip(seen.labels, seen.images, strict=True):
        assert min(labels) >= 0
        assert len(labels) == len(images) == 16
        for start in range(0, 16, 4):  # captions of an outlier are nowhere, and none is alone here
            assert len(set(labels[start : start + 4])) == 1
    assert seen.images[:5] != seen.images[5:]
