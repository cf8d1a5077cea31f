"""Weights of the official CMMT code, under the names of `TwoStream`."""

from __future__ import annotations

from functools import partial
from typing import Any

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

_ORIGIN = "the official CMMT model"
_IMAGE, _WORDS, _LSTM = "image_model.", "bilstm.embed.weight", "bilstm.bilstm.0."
_UNUSED = (f"{_IMAGE}fc.",)


read_cmmt = partial(state_dict_in, entry="network", model="CMMT")
"""Returns the model's state dict in ``<epoch>.pth.tar`` of the official code."""


def import_cmmt(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the official weights as a state dict of `TwoStream`, at least in float32.

    Its streams are a ResNet and a `BiLstm` on `LearnedWords`, its heads `normed_projection` for
    images and `normed` for captions. The 1x1 convolutions become linear layers. The classifier
    ``fc`` of ImageNet, which the released code never uses, is left out.

    Args:
        state: From `read_cmmt`.

    Raises:
        ValueError: If entries are missing or unknown; they are named.
    """
    weights = rename(state, _official_names(state), _UNUSED, _ORIGIN)
    for name in ("image_head.linear.weight", "text.projection.weight"):
        weights[name] = weights[name].flatten(1)
    return weights


def architecture_of(state: dict[str, Tensor]) -> dict[str, Any]:
    """Return the encoder as a state dict shows it: keys of the encoder config.

    The stride of the last stage leaves no trace in weights; it is 2 in CMMT.

    Args:
        state: From `read_cmmt`.

    Returns:
        ``{"embedding_size": ..., "image": {"name": of the ResNet or None, arguments of ResNet},
        "text": {arguments of BiLstm}, "vectors": {arguments of LearnedWords}}``; ``image`` is None
        where the state dict has no image stream.

    Raises:
        ValueError: If the caption encoder is missing.
    """
    recurrent, vectors = state.get(f"{_LSTM}weight_hh_l0"), state.get(_WORDS)
    projection = state.get("conv_text.weight")
    if recurrent is None or vectors is None or projection is None:
        raise ValueError(f"this is no state dict of {_ORIGIN}: bilstm or conv_text are missing")
    image = None
    if sizes := _image_sizes(state):
        image = {"name": published_name(sizes), **sizes, "last_stride": 2, "last_relu": True}
    return {
        "embedding_size": len(projection),
        "image": image,
        "text": {
            "hidden_size": recurrent.shape[1],
            "num_layers": len(_forward_layers(state)),
            "output_size": len(projection),
        },
        "vectors": {"num_words": len(vectors), "size": vectors.shape[1]},
    }


def recipe_of(architecture: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of the published configuration that an architecture changes.

    Raises:
        ValueError: If it has no image stream.
    """
    if architecture["image"] is None:
        raise ValueError(f"this is no state dict of {_ORIGIN} with an image stream")
    text = {f"encoder.text.{name}": value for name, value in architecture["text"].items()}
    vectors = {f"encoder.text.vectors.{n}": value for n, value in architecture["vectors"].items()}
    return {
        "encoder.image": node_of(architecture["image"]),
        "encoder.embedding_size": architecture["embedding_size"],
        "data.tokenizer.padding": "first_word",  # as in the distributed words
        **text,
        **vectors,
    }


def _official_names(state: dict[str, Tensor]) -> dict[str, str]:
    """Return official name -> ours of every entry that is used."""
    names: dict[str, str] = {}
    if sizes := _image_sizes(state):
        names |= {f"{_IMAGE}{name}": f"image.{name}" for name in names_of(sizes)}
    names[_WORDS] = "text.vectors.embedding.weight"
    for layer in range(max(1, len(_forward_layers(state)))):
        for direction in ("", "_reverse"):
            for part in ("ih", "hh"):
                weight = f"weight_{part}_l{layer}{direction}"
                names[f"{_LSTM}{weight}"] = f"text.lstm.{weight}"
    for official, ours in (("conv_images", "image_head.linear"), ("conv_text", "text.projection")):
        names |= dict(zip(weight_and_bias(official), weight_and_bias(ours), strict=True))
    for official, ours in (("image", "image_head.norm"), ("text", "text_head")):
        names |= dict(zip(norm_names(f"bottleneck_{official}"), norm_names(ours), strict=True))
    return names


def _image_sizes(state: dict[str, Tensor]) -> dict[str, Any] | None:
    """Return the sizes of the ResNet, None where the state dict has no image stream at all."""
    image = entries_below(_IMAGE, state)
    return sizes_of(image, _ORIGIN) if image else None


def _forward_layers(state: dict[str, Tensor]) -> list[str]:
    return [number for number in entries_below(f"{_LSTM}weight_ih_l", state) if number.isdigit()]
