"""One training step of a configuration on a tiny set, without a trainer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from torch import Tensor

from crosswalk.config.build import build
from crosswalk.encoders import clip_resnet, clip_text, resnet
from crosswalk.run.callbacks.sweep import EpochSweep
from crosswalk.types import SweepData
from tests.end_to_end.small_runs import tiny_images, tiny_pairs

TINY = (
    *("trainer.accelerator=cpu", "trainer.devices=1", "trainer.strategy=auto"),
    *("trainer.precision=32-true", "data.num_workers=0"),
)
"""Nothing of this is what a row may be about: one process, on the CPU."""

TINY_BY_METHOD = {
    "rde": ("data.batch_size=16",),
    "cm_moco": ("data.batch_size=16", "method.queue_size=40"),
    "cmmt": ("data.batch_size=16", "method.start_epoch=0"),
    # 1,128 pairs of target images, of which a share of 0.00125 is one
    "mar": ("data.image_size=[64,32]", "data.batch_size=48"),
    "mmcl": ("data.image_size=[64,32]", "data.batch_size=16"),
    "supervised": ("data.image_size=[64,32]", "data.batch_size=16"),
}
"""Smaller sizes, and labels from the first epoch on."""

FROM_THE_START = {
    "mar": ("method.mining_start_epoch=0",),
    "mmcl": ("method.mplp_start_epoch=0",),
}

PUBLISHED_STREAMS = ("encoder.image.pretrained=null", "data.image_size=[64,32]")
"""The published encoders of two streams, from random weights and for tiny images."""

NARROW_TEXT = {**clip_text._SIZES["tiny"], "context_length": 77}
NARROW_RESNET = {"layers": (1, 1, 1, 1), "width": 4, "heads": 4}


def make_published_encoders_narrow(patch: pytest.MonkeyPatch) -> None:
    """Let the names of published encoders stand for narrow ones, and downloads for a local file.

    So a row may choose the encoder it is about without weights of hundreds of megabytes.
    """
    for name, channels in (("RN50", 1024), ("RN101", 512)):
        sizes = {**NARROW_RESNET, "output_dim": channels}
        patch.setitem(clip_resnet._SIZES, name, sizes)
        text = {**NARROW_TEXT, "embed_dim": channels}
        patch.setitem(clip_text._SIZES, f"{name}-quickgelu", text)
    narrow = {"block": "bottleneck", "layers": (1, 1, 1, 1), "planes": (4, 4, 4, 8)}
    patch.setitem(resnet._SIZES, "resnet50", narrow)
    for name in ("ViT-B-32-quickgelu", "RN50x4-quickgelu"):
        patch.setitem(clip_text._SIZES, name, clip_text._SIZES["tiny"])
    patch.setattr(clip_text, "pretrained_file", _local_file)


def _local_file(name: str, pretrained: str, *, setting: str) -> str:
    return "tiny_clip.safetensors" if pretrained == "openai" else pretrained


class TinySets:
    """Tiny generated sets below a folder, made when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.roots: dict[str, list[str]] = {}

    def of(self, data: str) -> list[str]:
        """Return the overrides that take a tiny set for ``data=``."""
        kind = "synthetic_pairs" if data == "cuhk_pedes" else data
        if kind not in self.roots:
            self.roots[kind] = self._make(kind)
        return self.roots[kind]

    def _make(self, kind: str) -> list[str]:
        if kind == "synthetic_pairs":
            return [f"data.root={tiny_pairs(self.folder)}"]
        images = self.folder / "images"
        if not images.exists():
            tiny_images(images)
        if kind == "synthetic_images":
            return [f"data.root={images / 'market1501'}"]
        return [
            f"data.source.root={images / 'msmt17'}",
            f"data.target.root={images / 'market1501'}",
        ]


def take_one_step(config: Mapping[str, Any]) -> None:
    """Build the run, let it sweep if it wants to, and take one step.

    Raises:
        AssertionError: If the loss or a gradient is not finite.
    """
    L.seed_everything(1, verbose=False)
    run = build(config)
    method = run.method
    method.log = method.log_dict = lambda *args, **kwargs: None  # there is no trainer
    run.data.setup("fit")
    _sweep(run.data, method)
    optimizer = _optimizer(method.configure_optimizers())
    batch = run.data.transform_batch(next(iter(run.data.train_dataloader())))
    method.train()
    outputs = method.training_step(batch, 0)
    loss = outputs if isinstance(outputs, Tensor) else outputs["loss"]
    assert math.isfinite(loss.item()), f"the loss is {loss.item()}"
    loss.backward()
    optimizer.step()
    if hasattr(method, "remember"):
        method.remember(outputs)
    for name, values in method.named_parameters():
        assert bool(torch.isfinite(values).all()), f"{name} is not finite after a step"


def _sweep(data: SweepData, method: L.LightningModule) -> None:
    trainer = SimpleNamespace(
        current_epoch=0,
        precision_plugin=SimpleNamespace(val_step_context=torch.no_grad),
        strategy=SimpleNamespace(batch_to_device=data.transform_batch),
    )
    EpochSweep(data).on_train_epoch_start(trainer, method)


def _optimizer(configured: Mapping[str, Any]) -> torch.optim.Optimizer:
    return configured["optimizer"]
