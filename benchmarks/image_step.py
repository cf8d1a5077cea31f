"""Times a training step of image re-identification: as published, and as the package does it.

``python benchmarks/image_step.py`` trains ResNet-50 on 256 x 128 images (random weights and data).
``mmcl`` takes one batch, labels and loss against a memory of 12,936 rows; ``mar`` takes half a
batch of a source and half of a target, and the two losses around 4,101 agents. The first line is
torchvision's network in float32, with loops over samples where the published code has them; the
others are the package's. Steps of all variants take turns, and a ratio is the median over the
rounds of (published step / this step of the same round). It fails if a variant's first loss is not
the published one's, to the precision of its numbers. ``--quick`` takes a small network, to see
that everything runs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from crosswalk.encoders.image import ImageEncoder, norm_scale
from crosswalk.encoders.resnet import resnet
from crosswalk.labels.positive_labels import cycle_consistent_rows
from crosswalk.losses.multilabel import mmcl_loss
from crosswalk.losses.reference_agents import agent_loss, joint_embedding_loss
from crosswalk.memory.memory_bank import MemoryBank

THRESHOLD, DELTA, RATIO, MOMENTUM = 0.6, 5.0, 0.01, 0.25
SCALE, MARGIN, LAMBDA_2, BETA = 30.0, 1.0, 50.0, 0.2
AIM = 2.0
"""Ratio hoped for in the best variant; only printed."""


@dataclass(frozen=True)
class Sizes:
    """How large a step is."""

    name: str
    image: tuple[int, int]
    batch: int
    rows: int
    agents: int


FULL = Sizes("resnet50", (256, 128), 16, 12_936, 4_101)
QUICK = Sizes("resnet18", (64, 32), 4, 340, 20)


@dataclass(frozen=True)
class Problem:
    """What all variants start from: one initialisation, one batch, one memory."""

    sizes: Sizes
    device: torch.device
    image: Tensor
    index: Tensor
    rows: Tensor
    agents: Tensor
    person_id: Tensor


def problem_of(sizes: Sizes, device: torch.device) -> Problem:
    generator = torch.Generator().manual_seed(1)

    def noise(count: int, length: int) -> Tensor:
        return F.normalize(torch.randn(count, length, generator=generator))

    features = 2048 if sizes.name == "resnet50" else 512
    person = torch.arange(sizes.rows) // 17
    # cosines of about 0.7 between images of a person
    rows = F.normalize(
        noise(len(person.unique()), features)[person] + 0.65 * noise(len(person), features)
    )
    return Problem(
        sizes,
        device,
        torch.randn(sizes.batch, 3, *sizes.image, generator=generator).to(device),
        torch.randperm(sizes.rows, generator=generator)[: sizes.batch].to(device),
        rows.to(device),
        noise(sizes.agents, features).to(device),
        torch.randint(0, sizes.agents, (sizes.batch // 2,), generator=generator).to(device),
    )


def published_network(problem: Problem, method: str) -> nn.Module:
    """Return torchvision's ResNet whose ``fc`` is the neck of MMCL, or nothing."""
    torch.manual_seed(0)
    network = torchvision.models.get_model(problem.sizes.name)
    if method == "mmcl":
        for name, module in network.layer4[0].named_modules():
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                network.layer4[0].get_submodule(name).stride = (1, 1)
        network.fc = nn.BatchNorm1d(network.fc.in_features)
    else:
        network.fc = nn.Identity()
    return network.to(problem.device)


def our_network(problem: Problem, method: str, channels_last: bool) -> ImageEncoder:
    """Return the package's encoder with the weights of the published network."""
    stride = 1 if method == "mmcl" else 2
    neck = "batch_norm" if method == "mmcl" else "none"
    encoder = ImageEncoder(
        resnet(problem.sizes.name, last_stride=stride), neck=neck, channels_last=channels_last
    )
    weights = {
        name.replace("fc.", "neck.") if name.startswith("fc.") else f"backbone.{name}": row
        for name, row in published_network(problem, method).state_dict().items()
    }
    encoder.load_state_dict(weights)
    return encoder.to(problem.device)


class Step:
    """One variant in training: network, optimizer, memory or agents."""

    def __init__(
        self, problem: Problem, method: str, network: nn.Module, *, bfloat16: bool, fused: bool
    ) -> None:
        self.problem = problem
        self.network = network
        self.bank = MemoryBank(*problem.rows.shape).to(problem.device)
        self.bank.rows.copy_(problem.rows)
        self.agents = nn.Parameter(problem.agents.clone())
        self.loss = getattr(self, f"{method}_loss")
        self.bfloat16 = bfloat16
        parameters = [*network.parameters(), *([self.agents] if method == "mar" else [])]
        kind = {"fused": True} if fused else {"foreach": False}
        # lr 1e-6: random weights, and every step should cost what the first one does
        self.sgd = torch.optim.SGD(parameters, 1e-6, 0.9, weight_decay=5e-4, **kind)

    def features(self, image: Tensor) -> Tensor:
        """Return what the loss sees, in float32."""
        kind = self.problem.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.bfloat16):
            return self.embed(image).float()

    def embed(self, image: Tensor) -> Tensor:
        """Return what leaves the network, behind the neck."""
        raise NotImplementedError

    def mmcl_loss(self) -> Tensor:
        """Return MMCL's loss of the batch; keep its embedding for the memory."""
        raise NotImplementedError

    def mar_loss(self) -> Tensor:
        """Return what the agents do in MAR's loss: agent loss and joint embedding loss."""
        raise NotImplementedError

    def __call__(self) -> Tensor:
        """Do one step; return its loss."""
        loss: Tensor = self.loss()
        self.sgd.zero_grad()
        loss.backward()
        self.sgd.step()
        self.remember()
        return loss.detach()

    def remember(self) -> None:
        """Update the memory of MMCL with the embedding of this step."""


class Published(Step):
    """torchvision's network and loops over samples."""

    def embed(self, image: Tensor) -> Tensor:
        """Return what leaves the network, behind the neck."""
        return self.network(image)

    def mmcl_loss(self) -> Tensor:
        """Return the loss, row by row; keep the embedding for the memory."""
        rows, index = self.bank.rows, self.problem.index
        self.embedding = F.normalize(self.features(self.problem.image))
        logits = self.embedding @ rows.T
        labels = looped_labels(rows, index)
        losses = []
        for line, positive in zip(logits, labels, strict=True):
            negative = line[~positive]
            hard = negative.sort(descending=True).values[: int(RATIO * len(negative))]
            attraction = DELTA * (1 - line[positive]).square().mean()
            losses.append(attraction + (1 + hard).square().mean())
        return torch.stack(losses).mean()

    def mar_loss(self) -> Tensor:
        """Return the losses around the agents, image by image."""
        half = len(self.problem.image) // 2
        source = norm_scale(self.features(self.problem.image[:half]))
        target = norm_scale(self.features(self.problem.image[half:]))
        agents = norm_scale(self.agents)
        fixed, terms = agents.detach(), []
        named = F.cross_entropy(SCALE * source @ agents.T, self.problem.person_id)
        for number, image in enumerate([*source, *target]):
            near = image.detach() @ fixed.T > 1 - MARGIN / 2
            if number < half:
                own = self.problem.person_id[number]
                terms.append((image - fixed[own]).square().sum())
                near[own] = False
            if near.any():
                hinge = (MARGIN - (image - fixed[near]).square().sum(dim=1)).clamp_min(0)
                terms.append(hinge.mean())
        return LAMBDA_2 * (named + BETA * torch.stack(terms).mean())

    def remember(self) -> None:
        """Update the memory of MMCL, row by row."""
        if not hasattr(self, "embedding"):
            return
        for index, vector in zip(self.problem.index, self.embedding.detach(), strict=True):
            moved = MOMENTUM * self.bank.rows[index] + (1 - MOMENTUM) * vector
            self.bank.rows[index] = moved / moved.norm()


def looped_labels(rows: Tensor, index: Tensor) -> Tensor:
    """Return the positive labels, with a ranking of all rows per sample and per candidate."""
    labels = torch.zeros(len(index), len(rows), dtype=torch.bool, device=rows.device)
    for line, own in zip(labels, index, strict=True):
        similarity = rows @ rows[own]
        ranking = similarity.argsort(descending=True)
        similar = int((similarity > THRESHOLD).sum())
        count = max(similar, 10)
        kept = count
        for place, candidate in enumerate(ranking[:count]):
            theirs = (rows @ rows[candidate]).argsort(descending=True)
            if int((theirs == ranking[0]).nonzero()) > count:
                kept = place
                break
        line[ranking[: min(max(kept, 2), similar)]] = True
        line[own] = True
    return labels


class Ours(Step):
    """The package's encoder and functions."""

    def embed(self, image: Tensor) -> Tensor:
        """Return what leaves the network, behind the neck."""
        return self.network(image).neck

    def mmcl_loss(self) -> Tensor:
        """Return the loss; keep the embedding for the memory."""
        self.embedding = F.normalize(self.features(self.problem.image))
        labels = cycle_consistent_rows(self.bank.rows, self.problem.index, threshold=THRESHOLD)
        scores = self.bank.scores(self.embedding)
        return mmcl_loss(scores, labels, delta=DELTA, ratio=RATIO).mean()

    def mar_loss(self) -> Tensor:
        """Return the losses around the agents."""
        half = len(self.problem.image) // 2
        source = norm_scale(self.features(self.problem.image[:half]))
        target = norm_scale(self.features(self.problem.image[half:]))
        agents, person_id = norm_scale(self.agents), self.problem.person_id
        named = agent_loss(source @ agents.T, person_id, scale=SCALE).mean()
        fixed = agents.detach()
        terms = joint_embedding_loss(
            source,
            target,
            fixed,
            person_id,
            source_similarity=source @ fixed.T,
            target_similarity=target @ fixed.T,
            margin=MARGIN,
            source_negatives=True,
        )
        return LAMBDA_2 * (named + BETA * terms.loss.sum() / terms.counted.sum())

    def remember(self) -> None:
        """Update the memory of MMCL."""
        if hasattr(self, "embedding"):
            embedding = self.embedding.detach()
            self.bank.update(embedding, self.problem.index, momentum=MOMENTUM)


@dataclass(frozen=True)
class Variant:
    """One way of training, and how far its loss may be from the published one, relatively."""

    name: str
    build: Callable[[Problem, str], Step]
    tolerance: float


def ours(channels_last: bool, bfloat16: bool, compiled: bool = False) -> Callable[..., Step]:
    def build(problem: Problem, method: str) -> Step:
        network = our_network(problem, method, channels_last)
        if compiled:
            network.compile()
        return Ours(problem, method, network, bfloat16=bfloat16, fused=True)

    return build


def published(problem: Problem, method: str) -> Step:
    network = published_network(problem, method)
    return Published(problem, method, network, bfloat16=False, fused=False)


# bfloat16: the losses see cosines times 30, times 50, of a network with random weights
VARIANTS = [
    Variant("as published, float32", published, 0.0),
    Variant("ours, float32", ours(False, False), 1e-3),
    Variant("ours, float32, channels last", ours(True, False), 1e-3),
    Variant("ours, bfloat16", ours(False, True), 1e-1),
    Variant("ours, bfloat16, channels last", ours(True, True), 1e-1),
]
COMPILED = Variant("the last one, compiled", ours(True, True, compiled=True), 1e-1)


def seconds(step: Step, device: torch.device) -> float:
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(method: str, problem: Problem, variants: list[Variant], rounds: int) -> list[str]:
    """Print one table; return what is wrong with its losses."""
    steps = [variant.build(problem, method) for variant in variants]
    losses = [step().item() for step in steps]  # also warms up, and compiles
    durations: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds):
        for step, taken in zip(steps, durations, strict=True):
            taken.append(seconds(step, problem.device))
    print(f"{method + ': variant':<34}{'step':>9}{'ratio':>7}{'loss':>12}")
    wrong, best = [], 0.0
    for variant, taken, loss in zip(variants, durations, losses, strict=True):
        ratio = statistics.median(base / own for base, own in zip(durations[0], taken, strict=True))
        best = max(best, ratio)
        print(f"{variant.name:<34}{statistics.median(taken):>7.3f} s{ratio:>7.2f}{loss:>12.5f}")
        if abs(loss - losses[0]) > variant.tolerance * abs(losses[0]):
            wrong.append(f"{method}, {variant.name}: loss {loss}, expected {losses[0]}")
    print(f"best ratio {best:.2f}, aim {AIM:g}: {'met' if best >= AIM else 'missed'}", flush=True)
    return wrong


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time a training step of image ReID.")
    parser.add_argument("--batch-size", type=int, default=FULL.batch, help="images per step")
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of every variant")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--compile", action="store_true", help="a compiled variant too: minutes on a CPU"
    )
    parser.add_argument("--quick", action="store_true", help="a small network, one round")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    sizes = QUICK if options.quick else FULL
    if not options.quick:
        sizes = Sizes(sizes.name, sizes.image, options.batch_size, sizes.rows, sizes.agents)
    variants = [*VARIANTS, COMPILED] if options.compile else VARIANTS

    problem = problem_of(sizes, device)
    print(f"{sizes.name}, batch of {sizes.batch} on {device}, {torch.get_num_threads()} threads")
    wrong = []
    for method in ("mmcl", "mar"):
        wrong += compare(method, problem, variants, 1 if options.quick else options.rounds)
    print("\n".join(wrong) or "all losses agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
