"""MAR's sweep and steps on one process and on several: weights, memory, centres, threshold."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from crosswalk.distributed import gather_table, local_slice
from crosswalk.encoders.image import ImageEncoder
from crosswalk.encoders.resnet import ResNet
from crosswalk.labels.soft_multilabel import agreeing_pairs
from crosswalk.methods.mar import MAR
from crosswalk.types import DataSpec, ImageBatch, SourceTargetBatch
from tests.ddp.processes import run_on_processes

NUM_SAMPLES, NUM_SOURCE_PERSONS = 23, 6
SOURCE = [list(range(9)), list(range(9, 18)), list(range(18, 23))]
TARGET = [list(range(10)), list(range(10, 20)), [20, 3, 21, 0, 22, 9, 14]]


class EpochGiven(MAR):
    """The method without a trainer."""

    current_epoch = 0  # type: ignore[assignment]


class Step(nn.Module):
    """Lets DistributedDataParallel see a training step as a forward pass."""

    def __init__(self, method: MAR) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: SourceTargetBatch) -> Tensor:
        return self.method.training_step(batch, 0)


def images(sample_index: list[int], seed: int, num_persons: int) -> ImageBatch:
    """Return this process's share of a batch; images of a person resemble each other."""
    generator = torch.Generator().manual_seed(seed)
    people = torch.randn(num_persons, 3, 16, 8, generator=generator, dtype=torch.float64)
    noise = torch.randn(NUM_SAMPLES, 3, 16, 8, generator=generator, dtype=torch.float64)
    camera_id = torch.randint(0, 4, (NUM_SAMPLES,), generator=generator)
    index = torch.tensor(sample_index)
    person_id = index % num_persons
    image = people[person_id] + 0.3 * noise[index]
    share = slice(*local_slice(len(index)))
    columns = (image, person_id, camera_id[index], index)
    return ImageBatch(*(column[share] for column in columns), None)


def train() -> dict[str, Any]:
    """Return everything of a sweep and three epochs, the last two with mined pairs."""
    torch.manual_seed(0)
    positives = []

    def mining(agreement: Tensor, threshold: Tensor) -> Tensor:
        positives.append(agreeing_pairs(agreement, threshold))
        return positives[-1]

    method = EpochGiven(
        ImageEncoder(ResNet((1, 1), block="basic", stem_width=3, planes=(4, 6)), neck="none"),
        DataSpec(NUM_SAMPLES, NUM_SAMPLES, 5, 4, num_source_person_ids=NUM_SOURCE_PERSONS),
        lambda module: torch.optim.SGD(module.parameters(), lr=0.0),
        mining=mining,
        scale=5.0,
        reference_weight=1.0,
        consistency_weight=0.1,
        mining_ratio=0.2,
    ).double()
    method.log = method.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    with torch.no_grad():
        everything = images(list(range(NUM_SAMPLES)), 1, 5)
        method.eval()
        rows = method.sweep_step(everything)
        method.train()
    method.on_sweep_end(
        {
            name: gather_table(everything.sample_index, column, NUM_SAMPLES)
            for name, column in rows.items()
        }
    )
    step: nn.Module = Step(method)
    if torch.distributed.is_initialized():
        step = DistributedDataParallel(step, broadcast_buffers=False)
    optimizer = torch.optim.SGD(method.parameters(), lr=1e-2, momentum=0.9)
    losses = []
    for epoch in range(3):
        method.current_epoch = epoch
        for source, target in zip(SOURCE, TARGET, strict=True):
            batch = SourceTargetBatch(images(source, 2, NUM_SOURCE_PERSONS), images(target, 1, 5))
            loss = step(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    return {
        "losses": torch.stack(losses),
        "positives": torch.cat(positives),
        **method.state_dict(),
    }


@pytest.mark.parametrize("world_size", [2, 3])
def test_several_processes_train_what_one_trains(world_size: int) -> None:
    expected = train()

    assert expected["positives"].any()
    assert not expected["positives"].all()
    for outcome in run_on_processes(train, world_size):
        assert_close(outcome, expected, rtol=1e-9, atol=1e-10)
