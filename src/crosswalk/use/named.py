"""Published models by name, ``timm:<name>`` and ``open_clip:<name>/<tag>``, as they are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, get_args

from crosswalk.data.pipeline.decoding import Interpolation
from crosswalk.data.pipeline.preprocessing import Preprocessing
from crosswalk.data.pipeline.transforms import CLIP_MEAN, CLIP_STD

METHOD = "crosswalk.use.zero_shot.ZeroShot"
ENCODERS = "crosswalk.encoders.as_published"


class Named(NamedTuple):
    """A published model, described like one of ours.

    Attributes:
        config: ``method``, ``encoder``, ``data`` and ``choices``; the encoder names its weights.
        preprocessing: That of its pre-training, except that images are resized whole: a middle
            part, as is cut out of photographs, would lack the heads and feet of people.
    """

    config: dict[str, Any]
    preprocessing: Preprocessing


def named_model(spec: str) -> Named:
    """Return a model of timm or open_clip; nothing is fetched.

    Args:
        spec: Of the form that `crosswalk.config.model_names.FORMS` gives.

    Raises:
        ValueError: If there is no such model, or no such weights; the message lists those that
            there are.
        FileNotFoundError: If a file of weights is missing.
    """
    library, _, words = spec.partition(":")
    name, _, weights = words.partition("/")
    return _of_timm(spec, name, weights) if library == "timm" else _of_open_clip(name, weights)


def _of_timm(spec: str, name: str, file: str) -> Named:
    import timm  # seconds to import

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise ValueError(
            f"{spec}: timm has no model {architecture!r}.{_near(architecture, timm.list_models())}"
        )
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise ValueError(
            f"{spec}: timm has no weights {tag!r} of {architecture}; it has {_listed(tags)}."
        )
    if file:
        _check_file(spec, file)
    elif not tags:
        raise ValueError(
            f"{spec}: timm has no weights of {architecture}. Name a file of yours: "
            f"timm:{architecture}/<file>."
        )
    settings: Any = timm.get_pretrained_cfg(name)
    _, height, width = settings.input_size
    backbone: dict[str, Any] = {
        "_target_": "crosswalk.encoders.resnet.timm_backbone",
        "name": name,
        "pretrained": str(Path(file).expanduser().resolve()) if file else True,
    }
    if file:
        from crosswalk.encoders.clip_weights import read_weights
        from crosswalk.encoders.known_names import torchvision_eps

        try:
            backbone["eps"] = torchvision_eps(architecture, read_weights(Path(file).expanduser()))
        except ValueError as error:
            raise ValueError(f"{spec}: {error}") from error
    return Named(
        config=_config({"_target_": f"{ENCODERS}.PublishedImages", "backbone": backbone}, {}),
        preprocessing=Preprocessing(
            (height, width),
            _interpolation(settings.interpolation),
            tuple(settings.mean),
            tuple(settings.std),
        ),
    )


def _of_open_clip(name: str, weights: str) -> Named:
    import open_clip  # seconds to import

    from crosswalk.encoders.clip_weights import (
        is_torchscript,
        plain_model_config,
    )  # late, with torch

    spec = f"open_clip:{name}/{weights}".rstrip("/")
    sizes = plain_model_config(name)
    if sizes is None:
        near = _near(name, open_clip.list_models())
        raise ValueError(f"{spec}: open_clip has no model {name!r}.{near}")
    tags = open_clip.list_pretrained_tags_by_model(name)
    # a file beside it does not take the place of published weights: it is written ./openai
    is_file = weights not in tags and Path(weights).expanduser().is_file()
    if not weights:
        raise ValueError(
            f"{spec} names no weights. open_clip has {_listed(tags)} for it: write "
            f"open_clip:{name}/<one of them, or a file of yours>."
        )
    if weights not in tags and not is_file:
        what = "is missing, and" if "/" in weights or Path(weights).suffix else "is no tag of it:"
        raise ValueError(f"{spec}: {weights} {what} open_clip has {_listed(tags)}.")
    settings = open_clip.get_pretrained_cfg(name, weights) or {}
    quick, wanted = bool(sizes.get("quick_gelu")), bool(settings.get("quick_gelu"))
    if settings and quick != wanted:
        other = f"{name}-quickgelu" if wanted else name.removesuffix("-quickgelu")
        raise ValueError(
            f"{spec}: these weights were trained with another activation than {name} has. Write "
            f"open_clip:{other}/{weights}."
        )
    if is_file and not quick and is_torchscript(Path(weights).expanduser()):
        raise ValueError(
            f"{spec}: archives of TorchScript are OpenAI's, whose weights were trained with "
            f"another activation than {name} has. Write open_clip:{name}-quickgelu/{weights}."
        )
    size = sizes["vision_cfg"].get("image_size", 224)
    height, width = (size, size) if isinstance(size, int) else size
    clip = {
        "_target_": "crosswalk.encoders.clip.open_clip_vit",
        "name": name,
        "pretrained": str(Path(weights).expanduser().resolve()) if is_file else weights,
    }
    data = {
        "tokenizer": {
            "_target_": "crosswalk.data.text.tokenizers.ClipTokenizer",
            "_partial_": True,
        },
        "context_length": sizes["text_cfg"].get("context_length", 77),
    }
    return Named(
        config=_config({"_target_": f"{ENCODERS}.PublishedClip", "clip": clip}, data),
        preprocessing=Preprocessing(
            (height, width),
            _interpolation(settings.get("interpolation", "bicubic")),
            tuple(settings.get("mean", CLIP_MEAN)),
            tuple(settings.get("std", CLIP_STD)),
        ),
    )


def _config(encoder: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    return {
        "method": {"_target_": METHOD},
        "encoder": encoder,
        "data": data,
        "choices": {"method": "zero_shot", "encoder": None},
    }


def _interpolation(name: str) -> Interpolation:
    """Return the interpolation of a library's model, or the nearest one that is known here."""
    known: tuple[Interpolation, ...] = get_args(Interpolation)
    return next((each for each in known if each == name), "bicubic")


def _check_file(spec: str, file: str) -> None:
    if not Path(file).expanduser().is_file():
        raise FileNotFoundError(f"{spec}: {file} is missing. Name a file of weights.")


def _near(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=4, cutoff=0.5)
    return f" Near: {', '.join(near)}." if near else " Look at its list of models."


def _listed(tags: Iterable[str]) -> str:
    return f"the tags {', '.join(tags)}" if tags else "no weights"
