"""Runs of real configurations, cut down to seconds: tiny data, tiny encoder, two epochs."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as L
import torch

from crosswalk.config import compose
from crosswalk.constructors import locate
from crosswalk.data.synthetic.generate import synthesize_pairs
from crosswalk.data.synthetic.images import synthesize_images
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

SMALL_IMAGES = (
    "trainer=cpu",
    "trainer.max_epochs=2",
    "logger=csv",
    "stage=null",
    "data.image_size=[64,32]",
    "data.eval_batch_size=16",
)
IMAGE_METHODS = {
    # identity batches need as many images of a person as they take
    "supervised": ("method=supervised", "data.batch_size=16", "+optim.optimizer.eps=1e-3"),
    # labels are predicted in the second epoch, from a bank of a few dozen rows
    "mmcl": ("method=mmcl", "data.batch_size=16", "method.mplp_start_epoch=1", "optim.lr=0.01"),
    "mmcl_transfer": (
        *("method=mmcl", "data=synthetic_transfer", "data.batch_size=12"),
        *("method.mplp_start_epoch=1", "optim.lr=0.01"),
    ),
    # a tenth of the pairs of 12 images are similar
    "mar": ("method=mar", "data.batch_size=12", "method.mining_ratio=0.1"),
}
"""Overrides of a run of seconds for each kind of image run."""


def small_overrides(data_root: Path, *more: str) -> list[str]:
    """Return overrides that turn the default run into one of a few seconds."""
    return [*SMALL, f"data.root={data_root}", *more]


def tiny_pairs(folder: Path) -> Path:
    """Return the root of a tiny synthetic set below ``folder``."""
    return synthesize_pairs(folder / "tiny-pairs", size="tiny", seed=3, progress=False)


def tiny_images(folder: Path) -> Path:
    """Return the folder of two tiny synthetic image sets, a source and a target."""
    for layout in ("msmt17", "market1501"):
        synthesize_images(folder / layout, layout=layout, size="tiny", seed=3, progress=False)
    return folder


def small_image_overrides(kind: str, folder: Path, *more: str) -> list[str]:
    """Return overrides of a run of seconds; ``kind`` is one of `IMAGE_METHODS`."""
    target = folder / "market1501"
    roots = [f"data.root={target}"]
    if kind in ("mar", "mmcl_transfer"):
        roots = [f"data.source.root={folder / 'msmt17'}", f"data.target.root={target}"]
    return [*IMAGE_METHODS[kind], *SMALL_IMAGES, *roots, *more]


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
        method = locate(compose(overrides).method._target_, "method")
        name = {"step": "training_step", "sweep": "sweep_step", "evaluation": "embed"}[event]
        original, tick = getattr(method, name), _Count(count)

        def ticking(self: Method, *args: object) -> object:
            tick()
            return original(self, *args)

        setattr(method, name, ticking)
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
