"""Weights of the official CLIP-ReID code, under the names of `ClipLayers`, and its texts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from crosswalk.importers._files import (
    entries_below,
    norm_names,
    rename,
    state_dict_in,
    weight_and_bias,
)
from crosswalk.importers._resnet import names_of, sizes_of

PUBLISHED_DATA = "market1501"
"""Data of the published run, whose settings no official file holds."""

TEXTS = "texts.rows"
"""Name of the people's text features ``[persons, P]`` beside the encoder's entries."""

_ORIGIN = "the official CLIP-ReID model"
_IMAGE, _TEXT, _PROMPTS = "image_encoder.", "text_encoder.", "prompt_learner."
_CAMERAS = "cv_embed"
_BEHIND = 3  # tokens behind the learned words that count: "person", "." and the end token
_BLOCK = (
    *("attn.in_proj_weight", "attn.in_proj_bias"),
    *weight_and_bias("attn.out_proj", "ln_1", "mlp.c_fc", "mlp.c_proj", "ln_2"),
)
_NAMES = {
    (16, 768, 12): "ViT-B-16-quickgelu",
    (32, 768, 12): "ViT-B-32-quickgelu",
    (14, 1024, 24): "ViT-L-14-quickgelu",
}
_LAYERS = "crosswalk.encoders.clip_layers"


read_clip_reid = partial(state_dict_in, entry="state_dict", model="CLIP-ReID")
"""Returns the state dict in a file of the official code, of its first or its second training."""


def import_clip_reid(
    state: dict[str, Tensor], *, text_heads: int | None = None
) -> dict[str, Tensor]:
    """Return the official weights as a state dict of `ClipLayers`, and the texts beside them.

    The classifiers are left out. Of prompts and text encoder, which baselines have not, the
    features of all people's sentences are made: all that a training needs of them.

    Args:
        state: From `read_clip_reid`.
        text_heads: Attention heads of the text encoder; None means channels / 64.

    Raises:
        ValueError: If entries are missing or unknown; they are named.
    """
    image = entries_below(_IMAGE, state)
    names = {f"{_IMAGE}{name}": f"visual.{name}" for name in _image_names(image)}
    for theirs, ours in (("bottleneck", "last_neck"), ("bottleneck_proj", "projected_neck")):
        names |= dict(zip(norm_names(theirs), norm_names(ours), strict=True))
    if _CAMERAS in state:
        names[_CAMERAS] = "cameras.weight"
    weights = rename(state, names, ("classifier", _PROMPTS, _TEXT), _ORIGIN)
    if _CAMERAS in state:  # cameras count from 1 here; row 0 is of those that nobody tells
        weights["cameras.weight"] = F.pad(weights["cameras.weight"], (0, 0, 1, 0))
    if any(name.startswith(_PROMPTS) for name in state):
        weights[TEXTS] = sentence_features(state, heads=text_heads)
    return weights


def sentence_features(state: dict[str, Tensor], *, heads: int | None = None) -> Tensor:
    """Return the ``[persons, P]`` features of the learned sentences, in float32 or better.

    Args:
        state: From `read_clip_reid`.
        heads: Attention heads of the text encoder; None means channels / 64.

    Raises:
        ValueError: If entries are missing; they are named.
    """
    layers = _num_layers(entries_below(_TEXT, state))
    parts = {f"{_PROMPTS}{name}" for name in ("cls_ctx", "token_prefix", "token_suffix")}
    parts |= {f"{_TEXT}{name}" for name in ("positional_embedding", "text_projection")}
    parts |= {f"{_TEXT}{name}" for name in weight_and_bias("ln_final")}
    parts |= {f"{_TEXT}transformer.resblocks.{i}.{n}" for i in range(layers) for n in _BLOCK}
    own = {name: row for name, row in state.items() if name.startswith((_PROMPTS, _TEXT))}
    own = rename(own, {name: name for name in parts}, (), _ORIGIN)
    context = own[f"{_PROMPTS}cls_ctx"]
    around = (own[f"{_PROMPTS}token_{side}"] for side in ("prefix", "suffix"))
    prefix, suffix = (rows.expand(len(context), -1, -1) for rows in around)
    text = entries_below(_TEXT, own)
    end = prefix.shape[1] + context.shape[1] + _BEHIND
    hidden = torch.cat([prefix, context, suffix], dim=1)[:, :end]
    hidden = hidden + text["positional_embedding"][:end]
    for layer in range(layers):
        block = entries_below(f"transformer.resblocks.{layer}.", text)
        hidden = _block(hidden, block, heads or hidden.shape[2] // 64)
    last = F.layer_norm(
        hidden[:, -1], hidden.shape[2:], text["ln_final.weight"], text["ln_final.bias"]
    )
    features: Tensor = last @ text["text_projection"]
    return features


def _block(hidden: Tensor, block: dict[str, Tensor], heads: int) -> Tensor:
    """Return what leaves a block of CLIP's text transformer."""

    def normed(rows: Tensor, name: str) -> Tensor:
        return F.layer_norm(rows, rows.shape[2:], block[f"{name}.weight"], block[f"{name}.bias"])

    def linear(rows: Tensor, name: str) -> Tensor:
        return F.linear(rows, block[f"{name}.weight"], block[f"{name}.bias"])

    packed = F.linear(
        normed(hidden, "ln_1"), block["attn.in_proj_weight"], block["attn.in_proj_bias"]
    )
    query, key, value = packed.view(*packed.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    hidden = hidden + linear(mixed.transpose(1, 2).flatten(2), "attn.out_proj")
    inner = linear(normed(hidden, "ln_2"), "mlp.c_fc")
    return hidden + linear(inner * torch.sigmoid(1.702 * inner), "mlp.c_proj")


def architecture_of(
    state: dict[str, Tensor],
    *,
    image_size: tuple[int, int] | None = None,
    stride: int | None = None,
) -> dict[str, Any]:
    """Return the encoder's sizes as a state dict shows them.

    Args:
        state: From `read_clip_reid`.
        image_size: (height, width) in pixels; None means 256 x 128, as published.
        stride: Distance of patches in pixels; None means the published one that fits: the patch
            size, or 12.

    Returns:
        ``{"kind": "vit" or "resnet", "name": in open_clip or None, ...}`` and arguments of
        `ClipDualEncoder` or `ClipResNet`; ``num_cameras`` of the former.

    Raises:
        ValueError: If the number of positions does not fit the image size.
    """
    image = entries_below(_IMAGE, state)
    height, width = size = image_size or (256, 128)
    if "attnpool.positional_embedding" in image:
        sizes = sizes_of(image, _ORIGIN)
        given = {"layers": sizes["layers"], "width": 2 * sizes["stem_width"]}
        output_dim = len(image["attnpool.c_proj.weight"])
        is_rn50 = given["width"] == 64 and output_dim == 1024 and given["layers"] == (3, 4, 6, 3)
        return {
            "kind": "resnet",
            "name": "RN50" if is_rn50 else None,
            **given,
            "output_dim": output_dim,
            "heads": max(1, 32 * given["width"] // 64),
            "image_size": size,
        }
    vision_width, _, patch, _ = image["conv1.weight"].shape
    patches = len(image["positional_embedding"]) - 1
    strides = [stride] if stride else [patch, 12]
    fitting = [
        each
        for each in strides
        if ((height - patch) // each + 1) * ((width - patch) // each + 1) == patches
    ]
    if not fitting:
        raise ValueError(
            f"the weights have {patches} patches, and images of {height}x{width} with patches of "
            f"{patch} every {' or '.join(map(str, strides))} pixels have other numbers. Say what "
            "they were trained with: `crosswalk import-weights` takes --image-size HxW and "
            "--stride."
        )
    layers = _num_layers(image)
    return {
        "kind": "vit",
        "name": _NAMES.get((patch, vision_width, layers)),
        "image_size": size,
        "patch_size": patch,
        "stride": fitting[0],
        "vision_width": vision_width,
        "vision_layers": layers,
        "vision_heads": max(1, vision_width // 64),
        "embed_dim": image["proj"].shape[1],
        "num_cameras": len(state[_CAMERAS]) if _CAMERAS in state else 0,
    }


def recipe_of(architecture: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of the published configuration that an architecture changes."""
    sizes = dict(architecture)
    kind, name, size = sizes.pop("kind"), sizes.pop("name"), sizes["image_size"]
    if kind == "resnet":
        image = {"_target_": "crosswalk.encoders.clip_resnet.ClipResNet", **sizes}
        if name is not None:
            target = "crosswalk.encoders.clip_resnet.clip_resnet"
            image = {"_target_": target, "name": name, "image_size": size}
        return {
            "choices.encoder": "clip_layers_rn50",
            "encoder": {"_target_": f"{_LAYERS}.ResNetLayers", "image": image},
            "data.image_size": size,
            "data.transform.mean": (0.485, 0.456, 0.406),  # CLIP-ReID, released code
            "data.transform.std": (0.229, 0.224, 0.225),
        }
    cameras = sizes.pop("num_cameras")
    # of the text side, which is left out, any sizes will do
    text = {"text_width": 1, "text_layers": 1, "text_heads": 1}
    text |= {"context_length": 1, "vocabulary_size": 1}
    clip = {"_target_": "crosswalk.encoders.clip.ClipDualEncoder", **sizes, **text}
    if name is not None:
        stride = None if sizes["stride"] == sizes["patch_size"] else sizes["stride"]
        target = "crosswalk.encoders.clip.open_clip_vit"
        clip = {"_target_": target, "name": name, "image_size": size, "stride": stride}
    return {"encoder.clip": clip, "encoder.num_cameras": cameras, "data.image_size": size}


def _num_layers(state: dict[str, Tensor]) -> int:
    prefix = "transformer.resblocks."
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})


def _image_names(image: dict[str, Tensor]) -> Iterator[str]:
    if "attnpool.positional_embedding" in image:
        for number in (2, 3):  # of the stem, beside a ResNet's one
            yield f"conv{number}.weight"
            yield from norm_names(f"bn{number}")
        yield from names_of(sizes_of(image, _ORIGIN))
        yield "attnpool.positional_embedding"
        yield from weight_and_bias(*(f"attnpool.{side}_proj" for side in "kqvc"))
        return
    yield from ("class_embedding", "positional_embedding", "proj", "conv1.weight")
    yield from weight_and_bias("ln_pre", "ln_post")
    for layer in range(_num_layers(image)):
        yield from (f"transformer.resblocks.{layer}.{name}" for name in _BLOCK)
