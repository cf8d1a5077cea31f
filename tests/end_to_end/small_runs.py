"""Runs of real configurations, cut down to seconds: tiny data, tiny encoder, two epochs."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as L
import torch

from crosswalk.config import compose
from crosswalk.data.synthetic.generate import synthesize_pairs
from crosswalk.methods.base import Method
from crosswalk.train import evaluate, train

SMALL = (
    "trainer=cpu",
    "trainer.max_epochs=2",
    "logger=csv",
    "data.batch_size=18",  # 122 pairs: six batches of 18 and one of 14
    "data.eval_batch_size=16",
    "encoder=clip_tiny",
    "encoder.clip.pretrained=null",
    "encoder.clip.vision_width=32",
    "encoder.clip.vision_layers=2",
    "encoder.clip.vision_heads=2",
    "encoder.clip.text_width=16",
    "encoder.clip.text_layers=2",
    "encoder.clip.embed_dim=16",
    "encoder.embedding_size=24",
)
BATCHES_PER_EPOCH = 7


def small_overrides(data_root: Path, *more: str) -> list[str]:
    """Return overrides that turn the default run into one of a few seconds."""
    return [*SMALL, f"data.root={data_root}", *more]


def tiny_pairs(folder: Path) -> Path:
    """Return the root of a tiny synthetic set below ``folder``."""
    return synthesize_pairs(folder / "tiny-pairs", size="tiny", seed=3, progress=False)


class _Count:
    """Kills this process when something has happened often enough."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    def __call__(self) -> None:
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


def train_and_be_killed(
    overrides: list[str], event: str | None = None, count: int = 0, environment: dict | None = None
) -> None:
    """Run ``crosswalk train``; SIGKILL this process at the event after ``count`` of its kind.

    Events: ``step`` (a training step begins), ``sweep`` (a batch of the division pass begins),
    ``evaluation`` (a batch of an evaluation begins).
    """
    torch.set_num_threads(1)
    os.environ |= environment or {}
    if event is not None:
        from crosswalk.methods.rde import RDE

        name = {"step": "training_step", "sweep": "sweep_step", "evaluation": "embed"}[event]
        original, tick = getattr(RDE, name), _Count(count)

        def ticking(self: Method, *args: object) -> object:
            tick()
            return original(self, *args)

        setattr(RDE, name, ticking)
    L.seed_everything(0, verbose=False)
    status = train(compose(overrides))
    if status:
        raise RuntimeError(f"the run ended with status {status}")


def evaluate_again(folder: Path, cache: str, overrides: Sequence[str] = ()) -> None:
    """Run ``crosswalk evaluate``."""
    torch.set_num_threads(1)
    os.environ["CROSSWALK_CACHE"] = cache
    if status := evaluate(folder, overrides):
        raise RuntimeError(f"the evaluation ended with status {status}")
