"""What a state dict with torchvision's names says about its ResNet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from crosswalk.importers._files import norm_names

_SIZES = ("block", "layers", "stem_width", "planes")
_NAMES = {
    ("basic", (2, 2, 2, 2)): "resnet18",
    ("basic", (3, 4, 6, 3)): "resnet34",
    ("bottleneck", (3, 4, 6, 3)): "resnet50",
    ("bottleneck", (3, 4, 23, 3)): "resnet101",
    ("bottleneck", (3, 8, 36, 3)): "resnet152",
}


def sizes_of(state: dict[str, Tensor], origin: str) -> dict[str, Any]:
    """Return block, layers, stem_width and planes of the ResNet that ``state`` belongs to.

    Args:
        state: Names as torchvision's, ``conv1.weight`` and so on.
        origin: What the state dict should be, for the message.

    Raises:
        ValueError: If the first names of a ResNet are missing.

    Example:
        >>> import torch
        >>> state = {"conv1.weight": torch.zeros(2, 3, 7, 7)}
        >>> state["layer1.0.conv1.weight"] = torch.zeros(4, 2, 3, 3)
        >>> sizes_of(state, "a ResNet")
        {'block': 'basic', 'layers': (1,), 'stem_width': 2, 'planes': (4,)}
    """
    layers: list[int] = []
    planes: list[int] = []
    while f"layer{len(layers) + 1}.0.conv1.weight" in state:
        stage = f"layer{len(layers) + 1}"
        layers.append(len({name.split(".")[1] for name in state if name.startswith(f"{stage}.")}))
        planes.append(len(state[f"{stage}.0.conv1.weight"]))
    if not layers or "conv1.weight" not in state:
        raise ValueError(f"this is no state dict of {origin}: conv1 or layer1 are missing")
    block = "bottleneck" if "layer1.0.conv3.weight" in state else "basic"
    return {
        "block": block,
        "layers": tuple(layers),
        "stem_width": len(state["conv1.weight"]),
        "planes": tuple(planes),
    }


def published_name(sizes: dict[str, Any]) -> str | None:
    """Return the ``name`` of a ResNet of these sizes, None where it has none.

    Example:
        >>> published_name({"block": "basic", "layers": (2, 2, 2, 2), "stem_width": 64,
        ...                 "planes": (64, 128, 256, 512)})
        'resnet18'
    """
    usual = sizes["stem_width"] == 64 and sizes["planes"] == (64, 128, 256, 512)
    return _NAMES.get((sizes["block"], sizes["layers"])) if usual else None


def node_of(architecture: dict[str, Any]) -> dict[str, Any]:
    """Return the node of a configuration that makes a ResNet: by its name if it has one.

    Args:
        architecture: ``name``, sizes, and strides that sizes do not tell.

    Example:
        >>> sizes = {"block": "basic", "layers": (1,), "stem_width": 4, "planes": (4,)}
        >>> node_of({"name": "resnet18", **sizes, "last_stride": 1})
        {'_target_': 'crosswalk.encoders.resnet.resnet', 'last_stride': 1, 'name': 'resnet18'}
    """
    kept = {name: value for name, value in architecture.items() if name != "name"}
    if architecture["name"] is None:
        return {"_target_": "crosswalk.encoders.resnet.ResNet", **kept}
    kept = {name: value for name, value in kept.items() if name not in _SIZES}
    target = "crosswalk.encoders.resnet.resnet"
    return {"_target_": target, **kept, "name": architecture["name"]}


def names_of(sizes: dict[str, Any]) -> Iterator[str]:
    """Yield the entries of a ResNet without classifier.

    Example:
        >>> sizes = {"block": "basic", "layers": (1,), "stem_width": 4, "planes": (4,)}
        >>> [name for name in names_of(sizes) if "conv" in name]
        ['conv1.weight', 'layer1.0.conv1.weight', 'layer1.0.conv2.weight']
    """
    yield "conv1.weight"
    yield from norm_names("bn1")
    convolutions, expansion = (3, 4) if sizes["block"] == "bottleneck" else (2, 1)
    for stage, depth in enumerate(sizes["layers"], start=1):
        for block in range(depth):
            prefix = f"layer{stage}.{block}"
            for number in range(1, convolutions + 1):
                yield f"{prefix}.conv{number}.weight"
                yield from norm_names(f"{prefix}.bn{number}")
            same_width = sizes["stem_width"] == expansion * sizes["planes"][0]
            if block == 0 and not (stage == 1 and same_width):
                yield f"{prefix}.downsample.0.weight"
                yield from norm_names(f"{prefix}.downsample.1")
