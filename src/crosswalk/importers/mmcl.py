"""Weights of the official MMCL code, under the names of `ImageEncoder`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from crosswalk.importers._files import state_dict_in
from crosswalk.importers._resnet import names_of, norm_names, published_name, rename, sizes_of

_ORIGIN = "the official MMCL model"


def read_mmcl(path: str | Path) -> dict[str, Tensor]:
    """Return the model's state dict in a checkpoint of the official code.

    The memory bank beside it is left out: it belongs to the training images, not to the model.

    Args:
        path: ``checkpoint.pth.tar``, read without running code from it; or an ``.npz`` with one
            array per entry.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds something else.
    """
    return state_dict_in(Path(path), entry="state_dict", model="MMCL")


def import_mmcl(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the official weights as a state dict of `ImageEncoder`, at least in float32.

    The classifiers are left out: ``base.fc`` of ImageNet, and ``classifier``, which the released
    training never uses.

    Args:
        state: From `read_mmcl`; ``module.`` before the names is dropped.

    Raises:
        ValueError: If entries are missing or unknown; they are named.
    """
    state = _without_prefix(state)
    names = {f"base.{name}": f"backbone.{name}" for name in names_of(_sizes(state))}
    names |= dict(zip(norm_names("bn"), norm_names("neck"), strict=True))
    return rename(state, names, ("base.fc.", "classifier."), _ORIGIN)


def architecture_of(state: dict[str, Tensor]) -> dict[str, Any]:
    """Return the encoder as a state dict shows it: keys of the encoder config.

    The stride of the last stage leaves no trace in weights; it is 1 in MMCL.

    Args:
        state: From `read_mmcl`.

    Returns:
        ``{"name": of the ResNet or None, "neck": ..., "backbone": {arguments of ResNet}}``.
    """
    sizes = _sizes(_without_prefix(state))
    return {
        "name": published_name(sizes),
        "neck": "batch_norm",
        "backbone": sizes | {"last_stride": 1, "last_relu": True},
    }


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("module."): row for name, row in state.items()}


def _sizes(state: dict[str, Tensor]) -> dict[str, Any]:
    base = {name[5:]: row for name, row in state.items() if name.startswith("base.")}
    return sizes_of(base, _ORIGIN)
