"""Weights of the official MAR code, under the names of `ImageEncoder`, and its agents."""

from __future__ import annotations

import pickle
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import torch
from torch import Tensor

from crosswalk.importers._files import rename
from crosswalk.importers._resnet import names_of, node_of, published_name, sizes_of
from crosswalk.weight_files import tensors_in

AGENTS = "agents.weight"
"""Name of the reference agents ``[persons, D]`` beside the encoder's entries, not scaled."""

MSMT17_MEAN = (79.2386, 73.9793, 77.2493)
"""Of the channels of MSMT17's training images, of 255: MAR, released code."""

MSMT17_STD = (67.2012, 63.9191, 61.8367)

PUBLISHED_DATA = "msmt17_to_dukemtmc"
"""Data of the published run, whose settings no official file holds."""

_ORIGIN = "the official MAR model"
_MALFORMED = (
    *(AttributeError, EOFError, LookupError, OSError),
    *(RuntimeError, TypeError, ValueError),
)


class _Inert:
    """Stands for any object of foreign code: keeps its attributes, and does nothing."""

    dump_patches = False  # torch looks at it where a file holds source code

    state: dict[Any, Any]

    def __new__(cls, *_: object, **__: object) -> _Inert:
        made = super().__new__(cls)
        made.state = {}
        return made

    def __setstate__(self, state: object) -> None:
        self.state = state if isinstance(state, dict) else {}

    def __call__(self, *_: object, **__: object) -> _Inert:
        return _Inert()

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        pass

    def extend(self, items: object) -> None:
        pass

    def add(self, item: object) -> None:
        pass


_REBUILD: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): torch.Size,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}


class _Unpickler(pickle.Unpickler):
    """Rebuilds tensors and plain containers; every other class or function becomes `_Inert`."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        return _REBUILD.get((module, name), _Inert)


def _load(file: BinaryIO, **options: Any) -> Any:  # noqa: ANN401
    return _Unpickler(file, **options).load()


def read_mar(path: str | Path) -> dict[str, Tensor]:
    """Return the network's state dict in a file of the official code.

    The official files hold whole Python objects. No code of them runs: only tensors and plain
    containers are rebuilt, anything else becomes an object without behaviour.

    Args:
        path: ``pretrained_MSMT17.pth`` (a state dict, or a trainer and an epoch), the training's
            ``checkpoints.pth``, or an ``.npz`` with one array per entry. ``module.`` before the
            names is dropped.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds something else.
    """
    path = Path(path)
    try:
        return tensors_in(path)
    except ValueError as error:
        if "holds more than tensors" not in str(error):
            raise ValueError(f"{error} It is no checkpoint of MAR.") from error
    refused = ValueError(f"{path} holds no network: it is no checkpoint of MAR")
    if tarfile.is_tarfile(path) or _has_compiled_code(path):
        raise refused  # torch would read these without our unpickler
    module = SimpleNamespace(__name__="restricted", Unpickler=_Unpickler, load=_load)
    try:
        with warnings.catch_warnings():  # that source code in the file is not compared
            warnings.simplefilter("ignore")
            checkpoint = torch.load(
                path, map_location="cpu", pickle_module=module, weights_only=False
            )
    except (pickle.UnpicklingError, *_MALFORMED) as error:
        raise refused from error
    if isinstance(checkpoint, tuple) and checkpoint and isinstance(checkpoint[0], _Inert):
        checkpoint = checkpoint[0].state.get("net")
    state = dict(_entries(checkpoint)) if isinstance(checkpoint, _Inert) else checkpoint
    if not isinstance(state, dict) or not state:
        raise refused
    if not all(isinstance(row, Tensor) for row in state.values()):
        raise refused
    return {str(name).removeprefix("module."): row.detach() for name, row in state.items()}


def import_mar(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the official weights as a state dict of `ImageEncoder`, and the agents.

    In float32, or in float64 where the file is.

    `AGENTS` holds the weight of the classifier ``fc``, one row per source person in the official
    order of persons; it is no part of the encoder. A bias of ``fc``, as in ImageNet weights, is
    left out.

    Args:
        state: From `read_mar`.

    Raises:
        ValueError: If entries are missing or unknown; they are named.
    """
    names = {name: f"backbone.{name}" for name in names_of(sizes_of(state, _ORIGIN))}
    if "fc.weight" in state:
        names["fc.weight"] = AGENTS
    return rename(state, names, ("fc.",), _ORIGIN)


def architecture_of(state: dict[str, Tensor]) -> dict[str, Any]:
    """Return the encoder as a state dict shows it: keys of the encoder config.

    Stride and ReLU of the last stage leave no trace in weights; MAR has stride 2 and no last ReLU.

    Args:
        state: From `read_mar`.

    Returns:
        ``{"name": of the ResNet or None, "neck": "none", "backbone": {arguments of ResNet},
        "num_agents": rows of the classifier}``.
    """
    sizes = sizes_of(state, _ORIGIN)
    return {
        "name": published_name(sizes),
        "neck": "none",
        "backbone": sizes | {"last_stride": 2, "last_relu": False},
        "num_agents": len(state["fc.weight"]) if "fc.weight" in state else 0,
    }


def recipe_of(architecture: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of the published configuration that an architecture changes.

    The colours of a set are normalised by its own training images. Which they were for the file is
    in none of its entries: those of MSMT17 are taken, which every published model has learned from.
    """
    sizes = {"name": architecture["name"], **architecture["backbone"]}
    return {
        "encoder.backbone": node_of(sizes),
        "encoder.neck": architecture["neck"],
        "data.transform.mean": [value / 255 for value in MSMT17_MEAN],
        "data.transform.std": [value / 255 for value in MSMT17_STD],
    }


def _entries(module: _Inert, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the state dict of a rebuilt network, whose attributes are those of `nn.Module`."""
    for kind in ("_parameters", "_buffers"):
        for name, row in _items(module.state.get(kind)):
            if isinstance(row, Tensor):
                yield f"{prefix}{name}", row
    for name, child in _items(module.state.get("_modules")):
        if isinstance(child, _Inert):
            yield from _entries(child, f"{prefix}{name}.")


def _items(container: object) -> list[tuple[Any, Any]]:
    return list(container.items()) if isinstance(container, dict) else []


def _has_compiled_code(path: Path) -> bool:
    """Return whether the file is an archive of TorchScript."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())
