"""Weights of IRRA's code, and of pre-training in its form, under the names of `ClipEmbedding`.

NAM (MLLM4Text-ReID), HAM and GA-DMS publish weights from which text-based person search starts:
CLIP below ``base_model.``, below a name of DataParallel, or by its own names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from crosswalk.importers._clip import BLOCK, clip_names, clip_recipe, clip_sizes, num_layers
from crosswalk.importers._files import entries_below, rename, weight_and_bias
from crosswalk.weight_files import tensors_in

PUBLISHED_DATA = "cuhk_pedes"
"""Data of the published run, whose settings no official file holds."""

_ORIGIN = "IRRA's model, or weights in its form"
_IMAGE_SIZE = (384, 128)
_POSITIONS = "visual.positional_embedding"
_CROSS = (
    *("cross_attn.in_proj_weight", "cross_attn.in_proj_bias"),
    *weight_and_bias("cross_attn.out_proj", "ln_pre_t", "ln_pre_i", "ln_post"),
    *weight_and_bias("mlm_head.dense", "mlm_head.ln", "mlm_head.fc"),
)
_CLASSIFIER = tuple(weight_and_bias("classifier"))


def read_irra(path: str | Path) -> dict[str, Tensor]:
    """Return the state dict in ``best.pth`` of the official code, or in a file of its form.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds something else.
    """
    try:
        return tensors_in(path)
    except ValueError as error:
        raise ValueError(f"{error} It is no checkpoint of IRRA or of its form.") from error


def import_irra(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights as a state dict of `ClipEmbedding`, at least in float32.

    Beside them are the cross-modal modules (``mlm.``) and the classifier (``classifier.``) where
    the file has them whole. Positions of square images, as in CLIP's own files, are interpolated
    to those of 384x128 pixels.

    Args:
        state: From `read_irra`.

    Raises:
        ValueError: If entries of CLIP are missing; they are named.
    """
    clip, rest = _parts(state)
    clip = clip | {_POSITIONS: _upright(clip)} if _POSITIONS in clip else clip
    names = {name: f"clip.{name}" for name in clip_names(clip)}
    names |= {name: f"mlm.{name}" for name in _cross_names(rest)}
    names |= {name: name for name in _CLASSIFIER if set(_CLASSIFIER) <= rest.keys()}
    wanted = {name: row for name, row in (clip | rest).items() if name in names}
    return rename(wanted, names, (), _ORIGIN)


def architecture_of(
    state: dict[str, Tensor],
    *,
    image_size: tuple[int, int] | None = None,
    stride: int | None = None,
) -> dict[str, Any]:
    """Return the encoder's sizes as a state dict shows them, and what else is in it.

    Args:
        state: From `read_irra`.
        image_size: (height, width) in pixels; None means the one size three times as high as wide
            that has the weights' number of patches.
        stride: Distance of patches in pixels; None means the patch size.

    Returns:
        ``{"clip": {arguments of ClipDualEncoder}, "cross_modal": sizes or None, "classifier":
        number of identities or None, "left_out": names that are no part of IRRA}``.

    Raises:
        ValueError: If the number of patches does not fit the image size.
    """
    clip, rest = _parts(state)
    cross = _cross_names(rest)
    known = {*cross, *_CLASSIFIER, *clip_names(clip)}
    sizes = {
        "depth": num_layers(rest, "cross_modal_transformer"),
        "vocabulary_size": len(rest["mlm_head.fc.weight"]) if cross else 0,
    }
    resized = clip | {_POSITIONS: _upright(clip)}
    return {
        "clip": clip_sizes(resized, image_size=image_size, stride=stride),
        "cross_modal": sizes if cross else None,
        "classifier": len(rest["classifier.weight"]) if "classifier.weight" in rest else None,
        "left_out": sorted(name for name in clip | rest if name not in known),
    }


def recipe_of(architecture: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of the published configuration that an architecture changes."""
    return clip_recipe(architecture["clip"])


def _parts(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the entries of CLIP by its own names, and the others."""
    prefix = "base_model."
    if any(name.startswith(prefix) for name in state):
        others = {name: row for name, row in state.items() if not name.startswith(prefix)}
        return entries_below(prefix, state), others
    return dict(state), {}


def _cross_names(rest: dict[str, Tensor]) -> list[str]:
    """Return the names of the cross-modal modules; none where one of them is missing."""
    blocks = "cross_modal_transformer"
    names = [*_CROSS]
    for layer in range(num_layers(rest, blocks)):
        names += [f"{blocks}.resblocks.{layer}.{name}" for name in BLOCK]
    return names if len(names) > len(_CROSS) and set(names) <= rest.keys() else []


def _upright(clip: dict[str, Tensor]) -> Tensor:
    """Return the image positions, those of a square grid as they are of upright images."""
    rows = clip[_POSITIONS]
    side = round((len(rows) - 1) ** 0.5)
    if side * side != len(rows) - 1 or "visual.conv1.weight" not in clip:
        return rows
    patch = clip["visual.conv1.weight"].shape[-1]
    grid = [pixels // patch for pixels in _IMAGE_SIZE]
    wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
    square = wide[1:].T.reshape(1, -1, side, side)
    upright = F.interpolate(square, size=grid, mode="bilinear", align_corners=False)
    return torch.cat([wide[:1], upright[0].flatten(1).T])
