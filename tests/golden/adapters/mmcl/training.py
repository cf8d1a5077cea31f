"""Training steps: with given embeddings, and with a small network."""

from functools import partial
from unittest.mock import PropertyMock, patch

import torch
from torch import Tensor, nn

from crosswalk.labels.positive_labels import cycle_consistent_rows
from crosswalk.losses.multilabel import mmcl_loss
from crosswalk.methods.mmcl import MMCL
from crosswalk.types import DataSpec, ImageBatch, ImageFeatures
from tests.golden.harness import GRADIENT, LOSS, Case, golden


class GivenFeatures(nn.Module):
    """An encoder whose images are their own features."""

    def __init__(self, embedding_size: int) -> None:
        super().__init__()
        self.embedding_size = embedding_size

    def forward(self, image: Tensor) -> ImageFeatures:
        return ImageFeatures(image, image)


def mmcl(num_samples: int, embedding_size: int, case: Case | None = None) -> MMCL:
    """Return the method with its published constants and the hyper-parameters of a case."""
    settings = {name: case.item(name) if case else 0.5 for name in ("t", "delta", "r")}
    method = MMCL(
        GivenFeatures(embedding_size),
        DataSpec(num_samples=num_samples, num_images=num_samples, num_person_ids=1),
        lambda module: torch.optim.SGD(module.parameters(), lr=0.0),
        loss=partial(mmcl_loss, delta=settings["delta"], ratio=settings["r"]),
        labels=partial(cycle_consistent_rows, threshold=settings["t"]),
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
