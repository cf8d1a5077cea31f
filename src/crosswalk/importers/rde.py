"""Weights of the official RDE code, under the names of `DualEmbedding`."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from crosswalk.importers._files import norm_names, rename, state_dict_in, weight_and_bias

PUBLISHED_DATA = "cuhk_pedes"
"""Data of the published run, whose settings no official file holds."""

_ORIGIN = "the official RDE model"
_CLIP = (
    *("positional_embedding", "text_projection", "token_embedding.weight"),
    *("visual.class_embedding", "visual.positional_embedding", "visual.proj"),
    *("visual.conv1.weight", *weight_and_bias("ln_final", "visual.ln_pre", "visual.ln_post")),
)
_BLOCK = (
    *("attn.in_proj_weight", "attn.in_proj_bias"),
    *weight_and_bias("attn.out_proj", "ln_1", "mlp.c_fc", "mlp.c_proj", "ln_2"),
)
_CLIP_NAMES = {
    (16, 768, 12): "ViT-B-16-quickgelu",
    (32, 768, 12): "ViT-B-32-quickgelu",
    (14, 1024, 24): "ViT-L-14-quickgelu",
}
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
            f"{patch_size} every {stride} pixels have {rows * columns}. Say the height, width "
            "and stride they were trained with: `crosswalk import-weights` takes --image-size HxW "
            "and --stride."
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


def recipe_of(architecture: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of the published configuration that an architecture changes."""
    clip = dict(architecture["clip"])
    own = tuple(clip[name] for name in ("patch_size", "vision_width", "vision_layers"))
    node = {"_target_": "crosswalk.encoders.clip.ClipDualEncoder", **clip}
    if own in _CLIP_NAMES:
        given = {name: clip[name] for name in ("image_size", "context_length")}
        stride = None if clip["stride"] == clip["patch_size"] else clip["stride"]
        target = "crosswalk.encoders.clip.open_clip_vit"
        node = {"_target_": target, "name": _CLIP_NAMES[own], **given, "stride": stride}
    return {
        "encoder.clip": node,
        "encoder.embedding_size": architecture["embedding_size"],
        "data.image_size": clip["image_size"],
        "data.context_length": clip["context_length"],
    }


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
        theirs = [*weight_and_bias(*layers), *norm_names("mlp.bns.0")]
        own = [*weight_and_bias(*layers.values()), *norm_names("norm")]
        for one, other in zip(theirs, own, strict=True):
            names[f"{official}.{one}"] = f"{head}.token_mlp.{other}"
    return names
