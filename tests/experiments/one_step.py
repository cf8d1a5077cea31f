"""One training step of a configuration on a tiny set, without a trainer."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import PropertyMock, patch

import lightning.pytorch as L
import pytest
import torch
from torch import Tensor

from crosswalk.config.build import build
from crosswalk.config.check import check
from crosswalk.config.keys import flatten
from crosswalk.config.search import small_overrides
from crosswalk.encoders import clip_resnet, clip_text, resnet
from crosswalk.methods.base import Method
from crosswalk.run.callbacks.sweep import EpochSweep
from crosswalk.synthetic.images import synthesize_images
from crosswalk.types import SweepData

NUM_EPOCHS = 2
"""Of a small run."""

TINY = (
    *("trainer.accelerator=cpu", "trainer.devices=1", "trainer.strategy=auto"),
    *("trainer.precision=32-true", "data.num_workers=0"),
    # so many images have 1,128 pairs, of which even a share of 0.00125 is one
    "data.batch_size=48",
)
"""Nothing of this is what a row may be about: one process, on the CPU, one batch."""

PUBLISHED_STREAMS = ("encoder.image.pretrained=null", "data.image_size=[64,32]")
"""The published encoders of two streams, from random weights and for tiny images."""

IMAGE_SETS = ("market1501", "dukemtmc", "msmt17", "occluded_duke")
"""Sets of images that one in the layout of Market-1501 may stand for."""

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


def tiny_overrides(config: Mapping[str, Any], changed: set[str], pairs: Path) -> list[str]:
    """Return what makes one step of a table's row small; each key is in the row's configuration.

    Args:
        config: Of the row.
        changed: Keys that the row is about; they stay.
        pairs: Root of a tiny set in the layout of CUHK-PEDES, for rows that need it; one of
            images is made beside it.
    """
    keys = flatten(config)
    small = [
        override
        for override in small_overrides(config["choices"]["method"])
        if override.startswith("+") or _is_key(_key_of(override), keys)
    ]
    small += [f"{key}=tiny" for key in keys if re.fullmatch(r"data\..*synthetic\.size", key)]
    data = config["choices"]["data"]
    if data in IMAGE_SETS:
        images = synthesize_images(pairs.parent / "tiny-images", size="tiny", progress=False)
        # of their own size: a row may be about an encoder that is made for it
        small = [each for each in small if not each.startswith("data.image_size=")]
        root = next(images.glob("Market*"))
        small += [f"data.root={root}", "encoder.image.pretrained=null"]
    elif not data.startswith("synthetic"):
        assert data == "cuhk_pedes", f"no tiny set stands for data={data}"
        small += [f"data.root={pairs}", *PUBLISHED_STREAMS]
        small += ["encoder.text.pretrained=null"] * ("pretrained" in config["encoder"]["text"])
    return [*TINY, *(each for each in small if _may_stand(_key_of(each), changed))]


def _key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+")


def _may_stand(key: str, changed: set[str]) -> bool:
    """A row keeps what it changes, but for downloads, and its stage, which one step never asks."""
    return key.endswith("pretrained") or (key not in changed and key != "stage")


def _is_key(key: str, keys: Mapping[str, Any]) -> bool:
    return key in keys or any(each.startswith(f"{key}.") for each in keys)


def take_one_step(config: Mapping[str, Any]) -> None:
    """Build the run, let it sweep if it wants to, and take one step.

    Raises:
        AssertionError: If the loss or a gradient is not finite.
    """
    L.seed_everything(1, verbose=False)
    run = build(check(config))
    method, data = run.method, run.data
    method.log = method.log_dict = lambda *args, **kwargs: None  # there is no trainer
    data.setup("fit")
    optimizer = _optimizer(method.configure_optimizers())
    # what small runs have in their second epoch, labels for one, is in the step, too
    for epoch in range(NUM_EPOCHS):
        with patch.object(type(method), "current_epoch", PropertyMock(return_value=epoch)):
            _sweep(data, method, epoch)
            method.on_train_epoch_start()
            if epoch == NUM_EPOCHS - 1:
                _step(method, data.transform_batch(next(iter(data.train_dataloader()))), optimizer)


def _step(method: Method, batch: Any, optimizer: torch.optim.Optimizer) -> None:  # noqa: ANN401
    method.train()
    outputs = method.training_step(batch, 0)
    loss = outputs if isinstance(outputs, Tensor) else outputs["loss"]
    assert math.isfinite(loss.item()), f"the loss is {loss.item()}"
    loss.backward()
    optimizer.step()
    if isinstance(outputs, dict):
        method.remember(outputs)
    for name, values in method.named_parameters():
        assert bool(torch.isfinite(values).all()), f"{name} is not finite after a step"


def _sweep(data: SweepData, method: Method, epoch: int) -> None:
    trainer = SimpleNamespace(
        current_epoch=epoch,
        precision_plugin=SimpleNamespace(val_step_context=torch.no_grad),
        strategy=SimpleNamespace(batch_to_device=data.transform_batch),
    )
    EpochSweep(data).on_train_epoch_start(trainer, method)


def _optimizer(configured: Mapping[str, Any]) -> torch.optim.Optimizer:
    return configured["optimizer"]
