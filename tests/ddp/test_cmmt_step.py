"""CMMT's epochs on one process and on several: losses, gradients, labels, memories."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from crosswalk.distributed import gather_table, local_slice
from crosswalk.encoders.heads import normed, normed_projection
from crosswalk.encoders.resnet import ResNet
from crosswalk.encoders.text_recurrent import BiLstm
from crosswalk.encoders.two_stream import TwoStream
from crosswalk.encoders.word_vectors import LearnedWords
from crosswalk.labels.clustering import dbscan_clusters
from crosswalk.labels.mutual_refinement import refine_mutually
from crosswalk.losses.hard_samples import hard_sample_loss
from crosswalk.memory.cluster_memory import ClusterMemory
from crosswalk.memory.hybrid_memory import HybridMemory
from crosswalk.methods.cmmt import CMMT
from crosswalk.run.callbacks.sweep import evaluating
from crosswalk.types import DataSpec, PairBatch
from tests.ddp.processes import run_on_processes

NUM_IMAGES, NUM_SAMPLES, NUM_PERSONS, NUM_WORDS, LONGEST = 17, 23, 4, 13, 8
# Ragged, one smaller than three processes. Samples 0 to 5 are captions of the images of samples
# 17 to 22, so both captions of an image meet in a batch, in several processes.
BATCHES = [[0, 17, 1, 18, 6, 7, 8, 9, 17], [2, 10, 19, 11, 12, 13, 3, 20, 14], [15, 5]]
BATCHES += [[21, 4, 22, 16]]
# Every image once in a batch: of an image and its like, rounding decides which one is the last
# candidate of a hard sample.
DISTINCT = [[0, 1, 2, 3, 6, 7, 8, 9, 10], [22, 11, 12, 13, 4, 20, 14], [15, 16], [21, 5, 18]]


class Step(nn.Module):
    """Lets DistributedDataParallel see a training step as a forward pass."""

    def __init__(self, method: CMMT) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: PairBatch) -> dict[str, Tensor]:
        return self.method.training_step(batch, 0)


class Recorded(CMMT):
    """The method with its losses in a dictionary instead of a trainer's log."""

    def log(self, *args: object, **kwargs: object) -> None:
        pass

    def log_dict(self, terms: dict[str, Tensor], **kwargs: object) -> None:
        self.terms = terms


def share_of(sample_index: list[int]) -> PairBatch:
    """Return this process's part of a batch; images and captions of a person are alike."""
    generator = torch.Generator().manual_seed(3)
    image_of = torch.arange(NUM_SAMPLES) % NUM_IMAGES
    person_of = torch.arange(NUM_IMAGES) % NUM_PERSONS
    people = torch.randn(NUM_PERSONS, 3, 16, 8, generator=generator, dtype=torch.float64)
    noise = torch.randn(NUM_IMAGES, 3, 16, 8, generator=generator, dtype=torch.float64)
    images = people[person_of] + 0.4 * noise
    sayings = torch.randint(1, NUM_WORDS, (NUM_PERSONS, LONGEST), generator=generator)
    tokens = sayings[person_of[image_of]]
    strange = torch.rand(tokens.shape, generator=generator) < 0.2
    tokens[strange] = torch.randint(1, NUM_WORDS, (int(strange.sum()),), generator=generator)
    length = 5 + torch.arange(NUM_SAMPLES) % (LONGEST - 4)
    tokens[torch.arange(LONGEST) >= length[:, None]] = 0
    index = torch.tensor(sample_index)[slice(*local_slice(len(sample_index)))]
    image_index = image_of[index]
    return PairBatch(
        image=images[image_index],
        tokens=tokens[index],
        length=length[index],
        person_id=person_of[image_index],
        camera_id=torch.zeros_like(index),
        sample_index=index,
        image_index=image_index,
        phrases=tokens[index, :4],
        key=None,
    )


@torch.no_grad()
def sweep(method: CMMT) -> None:
    """Do what `EpochSweep` does."""
    batch = share_of(list(range(NUM_SAMPLES)))
    with evaluating(method):
        rows = method.sweep_step(batch)
    method.on_sweep_end(
        {name: gather_table(batch.sample_index, row, NUM_SAMPLES) for name, row in rows.items()}
    )


def train(settings: dict[str, Any], batches: list[list[int]]) -> dict[str, Any]:
    """Return everything of two epochs, and the gradients of every step."""
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    torch.manual_seed(0)
    torch.rand(rank)  # all have to start from the weights of rank 0
    encoder = TwoStream(
        ResNet((1, 1), block="basic", stem_width=3, planes=(4, 6), last_stride=2),
        partial(BiLstm, vectors=partial(LearnedWords, size=5), hidden_size=4, output_size=6),
        image_head=normed_projection,
        text_head=normed,
        embedding_size=6,
        words=["word"] * NUM_WORDS,
    )
    method = Recorded(
        encoder,
        DataSpec(NUM_SAMPLES, NUM_IMAGES, NUM_PERSONS),
        lambda module: torch.optim.SGD(module.parameters(), lr=0.0),
        **{
            "clustering": partial(dbscan_clusters, k1=4, k2=2, eps=0.5, min_samples=3),
            "memory": HybridMemory,
            "refinement": refine_mutually,
            **settings,
        },
    ).double()
    step: nn.Module = Step(method)
    if torch.distributed.is_initialized():
        step = DistributedDataParallel(step, broadcast_buffers=False)
    optimizer = torch.optim.SGD(method.parameters(), lr=1e-3)
    outcome: dict[str, Any] = {}
    for epoch in range(2):
        if method.wants_sweep(epoch):
            sweep(method)
        method.on_train_epoch_start()
        for name, labels in method.pseudo_labels().items():
            outcome[f"{name} labels of epoch {epoch}"] = labels.clone()
        for number, index in enumerate(batches):
            outputs = step(share_of(index))
            optimizer.zero_grad()
            outputs["loss"].backward()
            method.remember(outputs)
            of = f"step {number} of epoch {epoch}"
            outcome[f"losses of {of}"] = method.terms
            for name, parameter in method.named_parameters():
                assert parameter.grad is not None
                outcome[f"gradient of {name} in {of}"] = parameter.grad.clone()
            optimizer.step()
    return outcome | method.state_dict()


CAPTIONS = {"text_slot": "caption", "directions": "both"}
CLUSTERS = {"memory": ClusterMemory, "recluster_from": "encoder"}
BASELINE = {"clustering": None, "relation": "pairs", "cross_weight": 0.0, "intra_weight": 0.0}
CASES: dict[str, tuple[dict[str, Any], list[list[int]]]] = {
    "published": ({}, BATCHES),
    "few candidates": ({"hard_samples": partial(hard_sample_loss, num_nearest=3)}, DISTINCT),
    "captions, both directions": (CAPTIONS, BATCHES),
    "cluster memory, all embedded again": (CLUSTERS, BATCHES),
    "pairs alone": (BASELINE, BATCHES),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("world_size", [2, 3])
def test_several_processes_train_what_one_trains(
    world_size: int, case: tuple[dict[str, Any], list[list[int]]]
) -> None:
    expected = train(*case)

    if "clustering" not in case[0]:
        for name in ("image", "text"):
            labels = expected[f"{name} labels of epoch 0"]
            assert labels.max() >= 1
            assert labels.min() == -1
            assert not torch.equal(labels, expected[f"{name}_refined labels of epoch 0"])
            assert expected["losses of step 0 of epoch 0"][f"train/loss_cluster_{name}"] > 0
    for outcome in run_on_processes(train, world_size, *case):
        assert_close(outcome, expected, rtol=1e-9, atol=1e-10, equal_nan=True)
