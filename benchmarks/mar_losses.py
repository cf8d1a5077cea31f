"""Times MAR's losses of a batch, forward and backward, and its initial threshold.

``python benchmarks/mar_losses.py`` takes 184 source and 184 target images against 4,101 agents, and
prints every loss written as loops over images, pairs and cameras, as the published code does it,
and as the package does it. Both get embeddings and their cosines with the agents; the products
behind these are not timed. It fails if values or gradients differ in float64, where they are
compared: in float32 single entries of a gradient are sums that cancel to less than their rounding
errors, however they are added up. The threshold of a whole data set is timed on a part of
Market-1501 and extrapolated. ``--quick`` takes a small batch, to see that everything runs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from rows import report
from torch import Tensor

from crosswalk.labels.soft_multilabel import (
    agreeing_pairs,
    initial_threshold,
    kth_largest,
    log_soft_multilabel,
    mine_pairs,
    num_mined_pairs,
    num_pairs,
    pair_agreements,
)
from crosswalk.losses.reference_agents import agent_loss, joint_embedding_loss
from crosswalk.losses.soft_multilabel import (
    camera_statistics,
    consistency_loss,
    discriminative_loss,
)

SCALE, MARGIN, RATIO = 30.0, 1.0, 0.005
AIM = 3.0
"""Least ratio of all losses together."""
MARKET = 12_936
"""Training images of Market-1501."""


class Batch(NamedTuple):
    """Unit vectors, their cosines with the agents, and labels; as both versions get them."""

    source: Tensor
    target: Tensor
    agents: Tensor
    source_similarity: Tensor
    target_similarity: Tensor
    person_id: Tensor
    camera_id: Tensor


def looped_agent(batch: Batch) -> Tensor:
    """Return the agent loss; the published code needs no loop here."""
    return F.cross_entropy(SCALE * batch.source_similarity, batch.person_id)


def our_agent(batch: Batch) -> Tensor:
    return agent_loss(batch.source_similarity, batch.person_id, scale=SCALE).mean()


def looped_joint(batch: Batch) -> Tensor:
    """Return the joint embedding loss as the mean of a list, built image by image."""
    agents = batch.agents.detach()
    own = [*batch.person_id.tolist(), *[None] * len(batch.target)]
    near = torch.cat([batch.source_similarity, batch.target_similarity]).detach() > 1 - MARGIN / 2
    terms = []
    for image, person, hard in zip([*batch.source, *batch.target], own, near, strict=True):
        if person is not None:
            terms.append((image - agents[person]).square().sum())
            hard[person] = False
        if hard.any():
            terms.append((MARGIN - (image - agents[hard]).square().sum(1)).clamp_min(0).mean())
    return torch.stack(terms).mean()


def our_joint(batch: Batch) -> Tensor:
    terms = joint_embedding_loss(
        batch.source,
        batch.target,
        batch.agents.detach(),
        batch.person_id,
        source_similarity=batch.source_similarity,
        target_similarity=batch.target_similarity,
        margin=MARGIN,
        source_negatives=True,
    )
    return terms.loss.sum() / terms.counted.sum()


def log_multilabels(batch: Batch) -> Tensor:
    return log_soft_multilabel(batch.target_similarity, scale=SCALE)


def looped_consistency(batch: Batch) -> Tensor:
    """Return the consistency loss, camera by camera, to centres that are zero."""
    rows = log_multilabels(batch)
    terms = []
    for camera in batch.camera_id.unique():
        own = rows[batch.camera_id == camera]
        if len(own) > 1:
            terms += [own.mean(dim=0).square().sum(), own.std(dim=0).square().sum()]
    return torch.stack(terms).mean()


def our_consistency(batch: Batch) -> Tensor:
    rows = log_multilabels(batch)
    zero = torch.zeros_like(rows[0])
    cameras = camera_statistics(rows, batch.camera_id, min_size=2)
    return consistency_loss(cameras, zero, zero, use_std=True).mean()


def looped_discriminative(batch: Batch) -> Tensor:
    """Return the discriminative loss, agreement and distance pair by pair."""
    multilabel = log_multilabels(batch).detach().exp()
    target, fixed = batch.target, batch.target.detach()
    pairs, distances, agreements = [], [], []
    for i in range(len(target)):
        for j in range(i + 1, len(target)):
            pairs.append((i, j))
            distances.append(float((fixed[i] - fixed[j]).square().sum()))
            agreements.append(float(torch.minimum(multilabel[i], multilabel[j]).sum()))
    number = int(len(pairs) * RATIO)
    threshold = sorted(agreements)[-number]
    near: dict[bool, list[Tensor]] = {True: [], False: []}
    for place in sorted(range(len(pairs)), key=distances.__getitem__)[:number]:
        i, j = pairs[place]
        distance = (target[i] - target[j]).square().sum()
        near[agreements[place] > threshold].append((-distance).exp())
    positive = torch.stack(near[True]).mean() if near[True] else torch.tensor(1.0)
    negative = torch.stack(near[False]).mean() if near[False] else torch.tensor(0.5)
    return -(positive / (positive + negative)).log()


def our_discriminative(batch: Batch) -> Tensor:
    agreement = pair_agreements(log_multilabels(batch).exp())
    threshold = kth_largest(agreement, num_mined_pairs(len(batch.target), mining_ratio=RATIO))
    first, second, positive = mine_pairs(
        batch.target, agreement, threshold, mining_ratio=RATIO, mining=agreeing_pairs
    )
    distance = (batch.target[first] - batch.target[second]).square().sum(dim=1)
    return discriminative_loss(distance, positive)


def all_of(*losses: Callable[[Batch], Tensor]) -> Callable[[Batch], Tensor]:
    """Return their sum, as in a training step."""
    return lambda batch: torch.stack([loss(batch) for loss in losses]).sum()


LOSSES = {
    "agent loss": (looped_agent, our_agent),
    "joint embedding": (looped_joint, our_joint),
    "consistency": (looped_consistency, our_consistency),
    "discriminative": (looped_discriminative, our_discriminative),
    "all": (
        all_of(looped_agent, looped_joint, looped_consistency, looped_discriminative),
        all_of(our_agent, our_joint, our_consistency, our_discriminative),
    ),
}


def draw(num_images: int, num_agents: int, size: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return source, target and agents as after some epochs, and persons and cameras."""
    generator = torch.Generator().manual_seed(0)

    def noise(number: int) -> Tensor:
        return F.normalize(torch.randn(number, size, generator=generator))

    # agents resemble each other in groups, so that images have several hard ones
    group = torch.arange(num_agents) // 20
    agents = F.normalize(noise(int(group.max()) + 1)[group] + 0.8 * noise(num_agents))
    person = torch.randint(0, num_agents, (2, num_images), generator=generator)
    source = F.normalize(agents[person[0]] + 0.5 * noise(num_images))
    target = F.normalize(agents[person[1] // 4] + noise(num_images))
    camera = torch.randint(0, 6, (num_images,), generator=generator)
    return [source, target, agents], [person[0], camera]


def taken(
    loss: Callable[[Batch], Tensor], rows: list[Tensor], ids: list[Tensor]
) -> tuple[float, list[Tensor]]:
    """Return the duration in seconds, and value and gradients."""
    source, target, agents = rows
    given = [source, target, agents, source @ agents.T, target @ agents.T]
    leaves = [each.detach().requires_grad_() for each in given]
    start = time.perf_counter()
    value = loss(Batch(*leaves, *ids))
    value.backward()
    duration = time.perf_counter() - start
    # of the embeddings, through the similarities too
    by_embedding, by_similarity = (
        [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in part]
        for part in (leaves[:3], leaves[3:])
    )
    return duration, [
        value.detach(),
        by_embedding[0] + by_similarity[0] @ agents,
        by_embedding[1] + by_similarity[1] @ agents,
        by_embedding[2] + by_similarity[0].T @ source,
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time MAR's losses of a batch.")
    parser.add_argument("--repeats", type=int, default=5, help="the fastest of so many counts")
    parser.add_argument("--quick", action="store_true", help="a small batch")
    options = parser.parse_args(arguments)
    num_images, num_agents, size = (40, 100, 32) if options.quick else (184, 4101, 2048)
    rows, ids = draw(num_images, num_agents, size)
    print(
        f"{num_images} + {num_images} images, {num_agents} agents of length {size}, "
        f"{torch.get_num_threads()} threads"
    )

    wrong = []
    exact = [each.double() for each in rows]
    print(f"{'loss':<18}{'loops':>12}{'ours':>12}{'ratio':>8}")
    for name, pair in LOSSES.items():
        slow, fast = (
            min(taken(loss, rows, ids)[0] for _ in range(repeats))
            for loss, repeats in zip(pair, (3, options.repeats), strict=True)
        )
        print(f"{name:<18}{1e3 * slow:>9.1f} ms{1e3 * fast:>9.1f} ms{slow / fast:>8.1f}")
        report(
            f"MAR's batch losses, forward and backward: {name}",
            fast,
            slow,
            against="loops over pairs and images",
            at_least=AIM if name == "all" else None,
        )
        expected, found = (taken(loss, exact, ids)[1] for loss in pair)
        for one, other in zip(found, expected, strict=True):
            apart, size = float((one - other).abs().max()), float(other.abs().max())
            if apart > 1e-12 * max(1.0, size):
                wrong.append(f"{name}: up to {size:.2g} large, and {apart:.2g} apart in float64")
    print("\n".join(wrong) or "all results agree")

    part = 200 if options.quick else 1536
    multilabel = torch.randn(part, num_agents).mul(2).softmax(dim=1)
    start = time.perf_counter()
    initial_threshold(multilabel, mining_ratio=RATIO, official_compat=False)
    seconds = time.perf_counter() - start
    whole = seconds * num_pairs(MARKET) / num_pairs(part)
    print(
        f"initial threshold: {seconds:.2f} s for {part} images, extrapolated {whole:.0f} s for "
        f"{MARKET}, once per run"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
