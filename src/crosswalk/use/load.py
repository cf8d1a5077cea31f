"""From a run, or a checkpoint alone, to a model that embeds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, cast

import torch

from crosswalk.config.build import build_method
from crosswalk.config.check import ENCODERS
from crosswalk.config.constructors import construct, signature_of
from crosswalk.config.stored import check_stored, trusting
from crosswalk.data.pairs import LearningTokenizer, Tokenizer
from crosswalk.data.pipeline.image_transform import ImageTransform
from crosswalk.data.pipeline.preprocessing import Preprocessing, preprocessing_by
from crosswalk.data.pipeline.transforms import PairTransform
from crosswalk.encoders.clip_weights import downloading
from crosswalk.run.callbacks.checkpoints import read_checkpoint
from crosswalk.run.weights import load_encoder
from crosswalk.types import DataSpec
from crosswalk.use.model import Model, Precision
from crosswalk.use.source import Source, source_of

STARTS = ("pretrained", "start")
"""Arguments of encoders that only say what their training starts from."""

Which = Literal["best", "last", "start"]


class Described(NamedTuple):
    """What has to be known beside the weights.

    Attributes:
        config: The plain configuration of the run.
        preprocessing: What is done to images; None where the run did not keep it.
        vocabulary: The words that the tokenizer has learned, as `vocabulary.json` holds them.
        place: Where this was read, for messages.
    """

    config: dict[str, Any]
    preprocessing: Preprocessing | None
    vocabulary: dict[str, Any] | None
    place: Path


def load(
    model: str | Path,
    *,
    which: Which | None = None,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
    trust: bool = False,
) -> Model:
    """Return a trained model that embeds images and, where its method reads captions, sentences.

    Neither its data nor a network is needed. Safe on files of somebody else: see
    ``docs/security.md``.

    Args:
        model: A run folder, or a ``best.ckpt`` or ``last.ckpt`` alone.
        which: Which checkpoint of a run folder; None takes the best epoch, else the last one.
        device: Where it computes, such as ``cuda``.
        precision: ``float32``, or ``bf16``: most of the computation in bfloat16, about as good and
            on GPUs faster. Embeddings are float32 either way.
        trust: Whether a configuration may name code that crosswalk does not know, which then runs.

    Raises:
        FileNotFoundError: If there is no such run, or it has no such checkpoint.
        ValueError: If it is something else, is damaged, or names code that is not known.

    Example:
        >>> load("runs/nowhere")
        Traceback (most recent call last):
            ...
        FileNotFoundError: runs/nowhere does not exist. Name a run folder (`ls runs` shows yours) \
        or a .ckpt of a run.
    """
    source = source_of(model, which)
    if trust:
        with trusting():
            loaded = _load(source, precision)
    else:
        loaded = _load(source, precision)
    return loaded.to(device)


def _load(source: Source, precision: Precision) -> Model:
    described = _described(source)
    preprocessing = described.preprocessing or _preprocessing_of(described)
    with TemporaryDirectory() as folder:
        tokenizer = _tokenizer_of(described, Path(folder))
    # memories and classifiers, which grow with the training set, are not used: they may be small
    sizes = DataSpec(
        num_samples=1,
        num_images=1,
        num_person_ids=1,
        vocabulary_size=0 if tokenizer is None else tokenizer.vocabulary_size,
        num_source_person_ids=1,
    )
    config = {**described.config, "optim": None}
    config |= {name: _without_start(config[name]) for name in ENCODERS if name in config}
    with torch.random.fork_rng(devices=[]), downloading(False, tables=False):
        method = build_method(config, sizes, tokenizer)
    load_encoder(method, source.weights)
    return Model(method, preprocessing, tokenizer=tokenizer, name=source.name, precision=precision)


def _without_start(node: Any) -> Any:  # noqa: ANN401
    """Return an encoder's node without the files that its training started from.

    They may not be on this machine, and the weights come from the checkpoint.
    """
    if isinstance(node, list):
        return [_without_start(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    plain = {name: _without_start(value) for name, value in node.items()}
    takes = signature_of(node["_target_"], "encoder") if "_target_" in node else None
    for name in STARTS:
        if name in plain and takes is not None and name in takes.parameters:
            default = takes.parameters[name].default
            if default is None or default is True:
                plain[name] = None if default is None else False
    return plain


def _described(source: Source) -> Described:
    """Return what a checkpoint says of its run; what an earlier release left out, its folder."""
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
    vocabulary = told.get("vocabulary")
    if vocabulary is None:
        vocabulary = folder.vocabulary()
    stored = told.get("preprocessing")
    return Described(
        config=config,
        preprocessing=None if stored is None else _as_preprocessing(stored, source.weights),
        vocabulary=vocabulary,
        place=source.weights,
    )


def _as_preprocessing(stored: Any, place: Path) -> Preprocessing:  # noqa: ANN401
    try:
        sides = {name: tuple(stored[name]) for name in ("image_size", "mean", "std")}
        return Preprocessing(**{**stored, **sides})
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{place}: what it says of the preprocessing of images is damaged ({error}). Put back "
            "a copy."
        ) from error


def _preprocessing_of(described: Described) -> Preprocessing:
    """Return what a run of an earlier release did to images, which did not keep it."""
    data = described.config["data"]
    if data.get("normalization") == "dataset":
        measured = construct(data, {}).preprocessing  # of the training images, so they are needed
        return cast(Preprocessing, measured)
    default = PairTransform() if "tokenizer" in data else ImageTransform()
    parameters = signature_of(data["_target_"], "data").parameters  # type: ignore[union-attr]

    def value(name: str) -> Any:  # noqa: ANN401
        return data[name] if name in data else parameters[name].default

    interpolation = data.get("eval_interpolation") or value("interpolation")
    transform = construct(data.get("transform"), {}) or default
    known = preprocessing_by(transform, value("image_size"), interpolation)
    if known is None:
        raise ValueError(
            f"{described.place}: its data.transform={type(transform).__name__} does not say by "
            "which mean and std it normalises, so what the model takes is not known. Give the "
            "class the attributes mean and std."
        )
    return known


def _tokenizer_of(described: Described, folder: Path) -> Tokenizer | None:
    """Return the tokenizer of a run with its words; None for a model of images alone."""
    data = described.config["data"]
    node: Mapping[str, Any] | None = data.get("tokenizer")
    if node is None:
        return None
    arguments: dict[str, Any] = {}
    if "context_length" in data:
        arguments["context_length"] = data["context_length"]
    if described.vocabulary is not None:
        file = folder / "vocabulary.json"
        file.write_text(json.dumps(described.vocabulary), encoding="utf-8")
        node = {**node, "vocabulary": str(file)}
    tokenizer: Tokenizer = construct(dict(node), {})(**arguments)
    if isinstance(tokenizer, LearningTokenizer) and described.vocabulary is None:
        raise FileNotFoundError(
            f"{described.place.parent / 'vocabulary.json'} is missing: the token ids of this model "
            "mean the words in it. Copy it from where the run was trained."
        )
    return tokenizer
