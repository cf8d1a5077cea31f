"""Weights of the official RDE code, under the names of `DualEmbedding`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from crosswalk.importers._files import state_dict_in

_BLOCK = (
    "attn.in_proj_weight",
    "attn.in_proj_bias",
    "attn.out_proj.weight",
    "attn.out_proj.bias",
    "ln_1.weight",
    "ln_1.bias",
    "mlp.c_fc.weight",
    "mlp.c_fc.bias",
    "mlp.c_proj.weight",
    "mlp.c_proj.bias",
    "ln_2.weight",
    "ln_2.bias",
)
_CLIP = (
    "positional_embedding",
    "text_projection",
    "token_embedding.weight",
    "ln_final.weight",
    "ln_final.bias",
    "visual.class_embedding",
    "visual.positional_embedding",
    "visual.proj",
    "visual.conv1.weight",
    "visual.ln_pre.weight",
    "visual.ln_pre.bias",
    "visual.ln_post.weight",
    "visual.ln_post.bias",
)
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def read_rde(path: str | Path) -> dict[str, Tensor]:
    """Return the model's state dict in a checkpoint of the official code.

    Args:
        path: ``best.pth`` or ``last.pth``, read without running code from it; or an ``.npz`` with
            one array per entry.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds something else.
    """
    return state_dict_in(Path(path), entry="model", model="RDE")


def import_rde(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the official weights as a state dict of `DualEmbedding`, in float32.

    The layers that the official model creates and never uses are left out: ``linear`` of the
    image head, and the second batch normalisation of both heads. Values stored in half precision
    are widened.

    Args:
        state: From `read_rde`; ``module.`` before the names is dropped.

    Raises:
        ValueError: If entries are missing or unknown; they are named.
    """
    state = _without_prefix(state)
    ours = _official_names(state)
    dead = {"visul_emb_layer.linear.weight", "visul_emb_layer.linear.bias"} | {
        f"{head}.mlp.bns.1.{name}"
        for head in ("visul_emb_layer", "texual_emb_layer")
        for name in _NORM
    }
    missing = sorted(ours.keys() - state.keys())
    unexpected = sorted(state.keys() - ours.keys() - dead)
    if missing or unexpected:
        raise ValueError(
            f"this is no state dict of the official RDE model: {len(missing)} entries are missing "
            f"{missing[:5]}, {len(unexpected)} are unknown {unexpected[:5]}"
        )
    return {
        name: state[official].float() if state[official].is_floating_point() else state[official]
        for official, name in ours.items()
    }


def architecture_of(
    state: dict[str, Tensor],
    *,
    image_size: tuple[int, int] | None = None,
    stride: int | None = None,
) -> dict[str, Any]:
    """Return the encoder's sizes as a state dict shows them: keys of the encoder config.

    Args:
        state: From `read_rde`.
        image_size: (height, width) in pixels. The weights only tell the number of patches; None
            means the one size three times as high as wide that has this number, as in RDE.
        stride: Distance of patches in pixels; None means the patch size.

    Returns:
        ``{"embedding_size": ..., "clip": {arguments of ClipDualEncoder}}``.

    Raises:
        ValueError: If the number of patches does not fit the image size.
    """
    state = {name.removeprefix("base_model."): row for name, row in _without_prefix(state).items()}
    vision_width, _, patch_size, _ = state["visual.conv1.weight"].shape
    context_length, text_width = state["positional_embedding"].shape
    num_patches = len(state["visual.positional_embedding"]) - 1
    stride = stride or patch_size
    if image_size is None:
        across = round((num_patches / 3) ** 0.5)
        image_size = tuple((side - 1) * stride + patch_size for side in (3 * across, across))
    rows, columns = ((side - patch_size) // stride + 1 for side in image_size)
    if rows * columns != num_patches:
        raise ValueError(
            f"the weights have {num_patches} patches, but images of {image_size} with patches of "
            f"{patch_size} every {stride} pixels have {rows * columns}. Pass the (height, width) "
            "and stride they were trained with."
        )
    return {
        "embedding_size": len(state["texual_emb_layer.linear.weight"]),
        "clip": {
            "image_size": image_size,
            "patch_size": patch_size,
            "stride": stride,
            "vision_width": vision_width,
            "vision_layers": _num_layers(state, "visual.transformer"),
            "vision_heads": vision_width // 64,
            "text_width": text_width,
            "text_layers": _num_layers(state, "transformer"),
            "text_heads": text_width // 64,
            "embed_dim": state["text_projection"].shape[1],
            "context_length": context_length,
            "vocabulary_size": len(state["token_embedding.weight"]),
            "quick_gelu": True,
        },
    }


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("module."): row for name, row in state.items()}


def _num_layers(state: dict[str, Tensor], transformer: str) -> int:
    prefix = f"{transformer}.resblocks."
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})


def _official_names(state: dict[str, Tensor]) -> dict[str, str]:
    """Return official name -> ours of every entry that is used."""
    clip = list(_CLIP)
    for transformer in ("visual.transformer", "transformer"):
        for layer in range(_num_layers(state, f"base_model.{transformer}")):
            clip += [f"{transformer}.resblocks.{layer}.{name}" for name in _BLOCK]
    names = {f"base_model.{name}": f"clip.{name}" for name in clip}
    heads = {"visul_emb_layer": "image_selection", "texual_emb_layer": "text_selection"}
    residual = {"visul_emb_layer": "fc", "texual_emb_layer": "linear"}
    for official, head in heads.items():
        layers = {residual[official]: "residual", "mlp.layers.0": "hidden", "mlp.layers.1": "out"}
        for theirs, our in layers.items():
            for part in ("weight", "bias"):
                names[f"{official}.{theirs}.{part}"] = f"{head}.token_mlp.{our}.{part}"
        for part in _NORM:
            names[f"{official}.mlp.bns.0.{part}"] = f"{head}.token_mlp.norm.{part}"
    return names
