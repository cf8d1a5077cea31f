"""Weights that a training starts from: what is advised where there are none.

Advice alone; the encoders load them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crosswalk.config.compose import compose
from crosswalk.config.keys import flatten
from crosswalk.config.model_file import EXPORTED, read_description
from crosswalk.config.model_names import SHIPPED
from crosswalk.config.plain import nested, to_plain
from crosswalk.config.stage import stage_command


def without_fetching(config: Mapping[str, Any]) -> str:
    """Return how a method is trained without published weights, a sentence after another one.

    By the small model of it that comes with the package, unless that one knows other words or is no
    stage of a run, else by the networks of its synthetic run; nothing where they have published
    weights, too.
    """
    choices = config["choices"]
    method = str(choices.get("method"))
    shipped = SHIPPED / method / EXPORTED
    fits_all = shipped.is_file() and read_description(shipped)["vocabulary"] is None
    if fits_all and config.get("stage") is None:
        return (
            " Or start, without encoder=, from the small model of synthetic people that is part of "
            f"crosswalk: checkpoint=tiny:{method}."
        )
    try:
        own = compose([f"method={method}"])["choices"]
        smaller = [
            f"{group}={own[group]}"
            for group in ("encoder", "text")
            if group in own and own[group] != choices.get(group)
        ]
        config = to_plain(compose([f"method={method}", f"data={choices.get('data')}", *smaller]))
        parts = [config]
        if config.get("stage") is not None:
            parts.append(to_plain(compose(stage_command(config))))
    except ValueError:  # of a package that is not here
        return ""
    leaves = [leaf for part in parts for leaf in nested(part)]
    weights = [value for key, value in leaves if key.endswith("pretrained")]
    if not smaller or not all(map(_is_here, filter(None, weights))):
        return ""
    return f" Or train smaller networks, which need none: {' '.join(smaller)}."


def _is_here(pretrained: object) -> bool:
    from crosswalk.encoders.clip_weights import local_file

    return isinstance(pretrained, str) and local_file(pretrained) is not None


def random_weights(config: Mapping[str, Any]) -> list[str]:
    """Return what to say of an encoder without weights, where the method's own has some.

    Example:
        >>> from crosswalk.config.plain import to_plain
        >>> config = to_plain(compose(["method=rde", "data=own_pairs", "encoder=clip_tiny"]))
        >>> [notice[:75] for notice in random_weights(config)]
        ['encoder.clip.pretrained=null: the encoder starts from random weights; encod']
    """
    if config["checkpoint"] is not None or config["stage"] is not None:
        return []
    choices, ours = config["choices"], _pretrained(config)
    if not ours or any(ours.values()):
        return []
    words = [
        f"{group}={choices[group]}"
        for group in ("method", "data", "experiment")
        if group in choices
    ]
    try:
        usual = compose(words)
    except ValueError:  # of a package that is not here
        return []
    theirs = {key: value for key, value in _pretrained(usual).items() if value}
    if not theirs:
        return []
    (key, value), (their_key, weights) = next(iter(ours.items())), next(iter(theirs.items()))
    return [
        f"{key}={'null' if value is None else 'false'}: the encoder starts from random weights; "
        f"encoder={usual.choices.encoder}, which this training has by itself, starts from "
        f"{their_key}={'true' if weights is True else weights}. Name a file of weights, or start "
        "from a model by checkpoint=<run folder>."
    ]


def _pretrained(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of an encoder that name weights, with their values."""
    leaves = flatten({"encoder": config.get("encoder") or {}})
    return {key: value for key, value in leaves.items() if key.endswith(".pretrained")}
