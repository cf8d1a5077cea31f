"""Training steps: with given embeddings, and with a small network."""

from functools import partial
from unittest.mock import PropertyMock, patch

import numpy as np
import torch
from torch import Tensor, nn

from crosswalk.encoders.image import ImageEncoder
from crosswalk.encoders.resnet import ResNet
from crosswalk.labels.positive_labels import cycle_consistent_rows
from crosswalk.losses.multilabel import mmcl_loss
from crosswalk.methods.mmcl import MMCL
from crosswalk.optim import GroupRule, OptimBuilder, StepDecay, WarmupSchedule, sgd
from crosswalk.types import DataSpec, ImageBatch, ImageFeatures
from tests.golden.harness import GRADIENT, LOSS, Case, Tolerance, golden

TRAJECTORY: Tolerance = {"rtol": 0.0, "atol": 1e-7}
SCHEDULE = {"mplp_start_epoch": 6, "momentum_growth": 0.5, "momentum_epochs": 60}


class GivenFeatures(nn.Module):
    """An encoder whose images are their own features."""

    def __init__(self, embedding_size: int) -> None:
        super().__init__()
        self.embedding_size = embedding_size

    def forward(self, image: Tensor) -> ImageFeatures:
        return ImageFeatures(image, image)


def mmcl(num_samples: int, embedding_size: int, case: Case) -> MMCL:
    """Return the method with the hyper-parameters of a case, where it has some."""
    settings = {name: case.setting(name, 0.5) for name in ("t", "delta", "r")}
    method = MMCL(
        GivenFeatures(embedding_size),
        DataSpec(num_samples=num_samples, num_images=num_samples, num_person_ids=1),
        lambda module: torch.optim.SGD(module.parameters(), lr=0.0),
        loss=partial(mmcl_loss, delta=settings["delta"], ratio=settings["r"]),
        labels=partial(cycle_consistent_rows, threshold=settings["t"]),
        **{name: case.setting(name, value) for name, value in SCHEDULE.items()},
    ).double()
    method.log = lambda *args, **kwargs: None  # type: ignore[method-assign]  # no trainer here
    method.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return method


def batch_of(image: Tensor, index: Tensor) -> ImageBatch:
    return ImageBatch(image, torch.zeros_like(index), torch.zeros_like(index), index, None)


def step_in_epoch(method: MMCL, batch: ImageBatch, epoch: int) -> dict[str, Tensor]:
    """Run forward, backward and the write of the bank."""
    with patch.object(MMCL, "current_epoch", new_callable=PropertyMock, return_value=epoch):
        outputs = method.training_step(batch, 0)
        outputs["loss"].backward()
        method.remember(outputs)
    return outputs


@golden("mmcl", "memory_mplp_mmcl_chain")
def memory_mplp_mmcl_chain(case: Case) -> None:
    method = mmcl(*case["mem0"].shape, case)
    method.bank.rows.copy_(case.tensor("mem0"))
    epochs = case["epoch_of_step"].tolist()
    case.check(len(epochs) == case.item("num_steps"), "each step has its epoch")

    losses = []
    for step, epoch in enumerate(epochs):
        image = case.tensor(f"x_{step}", requires_grad=True)
        # the recorded gradients end at the embeddings, before their normalisation
        with patch("torch.nn.functional.normalize", lambda embedding: embedding):
            outputs = step_in_epoch(method, batch_of(image, case.tensor(f"idx_{step}")), epoch)
        losses.append(outputs["loss"].detach())
        case.close(f"out_grad_x_{step}", image.grad, **GRADIENT)
        if f"out_multilabel_{step}" in case:
            case.equal(f"out_multilabel_{step}", outputs["labels"])
        if step + 1 == len(epochs) or epochs[step + 1] != epoch:
            case.close(f"out_mem_after_epoch_{epoch}", method.bank.rows, **LOSS)
    case.close("out_loss", torch.stack(losses), **LOSS)


def official_state(case: Case, prefix: str) -> dict[str, Tensor]:
    """Return the arrays of a prefix under our names of parameters and buffers."""
    names = {"base.": "backbone.", "bn.": "neck."}
    state = {}
    for name in case:
        if name.startswith(prefix):
            rest = name.removeprefix(prefix)
            head = next(head for head in names if rest.startswith(head))
            state[names[head] + rest.removeprefix(head)] = case.tensor(name)
    return state


def network_of(state: dict[str, Tensor]) -> ImageEncoder:
    """Return an encoder of the sizes of its weights."""
    blocks = [
        name.removesuffix(".conv1.weight") for name in state if name.endswith(".conv1.weight")
    ]
    stages = [[name for name in blocks if f"layer{stage}." in name] for stage in range(1, 5)]
    backbone = ResNet(
        [len(stage) for stage in stages],
        block="bottleneck" if f"{stages[0][0]}.conv3.weight" in state else "basic",
        stem_width=len(state["backbone.conv1.weight"]),
        planes=[len(state[f"{stage[0]}.conv1.weight"]) for stage in stages],
        last_stride=1,
    )
    encoder = ImageEncoder(backbone, neck="batch_norm").double()
    encoder.load_state_dict(state)
    return encoder


@golden("mmcl", "trainer_trajectory")
def trainer_trajectory(case: Case) -> None:
    images = case.tensor("images_int8").double() * case.item("image_scale")
    encoder = network_of(official_state(case, "init."))
    method = mmcl(len(images), encoder.embedding_size, case)
    method.encoder = encoder
    epochs = case["epochs"].tolist()
    every, last = case.setting("step_size", 40), max(epochs)
    schedule = WarmupSchedule(
        num_epochs=1 + last,
        decay=StepDecay(range(every, last + 1, every), gamma=case.setting("gamma", 0.1)),
    )
    build = OptimBuilder(
        partial(
            sgd, momentum=case.setting("momentum", 0.9), nesterov=case.setting("nesterov", True)
        ),
        lr=case.item("lr"),
        weight_decay=case.setting("weight_decay", 5e-4),
        rules=[
            GroupRule(
                contains=["encoder.backbone"], lr_factor=case.setting("backbone_lr_factor", 0.1)
            )
        ],
    )
    optimizer = build(method)["optimizer"]
    base_lr = [group["lr"] for group in optimizer.param_groups]

    losses, labels = [], []
    for number, epoch in enumerate(epochs):
        for group, lr in zip(optimizer.param_groups, base_lr, strict=True):
            group["lr"] = schedule(lr, epoch)
        for index in case.tensor("order")[number].split(case.item("batch_size")):
            optimizer.zero_grad()
            outputs = step_in_epoch(method, batch_of(images[index], index), epoch)
            optimizer.step()
            losses.append(outputs["loss"].detach())
            if epoch >= method.mplp_start_epoch:
                labels.append(outputs["labels"])
        case.close(f"out_mem_after_epoch_{epoch}", method.bank.rows, **TRAJECTORY)
    case.close("out_loss", torch.stack(losses), **TRAJECTORY)
    multilabel = torch.cat(labels).numpy()
    case.equal("out_multilabel", np.packbits(multilabel, axis=1))
    case.equal("out_num_positives", multilabel.sum(axis=1))
    final = encoder.state_dict()
    expected = official_state(case, "out_final.")
    for name in expected:
        official = name.replace("backbone.", "base.", 1).replace("neck.", "bn.", 1)
        case.close(f"out_final.{official}", final[name], **TRAJECTORY)
    method.eval()
    everyone = torch.arange(len(images))
    with torch.no_grad():
        pooled = method.embed(batch_of(images, everyone))["global"]
    case.close("out_pool5_final", pooled, **TRAJECTORY)
