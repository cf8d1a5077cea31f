"""MMCL's steps on one process and on several: weights, bank and labels, ragged batches included."""

from functools import partial
from typing import Any
from unittest.mock import PropertyMock, patch

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from crosswalk.distributed import local_slice
from crosswalk.encoders.image import ImageEncoder
from crosswalk.encoders.resnet import ResNet
from crosswalk.labels.positive_labels import cycle_consistent_rows
from crosswalk.losses.multilabel import mmcl_loss
from crosswalk.methods.mmcl import MMCL
from crosswalk.types import DataSpec, ImageBatch, SourceTargetBatch
from tests.ddp.processes import run_on_processes

NUM_SAMPLES, NUM_SOURCE_PERSONS = 23, 4
BATCHES = [list(range(9)), list(range(9, 18)), list(range(18, 23))]


class Step(nn.Module):
    """Lets DistributedDataParallel see a training step as a forward pass."""

    def __init__(self, method: MMCL) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: ImageBatch | SourceTargetBatch) -> dict[str, Tensor]:
        return self.method.training_step(batch, 0)


def images(sample_index: list[int], seed: int, num_persons: int) -> ImageBatch:
    """Return this process's share of a batch; images of a person resemble each other."""
    generator = torch.Generator().manual_seed(seed)
    people = torch.randn(num_persons, 3, 16, 8, generator=generator, dtype=torch.float64)
    index = torch.tensor(sample_index)
    noise = torch.randn(NUM_SAMPLES, 3, 16, 8, generator=generator, dtype=torch.float64)
    person_id = index % num_persons
    image = people[person_id] + 0.3 * noise[index]
    share = slice(*local_slice(len(index)))
    return ImageBatch(image[share], person_id[share], 0 * index[share], index[share], None)


def train(transfer: bool) -> dict[str, Any]:
    """Return everything of three epochs, the last two with predicted labels."""
    torch.manual_seed(0)
    spec = DataSpec(NUM_SAMPLES, NUM_SAMPLES, 5)
    if transfer:
        spec = DataSpec(NUM_SAMPLES, NUM_SAMPLES, 5, num_source_person_ids=NUM_SOURCE_PERSONS)
    method = MMCL(
        ImageEncoder(ResNet((1, 1), block="basic", stem_width=3, planes=(4, 6), last_stride=1)),
        spec,
        lambda module: torch.optim.SGD(module.parameters(), lr=0.0),
        loss=partial(mmcl_loss, delta=5.0, ratio=0.2),
        labels=partial(cycle_consistent_rows, threshold=0.6),
        mplp_start_epoch=1,
    ).double()
    method.log = method.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    step: nn.Module = Step(method)
    if torch.distributed.is_initialized():
        step = DistributedDataParallel(step, broadcast_buffers=False)
    optimizer = torch.optim.SGD(method.parameters(), lr=1e-3)
    losses, labels = [], []
    for epoch in range(3):
        for number, index in enumerate(BATCHES):
            batch: ImageBatch | SourceTargetBatch = images(index, 1, 5)
            if transfer:
                source = images(index, 2 + number, NUM_SOURCE_PERSONS)
                batch = SourceTargetBatch(source, images(index, 1, 5))
            with patch.object(MMCL, "current_epoch", PropertyMock(return_value=epoch)):
                outputs = step(batch)
                optimizer.zero_grad()
                outputs["loss"].backward()
                method.remember(outputs)
            optimizer.step()
            losses.append(outputs["loss"].detach())
            labels.append(outputs["labels"])
    return {"losses": torch.stack(losses), "labels": torch.cat(labels)} | method.state_dict()


@pytest.mark.parametrize("transfer", [False, True])
@pytest.mark.parametrize("world_size", [2, 3])
def test_several_processes_train_what_one_trains(world_size: int, transfer: bool) -> None:
    expected = train(transfer)

    assert expected["labels"].sum() > 1.5 * len(expected["labels"])
    for outcome in run_on_processes(train, world_size, transfer):
        assert_close(outcome, expected, rtol=1e-9, atol=1e-10)
