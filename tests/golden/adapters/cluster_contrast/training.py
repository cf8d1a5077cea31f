"""Whole training: the schedule, a few steps of the trainer, and the main program."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from crosswalk.encoders.image import ImageEncoder
from crosswalk.importers.cluster_contrast import import_cluster_contrast, read_cluster_contrast
from crosswalk.labels.clustering import dbscan_clusters
from crosswalk.methods.cluster_contrast import ClusterContrast
from crosswalk.metrics.ranking import mean_average_precision, rank_embeddings
from crosswalk.optim import OptimBuilder, StepDecay, WarmupSchedule, adam
from tests.golden.adapters.cluster_contrast.given import (
    batch_of,
    empty_encoder,
    encoder_of,
    method_of,
    official_batches,
    official_name,
    seed_generators,
)
from tests.golden.adapters.cluster_contrast.memory import update_of
from tests.golden.adapters.mmcl.metrics import cmc
from tests.golden.harness import Case, Tolerance, golden

TRAJECTORY: Tolerance = {"rtol": 0.0, "atol": 1e-7}
SIDES = ("query", "gallery")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def schedule_of(case: Case, num_epochs: int) -> WarmupSchedule:
    every = case.item("step_size")
    decay = StepDecay(range(every, num_epochs + 1, every), gamma=case.setting("gamma", 0.1))
    return WarmupSchedule(num_epochs=num_epochs, decay=decay)


def optimizer_of(method: ClusterContrast, case: Case) -> torch.optim.Optimizer:
    build = OptimBuilder(
        adam, lr=case.item("lr"), weight_decay=case.setting("weight_decay", 5e-4), rules=[]
    )
    return build(method)["optimizer"]  # type: ignore[index,return-value,call-overload]


def normalised(case: Case, name: str) -> Tensor:
    """Return float64 images of ``[n, H, W, 3]`` recorded ones."""
    image = case.tensor(name).double().permute(0, 3, 1, 2) / 255
    mean, std = (
        torch.tensor(case.setting(key, value), dtype=torch.float64)[:, None, None]
        for key, value in (("mean", MEAN), ("std", STD))
    )
    return (image - mean) / std


def evaluated(method: ClusterContrast, image: Tensor) -> Tensor:
    """Return features in evaluation mode."""
    method.eval()
    with torch.no_grad():
        features = method.embed(batch_of(image, torch.arange(len(image))))["global"]
    method.train()
    return features


def step(
    method: ClusterContrast, optimizer: torch.optim.Optimizer, image: Tensor, index: Tensor
) -> dict[str, Tensor]:
    """Run forward, backward, the write of the memory and the optimizer."""
    outputs = method.training_step(batch_of(image[index], index), 0)
    optimizer.zero_grad()
    outputs["loss"].backward()
    method.remember(outputs)
    optimizer.step()
    return outputs


def compare_final(case: Case, encoder: ImageEncoder) -> None:
    for name, row in encoder.state_dict().items():
        case.close(f"out_final.{official_name(name)}", row, **TRAJECTORY)


@golden("cluster_contrast", "lr_schedule")
def lr_schedule(case: Case) -> None:
    num_epochs = case.item("num_epochs")
    schedule = schedule_of(case, num_epochs)
    case.close(
        "out_lr", [schedule(case.item("lr"), epoch) for epoch in range(num_epochs)], rtol=1e-9
    )
    # sizes are not recorded, and none is needed: names tell blocks and pooling
    names = case["out_parameter"].tolist()
    state = {
        name: torch.zeros(2, 2, 1, 1) if "conv" in name else torch.zeros(2)
        for name in [*names, "base.0.weight"]
    }
    method = method_of(empty_encoder(state), num_samples=1)
    optimizer = optimizer_of(method, case)
    names_of = {parameter: name for name, parameter in method.encoder.named_parameters()}
    trained = [
        (official_name(names_of[parameter]), group)
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    case.equal("out_parameter", [name for name, _ in trained])
    case.equal("out_num_groups", len(trained))  # one each there, and all alike
    case.close("out_weight_decay", [group["weight_decay"] for _, group in trained])
    case.close("out_betas", optimizer.defaults["betas"])
    case.close("out_eps", optimizer.defaults["eps"], rtol=1e-12, atol=0)


@golden("cluster_contrast", "tiny_train")
def tiny_train(case: Case) -> None:
    image, labels = normalised(case, "image"), case.tensor("labels")
    num_steps = case.item("num_steps")
    batch_size = len(case["index_0"])
    encoder = encoder_of(case, group_size=-(-batch_size // case.item("bn_chunks")))
    method = method_of(
        encoder, len(image), update=update_of(case), temperature=case.item("temp")
    ).double()
    optimizer = optimizer_of(method, case)

    features = evaluated(method, image)
    case.close("out_features_before", features, **TRAJECTORY)
    method.memory.fill(features, labels)
    case.close("out_memory_start", method.memory.centers, **TRAJECTORY)
    for number in range(num_steps):
        index = case.tensor(f"index_{number}")
        case.check(
            torch.equal(labels[index], case.tensor(f"target_{number}")), "targets are the labels"
        )
        outputs = step(method, optimizer, image, index)
        case.close(f"out_loss_{number}", outputs["loss"], **TRAJECTORY)
        case.close(f"out_embedding_{number}", outputs["embedding"], **TRAJECTORY)
        case.close(f"out_memory_{number}", method.memory.centers, **TRAJECTORY)
    case.close("out_features_after", evaluated(method, image), **TRAJECTORY)
    compare_final(case, encoder)


@golden("cluster_contrast", "mini_run")
def mini_run(case: Case) -> None:
    image, num_epochs = normalised(case, "image"), case.item("num_epochs")
    encoder = encoder_of(case)
    method = method_of(
        encoder,
        len(image),
        clustering=partial(
            dbscan_clusters,
            k1=case.item("k1"),
            k2=case.item("k2"),
            eps=case.item("eps"),
            min_samples=case.setting("min_samples", 4),
        ),
        update=update_of(case),
        temperature=case.setting("temp", 0.05),
    ).double()
    optimizer = optimizer_of(method, case)
    schedule = schedule_of(case, num_epochs)
    num_evaluations = len(case["out_map"])
    every = next(n for n in range(1, num_epochs + 1) if -(-num_epochs // n) == num_evaluations)
    compare_checkpoint(case)

    seed = case.item("seed")
    seed_generators(python=seed, numpy=seed, torch_=seed)
    rankings = []
    for epoch in range(num_epochs):
        for group in optimizer.param_groups:
            group["lr"] = schedule(case.item("lr"), epoch)
        case.close(f"out_lr_{epoch}", group["lr"], rtol=1e-9)
        torch.empty((), dtype=torch.int64).random_()  # of the loader of the clustering
        features = evaluated(method, image)
        method.on_sweep_end({"features": features})
        labels = method.plan_labels()
        assert labels is not None
        kept = (labels >= 0).nonzero().flatten()
        case.close(f"out_features_{epoch}", features, **TRAJECTORY)
        case.equal(f"out_labels_{epoch}", labels)
        case.equal(f"out_kept_{epoch}", kept)
        case.close(f"out_memory_start_{epoch}", method.memory.centers, **TRAJECTORY)
        losses, batches = [], official_batches(labels.numpy(), case["camera"], case)
        for batch in batches:
            losses.append(step(method, optimizer, image, torch.tensor(batch))["loss"].detach())
        case.equal(f"out_batches_original_{epoch}", batches)
        case.equal(f"out_batches_{epoch}", np.searchsorted(kept.numpy(), batches))
        case.equal(f"out_target_{epoch}", labels[torch.tensor(batches)])
        case.close(f"out_loss_{epoch}", torch.stack(losses), **TRAJECTORY)
        case.close(f"out_memory_end_{epoch}", method.memory.centers, **TRAJECTORY)
        if (epoch + 1) % every == 0 or epoch + 1 == num_epochs:
            torch.empty((), dtype=torch.int64).random_()  # of the loader of the evaluation
            sides = [evaluated(method, normalised(case, f"{s}_image")) for s in SIDES]
            rankings.append(
                rank_embeddings(
                    *sides,
                    **{
                        f"{side}_{ours}": case.tensor(f"{side}_{theirs}")
                        for side in SIDES
                        for ours, theirs in (("person_id", "id"), ("camera_id", "camera"))
                    },
                )
            )
    maps = [mean_average_precision(ranking) for ranking in rankings]
    best = rankings[int(np.argmax(maps))]
    case.close("out_map", maps)
    case.close("out_best_map", max(maps))
    case.close("out_best_cmc", cmc(best, len(case["out_best_cmc"])))
    compare_final(case, encoder)


def compare_checkpoint(case: Case) -> None:
    """Compare the file in the official layout that is recorded with the first of these runs."""
    path = case.path.with_name(f"{case.name.replace('mini_run', 'tiny_checkpoint')}.pth.tar")
    keys = case["out_checkpoint_keys"].tolist()
    case.check(keys == ["state_dict", "epoch", "best_mAP"], "a checkpoint has these keys")
    case.documented("out_checkpoint_keys", "compared with the names that the importer reads")
    case.documented("out_checkpoint_first", "names with `module.`, which reading takes off")
    first = [name.removeprefix("module.") for name in case["out_checkpoint_first"].tolist()]
    state = [name.removeprefix("state.") for name in case if name.startswith("state.")]
    case.check(first == state[: len(first)], "the first names are those of the model")
    if path.is_file():
        read = import_cluster_contrast(read_cluster_contrast(path))
        own = encoder_of(case).float().state_dict()
        same = read.keys() == own.keys() and all(torch.equal(read[n], own[n]) for n in own)
        case.check(same, "the checkpoint holds the weights of the run's start")
