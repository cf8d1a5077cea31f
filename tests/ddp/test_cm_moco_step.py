"""CM-MoCo's steps on one process and on several: losses, gradients, queues, key encoder."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from crosswalk.distributed import all_gather_rows, local_slice
from crosswalk.encoders.clip_resnet import ClipResNet
from crosswalk.encoders.heads import embed_layer, mlp_head
from crosswalk.encoders.text_recurrent import BiGru
from crosswalk.encoders.two_stream import TwoStream
from crosswalk.encoders.word_vectors import ProjectedWords
from crosswalk.losses.alignment import alignment_loss
from crosswalk.methods.cm_moco import CMMoCo
from crosswalk.types import DataSpec, PairBatch
from tests.ddp.processes import run_on_processes

NUM_PERSONS, NUM_WORDS, LONGEST = 6, 13, 8
# Ragged, and the last smaller than three processes; one person in several batches and twice in one.
BATCHES = [[0, 1, 0, 2, 3, 4, 4], [5, 0, 2, 1, 1], [3, 5]]
SETTINGS: dict[str, dict[str, Any]] = {
    "published": {},
    "mlp, short queue": {"projection": mlp_head, "queue_size": 4},
    "momentum heads": {"key_head": "momentum"},
    "no queue": {"queue_size": 0},
}


class Step(nn.Module):
    """Lets DistributedDataParallel see a training step as a forward pass."""

    def __init__(self, method: CMMoCo) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: PairBatch) -> dict[str, Tensor]:
        return self.method.training_step(batch, 0)


class Recorded(CMMoCo):
    """The method with its losses in a dictionary instead of a trainer's log."""

    def log(self, *args: object, **kwargs: object) -> None:
        pass

    def log_dict(self, terms: dict[str, Tensor], **kwargs: object) -> None:
        self.terms = terms


def share_of(person_id: list[int], seed: int) -> PairBatch:
    """Return this process's part of a batch."""
    generator = torch.Generator().manual_seed(seed)
    persons = torch.tensor(person_id)
    image = torch.randn(len(persons), 3, 32, 16, generator=generator, dtype=torch.float64)
    # the longest caption is in one process's part: the others have to pad to it
    length = 1 + torch.arange(len(persons)).add(seed).remainder(LONGEST - 1)
    tokens = torch.randint(1, NUM_WORDS, (len(persons), LONGEST), generator=generator)
    tokens[torch.arange(LONGEST) >= length[:, None]] = 0
    own = slice(*local_slice(len(persons)))
    nothing = torch.zeros_like(persons)[own]
    return PairBatch(
        *(image[own], tokens[own], length[own], persons[own]),
        *(nothing, nothing, nothing, None, None),
    )


def train(settings: dict[str, Any]) -> dict[str, Any]:
    """Return everything of three steps, and the gradients of each."""
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    torch.manual_seed(0)
    torch.rand(rank)  # all have to start from the weights of rank 0, and from the same queues
    table = torch.randn(NUM_WORDS, 5, generator=torch.Generator().manual_seed(1))
    encoder = TwoStream(
        ClipResNet((1, 1, 1, 1), width=2, output_dim=10, heads=2, image_size=(32, 16)),
        partial(
            BiGru, vectors=partial(ProjectedWords, table=lambda words: table, size=4), hidden_size=3
        ),
        image_head=embed_layer,
        text_head=embed_layer,
        embedding_size=6,
        words=["word"] * NUM_WORDS,
    )
    method = Recorded(
        encoder,
        DataSpec(14, 14, NUM_PERSONS),
        lambda module: torch.optim.SGD(module.parameters(), lr=0.0),
        alignment=partial(alignment_loss, alpha=0.6, beta=0.4, scale_pos=10.0, scale_neg=40.0),
        **{"queue_size": 9, "momentum": 0.8, **settings},
    ).double()
    step: nn.Module = Step(method)
    if torch.distributed.is_initialized():
        step = DistributedDataParallel(step, broadcast_buffers=False)
    optimizer = torch.optim.SGD(method.parameters(), lr=1e-3)
    outcome: dict[str, Any] = {}
    for number, person_id in enumerate(BATCHES):
        outputs = step(share_of(person_id, seed=number))
        optimizer.zero_grad()
        outputs["loss"].backward()
        method.remember(outputs)
        outcome[f"losses of step {number}"] = method.terms
        for name, parameter in method.named_parameters():
            if parameter.grad is not None:
                outcome[f"gradient of {name} in step {number}"] = parameter.grad.clone()
        optimizer.step()
    method.eval()
    batch = share_of(BATCHES[0], seed=7)
    embedded = method.encoder.embed_images(batch.image)
    outcome["embeddings"] = all_gather_rows(embedded.detach())
    return outcome | method.state_dict()


def train_all() -> dict[str, dict[str, Any]]:
    return {name: train(settings) for name, settings in SETTINGS.items()}


@pytest.mark.parametrize("world_size", [2, 3])
def test_several_processes_train_what_one_trains(world_size: int) -> None:
    expected = train_all()

    for name, settings in SETTINGS.items():
        kept = settings.get("queue_size", 9)
        if kept:
            stored = sorted(expected[name]["queue.person_id"].tolist())
            assert stored == sorted([person for batch in BATCHES for person in batch][-kept:])
            assert expected[name]["losses of step 1"]["train/loss_contrast"] > 0
    for outcome in run_on_processes(train_all, world_size):
        assert_close(outcome, expected, rtol=1e-9, atol=1e-10)
