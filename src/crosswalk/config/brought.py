"""The encoder and the sizes that a run takes over from the model of its `checkpoint=`."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crosswalk.config.keys import flatten
from crosswalk.config.model_file import model_in
from crosswalk.config.plain import nested, unresolved
from crosswalk.config.stored import check_stored

OF_NO_SHAPE = (
    *("pretrained", "last_stride", "last_relu", "max_pool", "group_size", "channels_last"),
    *("neck_bias", "statistics", "select_ratio", "frozen", "mask_padding", "dropout", "pool"),
)
"""Keys of encoders that leave names and shapes of the weights as they are."""


def take_model(config: DictConfig, checkpoint: str, chosen: Mapping[str, Any]) -> None:
    """Give a run the encoder and the sizes of the model that its ``checkpoint=`` is of.

    An encoder that takes the weights stays, and so does one that was chosen.

    Args:
        config: The configuration of the run, before the overrides of single keys.
        checkpoint: Its ``checkpoint=``.
        chosen: The files of groups that were chosen, by group.
    """
    found = None if "encoder" in chosen else model_in(Path(checkpoint).expanduser())
    if found is None:
        return
    stored, file = found
    theirs = stored.get("encoder")
    if not isinstance(theirs, Mapping) or config.get("encoder") is None:
        return
    try:
        ours = OmegaConf.to_container(config.encoder, resolve=True)
    except OmegaConfBaseException:  # a value that nobody has given yet
        return
    part = isinstance(ours, dict) and _is_part(theirs, ours)
    if part:  # of an encoder that has more, which stays
        own = typing.cast(dict[str, Any], ours)
        theirs = {**own, **theirs, "_target_": own["_target_"]}
    if _of_shape(ours) == _of_shape(theirs):
        return
    kept = dict(nested(stored.get("data") or {}))
    sizes = {key: kept[key] for key in ("image_size", "context_length") if key in kept}
    name = None if part else (stored.get("choices") or {}).get("encoder")
    check_stored({"encoder": theirs, "data": sizes, "choices": {"encoder": name}}, file)
    OmegaConf.set_struct(config, False)
    config.encoder = dict(theirs)
    present = {key for key, _ in nested(unresolved(config.data))}
    for key, size in sizes.items():
        if key in present:
            OmegaConf.update(config.data, key, size, merge=False)
    if name:
        config.choices.encoder = name
    OmegaConf.set_struct(config, True)


def _is_part(theirs: Mapping[str, Any], ours: Mapping[Any, Any]) -> bool:
    """Return whether an encoder has a module for each of another one's, and more.

    Example:
        >>> clip = {"clip": {"_target_": "Clip"}}
        >>> _is_part({"_target_": "Plain", **clip}, {"_target_": "Richer", **clip, "head": 3})
        True
    """
    modules = {key for key, value in theirs.items() if isinstance(value, Mapping)}
    known = modules | {"_target_"}
    return bool(modules) and theirs.keys() == known and theirs.keys() < set(ours)


def _of_shape(encoder: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the leaves of an encoder's node that names and shapes of its weights depend on."""
    leaves = flatten(encoder)
    timm = [key for key, value in leaves.items() if str(value).endswith(".timm_backbone")]
    for key in timm:  # most of its models take images of any size
        leaves.pop(key.replace("_target_", "image_size"), None)
    return {
        key: value for key, value in leaves.items() if not set(key.split(".")) & set(OF_NO_SHAPE)
    }
