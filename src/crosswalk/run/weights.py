"""Weight files: an encoder's state dict as safetensors, with its origin in the header."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from crosswalk import __version__
from crosswalk.files import whole

if TYPE_CHECKING:
    from torch import Tensor, nn

    from crosswalk.methods.base import Method

PREFIX = "encoder."
AGENTS = "agents.weight"
"""MAR's agents, the one part of a method beside its encoder that a weight file may hold."""


def importable_methods() -> list[str]:
    """Return the methods whose official checkpoints can be read.

    Example:
        >>> "rde" in importable_methods()
        True
    """
    folder = Path(__file__).parents[1] / "importers"
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def run_import(method: str, source: Path, target: Path) -> int:
    """Write the weights of an official checkpoint to ``target``, say so, and return 0.

    Args:
        method: Whose checkpoint it is.
        source: The official file.
        target: The ``.safetensors`` to write; ``checkpoint=<target>`` starts a run from it.

    Raises:
        ValueError: If no importer of this name exists, or the file is another model's.
        FileNotFoundError: If there is no such file.

    Example:
        >>> run_import("cyclegan", Path("best.pth"), Path("weights.safetensors"))
        Traceback (most recent call last):
            ...
        ValueError: there is no importer for 'cyclegan'; there are: cm_moco, cmmt, mar, mmcl, rde.
    """
    if method not in importable_methods():
        raise ValueError(
            f"there is no importer for {method!r}; there are: {', '.join(importable_methods())}."
        )
    importer = importlib.import_module(f"crosswalk.importers.{method}")
    official = getattr(importer, f"read_{method}")(source)
    weights = getattr(importer, f"import_{method}")(official)
    architecture = importer.architecture_of(official)
    save_weights(target, weights, method=method, origin=source.name, architecture=architecture)
    print(f"{len(weights)} tensors of {source} are in {target}. Architecture:")
    print(json.dumps(architecture, indent=2))
    return 0


def run_export(
    run: Path, target: Path, which: str = "best", *, part: str = "", half: bool = False
) -> int:
    """Write the encoder of a finished run to ``target``, say so, and return 0.

    Args:
        run: The run folder, or one of its checkpoints.
        target: The ``.safetensors`` to write.
        which: "best" or "last", where ``run`` is a folder.
        part: Only this submodule of the encoder, such as ``clip``, for ``encoder.clip.pretrained``.
        half: Whether floating point numbers are rounded to float16, half the size.

    Raises:
        FileNotFoundError: If the run has no such checkpoint.
        ValueError: If the checkpoint holds no encoder.
    """
    path = run if run.is_file() else run / f"{which}.ckpt"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: name a run folder, or one of its .ckpt files. A run without val "
            "split has no best epoch; pass --which last."
        )
    weights = _weights_in(path)
    if part:
        prefix = part + "."
        weights = {
            name.removeprefix(prefix): tensor
            for name, tensor in weights.items()
            if name.startswith(prefix)
        }
        if not weights:
            raise ValueError(
                f"the encoder of {path} has no part {part!r}; CLIP models have 'clip'."
            )
    if half:
        weights = {
            name: tensor.half() if tensor.is_floating_point() else tensor
            for name, tensor in weights.items()
        }
    save_weights(target, weights, method="", origin=path.parent.name, architecture={})
    print(f"{len(weights)} tensors of {path} are in {target}.")
    return 0


def save_weights(
    target: Path,
    weights: dict[str, Tensor],
    *,
    method: str,
    origin: str,
    architecture: Mapping[str, object],
) -> None:
    """Write a weight file whose header says where it is from.

    Raises:
        ValueError: If the name does not end in ``.safetensors``.

    Example:
        >>> import tempfile, torch
        >>> target = Path(tempfile.mkdtemp()) / "w.safetensors"
        >>> save_weights(target, {"w": torch.ones(2)}, method="rde", origin="x", architecture={})
        >>> from safetensors.torch import load_file
        >>> load_file(target)["w"]
        tensor([1., 1.])
    """
    from safetensors.torch import save_file

    if target.suffix != ".safetensors":
        raise ValueError(f"{target} should end in .safetensors, the format that is written.")
    header = {
        "format": "pt",
        "crosswalk": __version__,
        "method": method,
        "origin": origin,
        "architecture": json.dumps(architecture),
    }
    tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
    with whole(target) as unfinished:
        save_file(tensors, unfinished, header)


def save_encoder(target: Path, method: nn.Module, *, origin: str) -> None:
    """Write the encoder of ``method`` as it is now; `load_encoder` reads it.

    Args:
        target: The ``.safetensors`` to write.
        method: Has the submodule ``encoder``.
        origin: Where the weights come from, for the header.
    """
    weights = method.get_submodule("encoder").state_dict()
    save_weights(target, weights, method="", origin=origin, architecture={})


def load_encoder(method: nn.Module, path: Path) -> None:
    """Load a weight file, or the encoder of a run's checkpoint, into ``method.encoder``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If names or shapes differ from those of the encoder.
    """
    weights = _weights_in(path)
    weights.pop(AGENTS, None)
    encoder: nn.Module = method.get_submodule("encoder")
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"checkpoint={path} does not fit the configured encoder: {error}. Choose the encoder= "
            "and the sizes it was trained with."
        ) from error
    cast("Method[Any]", method).encoder_loaded()


def load_start(method: nn.Module, path: Path) -> None:
    """Load what a run starts from: the encoder, and MAR's agents into a method that has some.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If names or shapes differ from those of the encoder, or the method has agents
            and the file has none of as many persons.
    """
    load_encoder(method, path)
    ours = dict(method.named_parameters()).get(AGENTS)
    if ours is None:
        return
    agents = _weights_in(path).get(AGENTS)
    if agents is None or agents.shape != ours.shape:
        has = "no agents" if agents is None else f"agents of {len(agents)} persons"
        raise ValueError(
            f"checkpoint={path} has {has}, the source has {len(ours)} persons: this run would "
            "start with random agents. Leave checkpoint away, then its stage makes them, or name "
            "weights of a model of this source."
        )
    ours.data.copy_(agents)


def _weights_in(path: Path) -> dict[str, Tensor]:
    """Return the encoder's weights and, where there are some, the agents."""
    import torch

    if not path.is_file():
        raise FileNotFoundError(
            f"checkpoint={path} does not exist: name a .safetensors of `crosswalk import-weights` "
            "or `export-weights`, or the .ckpt of a run."
        )
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        weights: dict[str, Tensor] = load_file(path)
        return weights
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    weights = _encoder_of(checkpoint, path)
    # of MAR itself, or the rows of the classifier that its stage trained
    for name in (AGENTS, "classifier.weight"):
        if name in checkpoint["state_dict"]:
            weights[AGENTS] = checkpoint["state_dict"][name]
            break
    return weights


def _encoder_of(checkpoint: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    weights = {
        name.removeprefix(PREFIX): tensor.contiguous()
        for name, tensor in checkpoint.get("state_dict", {}).items()
        if name.startswith(PREFIX)
    }
    if not weights:
        raise ValueError(f"{path} holds no entries {PREFIX}*; it is no checkpoint of a run.")
    return weights
