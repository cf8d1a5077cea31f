"""Weights of the official CM-MoCo code, under the names of `TwoStream`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from crosswalk.importers._files import (
    entries_below,
    norm_names,
    rename,
    state_dict_in,
    weight_and_bias,
)
from crosswalk.importers._resnet import names_of, node_of, published_name, sizes_of

PUBLISHED_DATA = "cuhk_pedes"
"""Data of the published run, whose settings no official file holds."""

_ORIGIN = "the official CM-MoCo model"
# The first that is there is read. The code after its first commit saves a contrastive model's
# encoders twice; its first commit, and a model without queues, under one of the names.
_PARTS = {
    "image": ("embed_model.v_encoder_q", "visual_model"),
    "text": ("embed_model.t_encoder_q", "textual_model"),
    "image_head": ("embed_model.v_embed_layer", "embed_model.visual_embed_layer"),
    "text_head": ("embed_model.t_embed_layer", "embed_model.textual_embed_layer"),
}
_LEFT_OUT = (
    *("embed_model.v_encoder_k.", "embed_model.t_encoder_k."),
    *("embed_model.v_fc_q.", "embed_model.v_fc_k.", "embed_model.t_fc_q.", "embed_model.t_fc_k."),
    *("embed_model.v_queue", "embed_model.t_queue", "embed_model.id_queue"),
    *("embed_model.queue_ptr", "embed_model.loss_evaluator."),
)
_VECTORS = "crosswalk.encoders.word_vectors"
_MISSING = "crosswalk.encoders.word_table.missing_word_table"
_POSITIONS = "attnpool.positional_embedding"
_SAY_SIZE = "Say height and width: `crosswalk import-weights` takes --image-size HxW."
_CLIP_NAMES = {
    ((3, 4, 6, 3), 64, 1024): "RN50",
    ((3, 4, 23, 3), 64, 512): "RN101",
    ((4, 6, 10, 6), 80, 640): "RN50x4",
    ((6, 8, 18, 8), 96, 768): "RN50x16",
    ((3, 15, 36, 10), 128, 1024): "RN50x64",
}


read_cm_moco = partial(state_dict_in, entry="model", model="CM-MoCo")
"""Returns the model's state dict in ``best.pth`` or ``epoch_80.pth`` of the official code."""


def import_cm_moco(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the official weights as a state dict of `TwoStream`, at least in float32.

    Key encoders, queues, the classifier and the MLPs of the ablation with ``FC`` serve training
    alone and are left out. The table of word vectors is in no official checkpoint: the encoder
    keeps the one it was built with, which has to be that of the official word numbers.

    Args:
        state: From `read_cm_moco`, of the contrastive model or the one without queues, of the
            first commit or a later one.

    Raises:
        ValueError: If entries are missing or unknown, or two copies of one differ; they are named.
    """
    chosen = _chosen(state)
    _check_copies(state, chosen)
    names: dict[str, str] = {}
    for part, own in _names(state, chosen).items():
        names |= {f"{chosen[part]}.{theirs}": f"{part}.{ours}" for theirs, ours in own.items()}
    copies = [prefix for part, prefix in _present(state) if prefix != chosen[part]]
    # an ImageNet network keeps its classifier, which nothing uses
    ignored = (*_LEFT_OUT, *(f"{copy}." for copy in copies), f"{chosen['image']}.fc.")
    return rename(state, names, ignored, _ORIGIN)


def architecture_of(
    state: dict[str, Tensor], *, image_size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Return the encoder as a state dict shows it: keys of the encoder config.

    Args:
        state: From `read_cm_moco`.
        image_size: (height, width) in pixels. The weights of CLIP's ResNets only tell the number
            of positions; None means images three times as high as wide with ``last_stride`` 1 as
            published, or square ones with ``last_stride`` 2 as CLIP's; both are None where the
            number fits neither.

    Returns:
        ``{"embedding_size": ..., "image": {...}, "text": {...}, "left_out": [...]}``: of the image
        stream its ``kind`` ("clip_resnet" or "resnet"), ``name`` (None where it has none),
        ``layers`` and other sizes; of the text stream the kind of its ``vectors`` ("table",
        "projected" or "learned"), their ``size``, the GRU's ``hidden_size`` and, where they are
        learned, the number of words; and the parts of the file that are not imported.

    Raises:
        ValueError: If the number of positions does not fit the image size.
    """
    chosen = _chosen(state)
    heads = entries_below(f"{chosen['image_head']}.", state)
    image, text = (entries_below(f"{chosen[part]}.", state) for part in ("image", "text"))
    ignored = (*_LEFT_OUT, f"{chosen['image']}.fc.")
    left_out = {".".join(name.split(".")[:2]) for name in state if name.startswith(ignored)}
    return {
        "embedding_size": len(heads["weight"]),
        "image": _clip_sizes(image, image_size) if _POSITIONS in image else _resnet_sizes(image),
        "text": _text_sizes(text),
        "left_out": sorted(left_out),
    }


def recipe_of(architecture: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of the published configuration that an architecture changes.

    The table of word vectors, which no official file holds, has to be added to the weights.

    Raises:
        ValueError: If the size of the images is not known.
    """
    image, text = dict(architecture["image"]), architecture["text"]
    size = image.get("image_size")
    recipe: dict[str, Any] = {} if size is None else {"data.image_size": size}
    if image.pop("kind") == "resnet":
        node = node_of(image)
    elif size is None:
        raise ValueError(
            "the positions of the image stream are those of no image three times as high as wide, "
            f"and of no square one. {_SAY_SIZE}"
        )
    elif image["name"] is None:
        node = {"_target_": "crosswalk.encoders.clip_resnet.ClipResNet", **image}
        del node["name"]
    else:
        given = {name: image[name] for name in ("name", "image_size", "last_stride")}
        node = {"_target_": "crosswalk.encoders.clip_resnet.clip_resnet", **given}
    table = {"_target_": _MISSING, "_partial_": True, "size": text.get("table_size", text["size"])}
    kinds: dict[str, dict[str, Any]] = {
        "table": {"_target_": f"{_VECTORS}.WordTable", "table": table},
        "projected": {
            "_target_": f"{_VECTORS}.ProjectedWords",
            "table": table,
            "size": text["size"],
        },
        "learned": {
            "_target_": f"{_VECTORS}.LearnedWords",
            "size": text["size"],
            "num_words": text.get("num_words"),
        },
    }
    return {
        **recipe,
        "encoder.image": node,
        "encoder.embedding_size": architecture["embedding_size"],
        "encoder.text.hidden_size": text["hidden_size"],
        "encoder.text.vectors": {**kinds[text["vectors"]], "_partial_": True},
    }


def _present(state: dict[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Yield part and official prefix of all that the file holds, the one to read first."""
    for part, prefixes in _PARTS.items():
        for prefix in prefixes:
            if any(name.startswith(f"{prefix}.") for name in state):
                yield part, prefix


def _chosen(state: dict[str, Tensor]) -> dict[str, str]:
    """Return the official prefix of each part."""
    chosen: dict[str, str] = {}
    for part, prefix in _present(state):
        chosen.setdefault(part, prefix)
    missing = [_PARTS[part][0] for part in _PARTS if part not in chosen]
    if missing:
        raise ValueError(
            f"this is no state dict of {_ORIGIN}: it has no entries {', '.join(missing)}"
        )
    return chosen


def _check_copies(state: dict[str, Tensor], chosen: dict[str, str]) -> None:
    """Raise a ValueError if a part is stored twice, and not the same both times."""
    for part, prefix in _present(state):
        if prefix == chosen[part]:
            continue
        first, second = entries_below(f"{chosen[part]}.", state), entries_below(f"{prefix}.", state)
        differing = sorted(
            name
            for name in first.keys() | second.keys()
            if name not in first or name not in second or not torch.equal(first[name], second[name])
        )
        if differing:
            raise ValueError(
                f"{chosen[part]} and {prefix} should hold the same weights, but {len(differing)} "
                f"entries differ {differing[:5]}. Save the ones you want alone with torch.save."
            )


def _names(state: dict[str, Tensor], chosen: dict[str, str]) -> dict[str, dict[str, str]]:
    """Return official name -> ours, below each part's prefix."""
    image, text = (entries_below(f"{chosen[part]}.", state) for part in ("image", "text"))
    head = {name: name for name in ("weight", "bias")}
    words = {}
    if "embed.weight" in text:
        if "embed.bias" in text:
            words = {f"embed.{name}": f"vectors.projection.{name}" for name in head}
        else:
            words = {"embed.weight": "vectors.embedding.weight"}
    gru = [
        f"gru.weight_{gates}_l0{direction}"
        for direction in ("", "_reverse")
        for gates in ("ih", "hh")
    ]
    return {
        "image": {name: name for name in _image_names(image)},
        "text": words | {name: name for name in gru},
        "image_head": head,
        "text_head": head,
    }


def _image_names(image: dict[str, Tensor]) -> Iterator[str]:
    sizes = sizes_of(image, _ORIGIN)
    if _POSITIONS not in image:
        yield from names_of(sizes)
        return
    # CLIP's: two more convolutions, and the widths of a bottleneck that always needs a projection
    for number in (2, 3):
        yield f"conv{number}.weight"
        yield from norm_names(f"bn{number}")
    yield from names_of(sizes)
    yield _POSITIONS
    yield from weight_and_bias(*(f"attnpool.{side}_proj" for side in "kqvc"))


def _clip_sizes(image: dict[str, Tensor], image_size: tuple[int, int] | None) -> dict[str, Any]:
    sizes = sizes_of(image, _ORIGIN)
    width, output_dim = 2 * sizes["stem_width"], len(image["attnpool.c_proj.weight"])
    size, stride = _image_size(len(image[_POSITIONS]) - 1, image_size)
    return {
        "kind": "clip_resnet",
        "name": _CLIP_NAMES.get((sizes["layers"], width, output_dim)),
        "layers": sizes["layers"],
        "width": width,
        "output_dim": output_dim,
        "heads": 32 * width // 64,
        "image_size": size,
        "last_stride": stride,
    }


def _image_size(
    num_positions: int, image_size: tuple[int, int] | None
) -> tuple[tuple[int, int] | None, int | None]:
    """Return the image size and last stride that give this number of positions."""
    if image_size is not None:
        for stride in (1, 2):
            rows, columns = ((pixels + 1) // 16 // stride for pixels in image_size)
            if rows * columns == num_positions:
                return image_size, stride
        raise ValueError(
            f"the weights have {num_positions} positions, which images of {image_size} have "
            f"neither with last_stride 1 nor 2. {_SAY_SIZE}"
        )
    across, side = math.isqrt(num_positions // 3), math.isqrt(num_positions)
    if 3 * across**2 == num_positions:
        return (48 * across, 16 * across), 1
    if side**2 == num_positions:
        return (32 * side, 32 * side), 2
    return None, None


def _resnet_sizes(image: dict[str, Tensor]) -> dict[str, Any]:
    sizes = sizes_of(image, _ORIGIN)
    return {"kind": "resnet", "name": published_name(sizes), **sizes, "last_stride": 1}


def _text_sizes(text: dict[str, Tensor]) -> dict[str, Any]:
    gates, size = text["gru.weight_ih_l0"].shape
    sizes: dict[str, Any] = {"vectors": "table", "size": size, "hidden_size": gates // 3}
    if "embed.bias" in text:
        sizes |= {"vectors": "projected", "table_size": text["embed.weight"].shape[1]}
    elif "embed.weight" in text:
        sizes |= {"vectors": "learned", "num_words": len(text["embed.weight"])}
    return sizes
