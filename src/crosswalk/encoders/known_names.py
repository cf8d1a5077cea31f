"""Weights of a known network under the names that other libraries give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

WRAPPED = ("backbone.", "base.", "model.", "encoder.backbone.", "encoder.", "net.", "trunk.")
"""What frameworks put before all names of a network: ours, torchreid's successors, Lightning."""

HEADS = ("fc.", "classifier.", "head.", "heads.")


class _Twin(NamedTuple):
    """The same network in torchvision.

    Attributes:
        name: As torchvision spells it.
        eps: Of its batch normalisations, where timm's have another.
        body: Parts of its classifier that timm counts as the body.
    """

    name: str
    eps: float | None = None
    body: tuple[str, ...] = ()


_TWINS = {
    "mobilenetv2_100": _Twin("mobilenet_v2"),
    "mobilenetv3_large_100": _Twin("mobilenet_v3_large", 1e-3, ("classifier.0.",)),
    "mobilenetv3_small_100": _Twin("mobilenet_v3_small", 1e-3, ("classifier.0.",)),
    **{f"efficientnet_b{size}": _Twin(f"efficientnet_b{size}") for size in range(5)},
    "vit_base_patch16_224": _Twin("vit_b_16"),
    "vit_base_patch32_224": _Twin("vit_b_32"),
    "vit_large_patch16_224": _Twin("vit_l_16"),
}
"""By timm's name."""

_POSITIONS = "encoder.pos_embedding"


def unwrapped(weights: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the part of ``weights`` that holds a network, if one prefix makes all names fit.

    A classifier beside the network is left out where the network has none.

    Args:
        weights: From a file.
        wanted: The state dict of the network.

    Example:
        >>> wanted = {"conv1.weight": torch.zeros(2), "bn1.num_batches_tracked": torch.zeros(1)}
        >>> wrapped = {"base.conv1.weight": torch.ones(2), "base.fc.bias": torch.ones(1)}
        >>> unwrapped(wrapped, wanted)
        {'conv1.weight': tensor([1., 1.])}
    """
    needed = {name for name in wanted if not name.endswith("num_batches_tracked")}
    for prefix in ("", *WRAPPED):
        part = {n.removeprefix(prefix): row for n, row in weights.items() if n.startswith(prefix)}
        if needed <= part.keys():
            return {
                name: row
                for name, row in part.items()
                if name in wanted or not name.startswith(HEADS)
            }
    return dict(weights)


def from_torchvision(
    name: str, weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return torchvision's weights of a network under timm's names; others as they are.

    Both libraries list the parameters of these networks in one order, with one exception, the
    positions of vision transformers. Every shape is compared.

    Args:
        name: As timm spells it, with or without a tag.
        weights: From a file.
        wanted: The state dict of timm's model without a classifier.
    """
    twin = _TWINS.get(name.split(".")[0])
    if twin is None:
        return dict(weights)
    theirs = [each for each in _names_in_torchvision(twin) if _is_body(each, twin)]
    if not set(theirs) <= weights.keys() or len(theirs) != len(wanted):
        return dict(weights)
    if any(
        weights[one].numel() != wanted[two].numel() for one, two in zip(theirs, wanted, strict=True)
    ):
        return dict(weights)  # of another image size
    return {
        ours: weights[each].reshape(wanted[ours].shape)
        for each, ours in zip(theirs, wanted, strict=True)
    }


def torchvision_eps(name: str, weights: Mapping[str, Tensor]) -> float | None:
    """Return the eps of batch normalisations that weights need of a model of timm; None: timm's.

    No weight tells it, so it has to be written beside them.

    Args:
        name: As timm spells it, with or without a tag.
        weights: From a file; torchvision's are known by their names.

    Example:
        >>> torchvision_eps("resnet18", {}) is None
        True
    """
    twin = _TWINS.get(name.split(".")[0])
    if twin is None or twin.eps is None:
        return None
    theirs = {each for each in _names_in_torchvision(twin) if _is_body(each, twin)}
    return twin.eps if theirs <= weights.keys() else None


def _names_in_torchvision(twin: _Twin) -> list[str]:
    from torchvision.models import get_model  # type: ignore[import-untyped]

    with torch.device("meta"):
        names = list(get_model(twin.name, weights=None).state_dict())
    if _POSITIONS in names:  # timm has them behind the class token
        names.remove(_POSITIONS)
        names.insert(1, _POSITIONS)
    return names


def _is_body(name: str, twin: _Twin) -> bool:
    return name.startswith(twin.body or "\0") or not name.startswith(HEADS)
