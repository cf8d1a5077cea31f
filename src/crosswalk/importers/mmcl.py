"""Weights of the official MMCL code, under the names of `ImageEncoder`."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from crosswalk.importers._files import entries_below, norm_names, rename, state_dict_in
from crosswalk.importers._resnet import names_of, node_of, published_name, sizes_of

PUBLISHED_DATA = "dukemtmc"
"""Data of the published run, whose settings no official file holds."""

_ORIGIN = "the official MMCL model"


read_mmcl = partial(state_dict_in, entry="state_dict", model="MMCL")
"""Returns the model's state dict in ``checkpoint.pth.tar`` of the official code.

The memory bank beside it is left out: it belongs to the training images, not to the model.
"""


def import_mmcl(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the official weights as a state dict of `ImageEncoder`, at least in float32.

    The classifiers are left out: ``base.fc`` of ImageNet, and ``classifier``, which the released
    training never uses.

    Args:
        state: From `read_mmcl`.

    Raises:
        ValueError: If entries are missing or unknown; they are named.
    """
    names = {
        f"base.{name}": f"backbone.{name}"
        for name in names_of(sizes_of(entries_below("base.", state), _ORIGIN))
    }
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
    sizes = sizes_of(entries_below("base.", state), _ORIGIN)
    return {
        "name": published_name(sizes),
        "neck": "batch_norm",
        "backbone": sizes | {"last_stride": 1, "last_relu": True},
    }


def recipe_of(architecture: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of the published configuration that an architecture changes."""
    sizes = {"name": architecture["name"], **architecture["backbone"]}
    return {"encoder.backbone": node_of(sizes), "encoder.neck": architecture["neck"]}
