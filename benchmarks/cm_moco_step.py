"""Times the image stream in a training step of CM-MoCo: straightforward, and as the package does.

``python benchmarks/cm_moco_step.py`` trains CLIP's ResNet-50 with last stride 1 on 384 x 128 images
(random weights and data): vectors of the encoder with gradient, the key encoder moved by momentum,
its keys of the same images, the contrast of images with 2,048 queued captions, backward, Adam. The
captions' stream is no part of it. The first line is open_clip's network in float32 with its
attention pool, which computes all 193 tokens and keeps one, and loops over parameters; the others
are the package's. Steps of all variants take turns, and a ratio is the median over the rounds of
(straightforward step / this step of the same round). It fails if a variant's first vectors are not
the straightforward ones, to the precision of its numbers. ``--quick`` takes a small network.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from torch import Tensor, nn

from crosswalk.encoders.clip_resnet import ClipResNet
from crosswalk.encoders.momentum import MomentumEncoder
from crosswalk.losses.queue_contrast import queue_contrast_loss

QUEUE, TEMPERATURE, MOMENTUM = 2048, 0.07, 0.999
AIM = 2.0
"""Ratio hoped for in the best variant; only printed."""

FULL = {"layers": (3, 4, 6, 3), "width": 64, "output_dim": 1024, "heads": 32}
QUICK = {"layers": (1, 1, 1, 1), "width": 12, "output_dim": 128, "heads": 4}


@dataclass(frozen=True)
class Problem:
    """What all variants start from: one initialisation, one batch, one queue."""

    sizes: dict[str, Any]
    image_size: tuple[int, int]
    device: torch.device
    weights: dict[str, Tensor]
    image: Tensor
    text_key: Tensor
    queue: Tensor


def problem_of(
    sizes: dict[str, Any], image_size: tuple[int, int], batch: int, device: torch.device
) -> Problem:
    torch.manual_seed(1)
    network = ClipResNet(image_size=image_size, **sizes)
    for name, parameter in network.named_parameters():
        if name.endswith("bn3.weight"):
            nn.init.ones_(parameter)  # or no block would do more than its shortcut
    size = sizes["output_dim"]
    return Problem(
        sizes,
        image_size,
        device,
        {name: row.to(device) for name, row in network.state_dict().items()},
        torch.randn(batch, 3, *image_size, device=device),
        F.normalize(torch.randn(batch, size, device=device)),
        F.normalize(torch.randn(QUEUE, size, device=device)),
    )


def straightforward_network(problem: Problem) -> nn.Module:
    """Return open_clip's network with stride 1 in its last stage, and a rectangular pool."""
    sizes = problem.sizes
    network = ModifiedResNet(
        list(sizes["layers"]), sizes["output_dim"], sizes["heads"], 32, sizes["width"]
    )
    network.layer4[0].avgpool, network.layer4[0].downsample[0] = nn.Identity(), nn.Identity()
    network.attnpool = AttentionPool2d(1, 32 * sizes["width"], sizes["heads"], sizes["output_dim"])
    positions = problem.weights["attnpool.positional_embedding"]
    network.attnpool.positional_embedding = nn.Parameter(torch.empty_like(positions))
    network.to(problem.device).load_state_dict(problem.weights)
    return network


def our_network(problem: Problem, channels_last: bool) -> nn.Module:
    network = ClipResNet(image_size=problem.image_size, **problem.sizes).to(problem.device)
    network.load_state_dict(problem.weights)
    return network.to(memory_format=torch.channels_last) if channels_last else network


class Step:
    """One variant in training: network, momentum copy, optimizer."""

    def __init__(
        self,
        problem: Problem,
        network: nn.Module,
        keys: nn.Module,
        follow: Callable[[], None],
        *,
        bfloat16: bool = False,
        channels_last: bool = False,
        fused: bool = True,
    ) -> None:
        self.problem = problem
        self.network = network
        self.keys = keys
        self.follow = follow
        self.bfloat16 = bfloat16
        kind = torch.channels_last if channels_last else torch.contiguous_format
        self.image = problem.image.contiguous(memory_format=kind)
        self.everything = torch.ones(QUEUE, dtype=torch.bool, device=problem.device)
        how = {"fused": True} if fused else {"foreach": False}
        # lr 1e-7: random weights, and every step should cost what the first one does
        self.adam = torch.optim.Adam(network.parameters(), 1e-7, weight_decay=4e-5, **how)

    def embed(self, network: nn.Module) -> Tensor:
        """Return the unit vectors of the images."""
        device = self.problem.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.bfloat16):
            return F.normalize(network(self.image).float())

    def __call__(self) -> Tensor:
        """Do one step; return the vectors before it."""
        embedding = self.embed(self.network)
        with torch.no_grad():
            self.follow()
            self.key = self.embed(self.keys)  # for the captions' side, which is not timed
        loss = queue_contrast_loss(
            embedding,
            self.problem.text_key,
            self.problem.queue,
            self.everything,
            temperature=TEMPERATURE,
        ).mean()
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        return embedding.detach()


def straightforward(problem: Problem) -> Step:
    network = straightforward_network(problem)
    keys = copy.deepcopy(network).requires_grad_(False)

    def follow() -> None:
        for old, new in zip(keys.parameters(), network.parameters(), strict=True):
            old.data = old.data * MOMENTUM + new.data * (1 - MOMENTUM)

    return Step(problem, network, keys, follow, fused=False)


def ours(*, channels_last: bool, bfloat16: bool, compiled: bool = False) -> Callable[..., Step]:
    def build(problem: Problem) -> Step:
        network = our_network(problem, channels_last)
        slow = MomentumEncoder(network)
        if compiled:
            network.compile()
            slow.module.compile()
        return Step(
            problem,
            network,
            slow.module,
            lambda: slow.update_from(network, momentum=MOMENTUM),
            bfloat16=bfloat16,
            channels_last=channels_last,
        )

    return build


@dataclass(frozen=True)
class Variant:
    """One way of training, and how far its vectors may turn away, as 1 - cosine."""

    name: str
    build: Callable[[Problem], Step]
    tolerance: float


# bfloat16: 53 convolutions of random weights, under which the first network turns by 0.02 too
VARIANTS = [
    Variant("straightforward, float32", straightforward, 0.0),
    Variant("ours, float32", ours(channels_last=False, bfloat16=False), 1e-5),
    Variant("ours, float32, channels last", ours(channels_last=True, bfloat16=False), 1e-5),
    Variant("ours, bfloat16", ours(channels_last=False, bfloat16=True), 5e-2),
    Variant("ours, bfloat16, channels last", ours(channels_last=True, bfloat16=True), 5e-2),
]
COMPILED = Variant(
    "the last one, compiled", ours(channels_last=True, bfloat16=True, compiled=True), 5e-2
)


def seconds(step: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def pool_ratio(problem: Problem, rounds: int) -> float:
    """Return how much faster the attention pool is alone, forward and backward, in float32."""
    all_tokens = straightforward_network(problem).attnpool
    one_query = our_network(problem, channels_last=False).attnpool
    maps = torch.randn(
        len(problem.image), 32 * problem.sizes["width"], *one_query.grid, device=problem.device
    ).requires_grad_()
    taken = [
        [
            seconds(lambda pool=pool: pool(maps).square().sum().backward(), problem.device)
            for _ in range(rounds + 1)
        ][1:]
        for pool in (all_tokens, one_query)
    ]
    return statistics.median(taken[0]) / statistics.median(taken[1])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time CM-MoCo's image stream in training.")
    parser.add_argument("--batch-size", type=int, default=8, help="images per step")
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of every variant")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--compile", action="store_true", help="a compiled variant too: minutes on a CPU"
    )
    parser.add_argument("--quick", action="store_true", help="a small network, one round")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    rounds = 1 if options.quick else options.rounds
    sizes, image_size = (QUICK, (96, 32)) if options.quick else (FULL, (384, 128))
    problem = problem_of(sizes, image_size, options.batch_size, device)
    variants = [*VARIANTS, COMPILED] if options.compile else VARIANTS

    print(
        f"layers {sizes['layers']}, images {image_size}, batch of {options.batch_size} on "
        f"{device}, {torch.get_num_threads()} threads"
    )
    print(f"attention pool alone, float32: {pool_ratio(problem, rounds):.1f}x")
    steps = [variant.build(problem) for variant in variants]
    first = [step() for step in steps]  # also warms up, and compiles
    durations: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds):
        for step, taken in zip(steps, durations, strict=True):
            taken.append(seconds(step, device))
    print(f"{'variant':<34}{'step':>9}{'ratio':>7}{'1 - cos':>10}")
    wrong, best = [], 0.0
    for variant, taken, vectors in zip(variants, durations, first, strict=True):
        ratio = statistics.median(base / own for base, own in zip(durations[0], taken, strict=True))
        best = max(best, ratio)
        turned = float((1 - (vectors * first[0]).sum(dim=1)).abs().max())
        print(f"{variant.name:<34}{statistics.median(taken):>7.3f} s{ratio:>7.2f}{turned:>10.1e}")
        if turned > max(variant.tolerance, 1e-6):
            wrong.append(f"{variant.name}: vectors turned by {turned}")
    print(f"best ratio {best:.2f}, aim {AIM:g}: {'met' if best >= AIM else 'missed'}")
    print("\n".join(wrong) or "all vectors agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
