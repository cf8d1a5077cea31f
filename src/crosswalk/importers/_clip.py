"""CLIP with a vision transformer, as files of other methods hold it: names and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from crosswalk.importers._files import weight_and_bias

_CLIP = (
    *("positional_embedding", "text_projection", "token_embedding.weight"),
    *("visual.class_embedding", "visual.positional_embedding", "visual.proj"),
    *("visual.conv1.weight", *weight_and_bias("ln_final", "visual.ln_pre", "visual.ln_post")),
)
BLOCK = (
    *("attn.in_proj_weight", "attn.in_proj_bias"),
    *weight_and_bias("attn.out_proj", "ln_1", "mlp.c_fc", "mlp.c_proj", "ln_2"),
)
"""Entries of one block of a transformer."""
_MODELS = {
    (16, 768, 12): "ViT-B-16-quickgelu",
    (32, 768, 12): "ViT-B-32-quickgelu",
    (14, 1024, 24): "ViT-L-14-quickgelu",
}


def num_layers(state: Mapping[str, Tensor], transformer: str) -> int:
    """Return how many blocks the transformer of this name has.

    Example:
        >>> num_layers({"transformer.resblocks.1.ln_1.bias": None}, "transformer")
        1
    """
    prefix = f"{transformer}.resblocks."
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})


def clip_names(state: Mapping[str, Tensor]) -> list[str]:
    """Return the names of a CLIP with as many blocks as ``state`` has, by OpenAI's names."""
    names = list(_CLIP)
    for transformer in ("visual.transformer", "transformer"):
        for layer in range(num_layers(state, transformer)):
            names += [f"{transformer}.resblocks.{layer}.{name}" for name in BLOCK]
    return names


def clip_sizes(
    state: Mapping[str, Tensor], *, image_size: tuple[int, int] | None, stride: int | None
) -> dict[str, Any]:
    """Return the arguments of `ClipDualEncoder` that a state dict shows.

    Args:
        state: By OpenAI's names.
        image_size: (height, width) in pixels. The weights only tell the number of patches; None
            means the one size three times as high as wide that has this number.
        stride: Distance of patches in pixels; None means the patch size.

    Raises:
        ValueError: If the number of patches does not fit the image size.
    """
    vision_width, _, patch_size, _ = state["visual.conv1.weight"].shape
    context_length, text_width = state["positional_embedding"].shape
    num_patches = len(state["visual.positional_embedding"]) - 1
    stride = stride or patch_size
    if image_size is None:
        across = round((num_patches / 3) ** 0.5)
        height, width = ((side - 1) * stride + patch_size for side in (3 * across, across))
        image_size = (height, width)
    rows, columns = ((side - patch_size) // stride + 1 for side in image_size)
    if rows * columns != num_patches:
        raise ValueError(
            f"the weights have {num_patches} patches, but images of {image_size} with patches of "
            f"{patch_size} every {stride} pixels have {rows * columns}. Say the height, width "
            "and stride they were trained with: `crosswalk import-weights` takes --image-size HxW "
            "and --stride."
        )
    return {
        "image_size": image_size,
        "patch_size": patch_size,
        "stride": stride,
        "vision_width": vision_width,
        "vision_layers": num_layers(state, "visual.transformer"),
        "vision_heads": vision_width // 64,
        "text_width": text_width,
        "text_layers": num_layers(state, "transformer"),
        "text_heads": text_width // 64,
        "embed_dim": state["text_projection"].shape[1],
        "context_length": context_length,
        "vocabulary_size": len(state["token_embedding.weight"]),
        "quick_gelu": True,
    }


def clip_recipe(clip: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a configuration that have to be those of a CLIP of these sizes."""
    own = tuple(clip[name] for name in ("patch_size", "vision_width", "vision_layers"))
    node = {"_target_": "crosswalk.encoders.clip.ClipDualEncoder", **clip}
    if own in _MODELS:
        given = {name: clip[name] for name in ("image_size", "context_length")}
        stride = None if clip["stride"] == clip["patch_size"] else clip["stride"]
        target = "crosswalk.encoders.clip.open_clip_vit"
        node = {"_target_": target, "name": _MODELS[own], **given, "stride": stride}
    return {
        "encoder.clip": node,
        "data.image_size": clip["image_size"],
        "data.context_length": clip["context_length"],
    }
