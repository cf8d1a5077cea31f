"""Weights of the official Cluster Contrast code, under the names of `ImageEncoder`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor

from crosswalk.importers._files import entries_below, norm_names, rename, state_dict_in
from crosswalk.importers._resnet import names_of, node_of, published_name, sizes_of

PUBLISHED_DATA = "market1501"
"""Data of the published run, whose settings no official file holds."""

_ORIGIN = "the official Cluster Contrast model"
_PARTS = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Number of a part of the official backbone, which is a list of them, to its name."""


read_cluster_contrast = partial(state_dict_in, entry="state_dict", model="Cluster Contrast")
"""Returns the state dict in ``checkpoint.pth.tar`` or ``model_best.pth.tar`` of the official code.

Neither holds a memory or an optimizer.
"""


def import_cluster_contrast(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the official weights as a state dict of `ImageEncoder`, at least in float32.

    Args:
        state: From `read_cluster_contrast`.

    Raises:
        ValueError: If entries are missing or unknown; they are named.
    """
    backbone = _backbone(state)
    numbers = {name: number for number, name in _PARTS.items()}
    names = {}
    for name in _names(backbone):
        part, rest = name.split(".", 1)
        names[f"base.{numbers[part]}.{rest}"] = f"backbone.{name}"
    if "gap.p" in state:
        names["gap.p"] = "pooling.p"
    names |= dict(zip(norm_names("feat_bn"), norm_names("neck"), strict=True))
    return rename(state, names, (), _ORIGIN)


def architecture_of(state: dict[str, Tensor]) -> dict[str, Any]:
    """Return the encoder as a state dict shows it: keys of the encoder config.

    Weights tell generalised-mean pooling by its exponent; without, the average is meant. The
    stride of the last stage leaves no trace; it is 1.

    Args:
        state: From `read_cluster_contrast`.

    Returns:
        ``{"name": of the ResNet or None, "pooling": ..., "ibn": ..., "backbone": {arguments of
        ResNet}}``.
    """
    backbone = _backbone(state)
    sizes = sizes_of(backbone, _ORIGIN)
    return {
        "name": published_name(sizes),
        "pooling": "gem" if "gap.p" in state else "average",
        "ibn": _has_ibn(backbone),
        "backbone": sizes | {"last_stride": 1, "last_relu": True},
    }


def recipe_of(architecture: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of the published configuration that an architecture changes."""
    node = node_of({"name": architecture["name"], **architecture["backbone"]})
    if architecture["ibn"]:
        node = {"_target_": "crosswalk.encoders.ibn.with_ibn", "model": node}
    recipe: dict[str, Any] = {"encoder.backbone": node}
    if architecture["pooling"] == "average":
        recipe["encoder.pooling"] = None
    return recipe


def _backbone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries of the backbone under the names of torchvision; others stay out."""
    parts = (name.partition(".") for name in entries_below("base.", state))
    return {
        f"{_PARTS[number]}.{rest}": state[f"base.{number}.{rest}"]
        for number, _, rest in parts
        if number in _PARTS
    }


def _has_ibn(backbone: dict[str, Tensor]) -> bool:
    return "layer1.0.bn1.IN.weight" in backbone


def _names(backbone: dict[str, Tensor]) -> Iterator[str]:
    """Yield the entries of a ResNet of the sizes of these weights, with IBN if they have it."""
    sizes = sizes_of(backbone, _ORIGIN)
    last = len(sizes["layers"])
    for name in names_of(sizes):
        found = re.fullmatch(rf"(layer(?!{last}\.)\d+\.\d+\.bn1)\.(.+)", name)
        if not (found and _has_ibn(backbone)):
            yield name
            continue
        norm, part = found.groups()
        yield f"{norm}.BN.{part}"
        if part in ("weight", "bias"):
            yield f"{norm}.IN.{part}"
