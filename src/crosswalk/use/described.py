"""What has to be known of a model beside its weights, from a run, a checkpoint or an export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from crosswalk import __version__
from crosswalk.config.check import ENCODERS
from crosswalk.config.constructors import construct, signature_of
from crosswalk.config.stored import check_stored
from crosswalk.data.pipeline.image_transform import ImageTransform
from crosswalk.data.pipeline.preprocessing import Preprocessing, preprocessing_by
from crosswalk.data.pipeline.transforms import PairTransform
from crosswalk.files import read_text
from crosswalk.run.callbacks.checkpoints import read_checkpoint
from crosswalk.use.source import EXPORTED, Source

FORMAT = 1
"""Of the file ``config.json``; raised when older crosswalks cannot read it."""

LARGEST = 20_000_000
"""Bytes of that file, words included."""

OF_CAPTIONS = ("tokenizer", "context_length")
"""Keys of ``data`` that say how captions become numbers."""

STARTS = ("pretrained", "start")
"""Arguments of encoders that only say what their training starts from."""


@dataclass(frozen=True)
class Described:
    """What has to be known beside the weights.

    Attributes:
        config: The plain configuration: ``method``, the encoders, and of ``data`` what captions
            need; of a run all of it.
        preprocessing: What is done to images.
        vocabulary: The words that the tokenizer has learned, as ``vocabulary.json`` holds them.
        place: Where this was read, for messages.
    """

    config: dict[str, Any]
    preprocessing: Preprocessing
    vocabulary: dict[str, Any] | None
    place: Path

    def to_json(self) -> str:
        """Return what `described_by` reads of an exported folder."""
        config, data = self.config, self.config["data"]
        parts = {name: without_start(config[name]) for name in ENCODERS if name in config}
        chosen = config.get("choices") or {}
        content = {
            "format": FORMAT,
            "crosswalk": __version__,
            "choices": {name: chosen.get(name) for name in ("method", *ENCODERS)},
            "method": config["method"],
            **parts,
            "data": {name: data[name] for name in OF_CAPTIONS if name in data},
            "preprocessing": asdict(self.preprocessing),
            "vocabulary": self.vocabulary,
        }
        return json.dumps(content, indent=1) + "\n"


def described_by(source: Source) -> Described:
    """Return what a source says of its model; what an earlier release left out, its run folder.

    Raises:
        ValueError: If it is damaged, names code that is not known, or does not say enough.
    """
    if source.kind == "export":
        return _described_by_export(source)
    folder, told = source.folder, cast("dict[str, Any]", {})
    if source.weights.suffix == ".ckpt":
        told = read_checkpoint(source.weights).get("crosswalk") or {}
    if source.kind == "run":
        config = folder.runnable_config(needed=("method", "data"))
    else:
        config = told.get("config") or {}
        if not all(isinstance(config.get(key), dict) for key in ("method", "data")):
            raise ValueError(
                f"{source.weights} does not say which model it is of: it was not written by "
                "`crosswalk train`. Name a run folder."
            )
        check_stored(config, source.weights)
    vocabulary, stored = told.get("vocabulary"), told.get("preprocessing")
    return Described(
        config=config,
        preprocessing=(
            _as_preprocessing(stored, source.weights)
            if stored is not None
            else _preprocessing_of(config["data"], source.weights)
        ),
        vocabulary=folder.vocabulary() if vocabulary is None else vocabulary,
        place=source.weights,
    )


def _described_by_export(source: Source) -> Described:
    place = source.folder.path / EXPORTED
    try:
        content = json.loads(read_text(place, limit=LARGEST))
        if not isinstance(content, dict) or not isinstance(content.get("method"), dict):
            raise ValueError("it has no method")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is damaged ({error}). Export the run again.") from error
    if content.get("format") != FORMAT:
        raise ValueError(
            f"{place} was written by crosswalk {content.get('crosswalk')}, in a format "
            f"({content.get('format')}) that this one does not know. Update crosswalk."
        )
    config = {name: content.get(name) for name in ("method", *ENCODERS, "data", "choices")}
    config["data"] = config["data"] or {}
    check_stored(config, place)
    return Described(
        config=config,
        preprocessing=_as_preprocessing(content.get("preprocessing"), place),
        vocabulary=content.get("vocabulary"),
        place=place,
    )


def without_start(node: Any) -> Any:  # noqa: ANN401
    """Return an encoder's node without the files that its training started from.

    They may not be on this machine, and all weights come from the checkpoint.

    Example:
        >>> without_start({"_target_": "crosswalk.encoders.resnet.resnet", "pretrained": "a.pth"})
        {'_target_': 'crosswalk.encoders.resnet.resnet', 'pretrained': None}
    """
    if isinstance(node, list):
        return [without_start(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    plain = {name: without_start(value) for name, value in node.items()}
    takes = signature_of(node["_target_"], "encoder") if "_target_" in node else None
    for name in STARTS:
        if name in plain and takes is not None and name in takes.parameters:
            default = takes.parameters[name].default
            if default is None or default is True:
                plain[name] = None if default is None else False
    return plain


def _as_preprocessing(stored: Any, place: Path) -> Preprocessing:  # noqa: ANN401
    try:
        lists = {name: tuple(stored[name]) for name in ("image_size", "mean", "std")}
        known = Preprocessing(**{**stored, **lists})
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{place}: what it says of the preprocessing of images is damaged ({error}). Put back "
            "a copy."
        ) from error
    return known


def _preprocessing_of(data: Mapping[str, Any], place: Path) -> Preprocessing:
    """Return what a run of an earlier release did to images, which did not keep it.

    Args:
        data: The part of its configuration.
        place: The file of its weights, for messages.
    """
    if data.get("normalization") == "dataset":
        measured = construct(dict(data), {}).preprocessing  # of its training images: they are read
        return cast(Preprocessing, measured)
    default = PairTransform() if "tokenizer" in data else ImageTransform()
    takes = signature_of(data["_target_"], "data")

    def value(name: str) -> Any:  # noqa: ANN401
        return data[name] if name in data or takes is None else takes.parameters[name].default

    interpolation = data.get("eval_interpolation") or value("interpolation")
    transform = construct(data.get("transform"), {}) or default
    known = preprocessing_by(transform, value("image_size"), interpolation)
    if known is None:
        raise ValueError(
            f"{place}: its data.transform={type(transform).__name__} does not say by which mean "
            "and std it normalises, so what the model takes is not known. Give the class the "
            "attributes mean and std."
        )
    return known
