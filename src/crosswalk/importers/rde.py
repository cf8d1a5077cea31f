"""Weights of the official RDE code, under the names of `DualEmbedding`."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from crosswalk.importers._clip import clip_names, clip_recipe, clip_sizes
from crosswalk.importers._files import (
    entries_below,
    norm_names,
    rename,
    state_dict_in,
    weight_and_bias,
)

PUBLISHED_DATA = "cuhk_pedes"
"""Data of the published run, whose settings no official file holds."""

_ORIGIN = "the official RDE model"
_UNUSED = ("visul_emb_layer.linear.", "visul_emb_layer.mlp.bns.1.", "texual_emb_layer.mlp.bns.1.")


read_rde = partial(state_dict_in, entry="model", model="RDE")
"""Returns the model's state dict in ``best.pth`` or ``last.pth`` of the official code."""


def import_rde(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the official weights as a state dict of `DualEmbedding`, at least in float32.

    The layers that the official model creates and never uses are left out: ``linear`` of the
    image head, and the second batch normalisation of both heads. Values stored in half precision
    are widened.

    Args:
        state: From `read_rde`.

    Raises:
        ValueError: If entries are missing or unknown; they are named.
    """
    return rename(state, _official_names(state), _UNUSED, _ORIGIN)


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
    state = {name.removeprefix("base_model."): row for name, row in state.items()}
    return {
        "embedding_size": len(state["texual_emb_layer.linear.weight"]),
        "clip": clip_sizes(state, image_size=image_size, stride=stride),
    }


def recipe_of(architecture: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of the published configuration that an architecture changes."""
    return {
        **clip_recipe(architecture["clip"]),
        "encoder.embedding_size": architecture["embedding_size"],
    }


def _official_names(state: dict[str, Tensor]) -> dict[str, str]:
    """Return official name -> ours of every entry that is used."""
    clip = clip_names(entries_below("base_model.", state))
    names = {f"base_model.{name}": f"clip.{name}" for name in clip}
    heads = {"visul_emb_layer": "image_selection", "texual_emb_layer": "text_selection"}
    residual = {"visul_emb_layer": "fc", "texual_emb_layer": "linear"}
    for official, head in heads.items():
        layers = {residual[official]: "residual", "mlp.layers.0": "hidden", "mlp.layers.1": "out"}
        theirs = [*weight_and_bias(*layers), *norm_names("mlp.bns.0")]
        own = [*weight_and_bias(*layers.values()), *norm_names("norm")]
        for one, other in zip(theirs, own, strict=True):
            names[f"{official}.{one}"] = f"{head}.token_mlp.{other}"
    return names
