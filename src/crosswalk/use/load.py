"""From a run, a file or a name to a model that embeds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor

from crosswalk.config.build import build_method
from crosswalk.config.construct import construct
from crosswalk.config.constructors import signature_of
from crosswalk.config.stored import trusting
from crosswalk.data.pairs import LearningTokenizer, Tokenizer
from crosswalk.encoders.clip_weights import downloading
from crosswalk.run.weights import encoder_weights, load_weights, without_parts
from crosswalk.types import DataSpec
from crosswalk.use.described import Described, described_by
from crosswalk.use.model import Model, Precision, fingerprint_of
from crosswalk.use.source import Source, source_of

CONTEXT_LENGTH = 77
"""That of `crosswalk.data.pairs.TextToImageData`, where a configuration leaves it out."""

Which = Literal["best", "last", "start"]


def load(
    model: str | Path,
    *,
    which: Which | None = None,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
    trust: bool = False,
) -> Model:
    """Return a trained model that embeds images and, where its method reads captions, sentences.

    Neither its data nor, for what lies here, a network is needed. Safe on files of somebody else:
    see ``docs/security.md``.

    Args:
        model: A run folder, a ``best.ckpt`` or ``last.ckpt`` alone, an exported folder or the
            ``model.safetensors`` in it, or a file of `crosswalk import-weights`. ``tiny:<method>``,
            of synthetic people, is part of the package. ``timm:<name>`` or
            ``open_clip:<name>/<tag>``, whose weights are fetched if need be. ``hf:<user>/<name>``,
            an exported folder on the Hugging Face hub, which is fetched, or in its cache.
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
        FileNotFoundError: runs/nowhere does not exist. Name a run folder, a .ckpt of one, \
        an exported folder, a file of import-weights, tiny:<method>, timm:<name>, \
        open_clip:<name>/<tag> or hf:<user>/<repository>. `ls runs` shows your runs.
    """
    source = source_of(model, which)
    _check_device(device)
    with trusting() if trust else nullcontext():
        return _load(source, precision, _from_anywhere(model, source, which)).to(device)


def _from_anywhere(model: str | Path, source: Source, which: str | None) -> str:
    """Return what names the same model in another folder and another session."""
    given = Path(model).expanduser()
    if not given.exists():
        return str(model)
    return str((given if which is None else source.weights).absolute())


def _load(source: Source, precision: Precision, name: str) -> Model:
    described = described_by(source)
    weights = weights_of(source, described)
    content = described.content(weights)
    tokenizer = _tokenizer_of(described)
    # memories and classifiers, which grow with the training set, are not used: they may be small
    sizes = DataSpec(
        num_samples=1,
        num_images=1,
        num_person_ids=1,
        vocabulary_size=0 if tokenizer is None else tokenizer.vocabulary_size,
        num_source_person_ids=1,
    )
    with torch.random.fork_rng(devices=[]), downloading(False):
        method = build_method({**described.config, **content, "optim": None}, sizes, tokenizer)
    begin = f"{source.weights} does not fit the encoder that {described.place} describes"
    load_weights(method, weights, begin, advice="They are of two models.")
    model = Model(
        method,
        described.preprocessing,
        tokenizer=tokenizer,
        name=source.name,
        precision=precision,
        identity=json.dumps(content, sort_keys=True),
        source=name,
    )
    height, width = described.preprocessing.image_size
    takes = f"images of {height}x{width}"
    try:
        _ = model.embedding_size
        if tokenizer is not None:
            length = described.config["data"].get("context_length", CONTEXT_LENGTH)
            takes = f"captions of data.context_length={length} tokens"
            model.embed_texts(" ".join(["a"] * length))
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"{described.place}: the model does not take {takes}, which it says it does "
            f"({str(error).splitlines()[0]}). Put back a copy."
        ) from error
    return model


def weights_of(source: Source, described: Described) -> dict[str, Tensor]:
    """Return the weights of a model's encoder; published ones are fetched if need be.

    Raises:
        FileNotFoundError: If they cannot be fetched.
        ValueError: If they are damaged, or of another network.
    """
    if source.kind not in ("timm", "open_clip"):
        weights = encoder_weights(source.weights)
        return without_parts(weights) if source.kind == "import" else weights
    with torch.random.fork_rng(devices=[]), downloading(True):
        try:
            encoder: torch.nn.Module = construct(described.config["encoder"], {})
        except FileNotFoundError as error:  # could not be fetched, and from where
            where = str(error).partition(" and pass ")[0]
            name = re.sub(r"(?<=timm:)([^./]+).*|(?<=open_clip:)([^/]+).*", r"\1\2", source.name)
            raise FileNotFoundError(
                f"{source.name}: {where}, and name it: {name}/<file>."
            ) from error
        except ValueError as error:
            raise ValueError(f"{source.name}: {error}") from error
    return encoder.state_dict()


def fingerprint_with(weights: Mapping[str, Tensor], described: Described) -> str:
    """Return the fingerprint of the model that these weights, perhaps rounded, are loaded into.

    Args:
        weights: From `weights_of`.
        described: What else the model needs.
    """
    rows = {name: row.float() if row.is_floating_point() else row for name, row in weights.items()}
    return fingerprint_of(rows, json.dumps(described.content(weights), sort_keys=True))


def _check_device(device: str | torch.device) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device={device} is not there ({str(error).splitlines()[0]}). Choose cpu, or a device "
            "that torch finds."
        ) from error


def _tokenizer_of(described: Described) -> Tokenizer | None:
    """Return the tokenizer of a model with its words; None for a model of images alone."""
    data = described.config["data"]
    node: Mapping[str, Any] | None = data.get("tokenizer")
    if node is None:
        return None
    takes = signature_of(node["_target_"], "data.tokenizer")
    arguments: dict[str, Any] = {"context_length": data.get("context_length", CONTEXT_LENGTH)}
    learns = takes is not None and "vocabulary" in takes.parameters
    with TemporaryDirectory() as folder:
        if learns and described.vocabulary is not None:
            file = Path(folder) / "vocabulary.json"
            file.write_text(json.dumps(described.vocabulary), encoding="utf-8")
            node = {**node, "vocabulary": str(file)}
        try:
            make = construct({**node, "_partial_": True}, {})
            tokenizer: Tokenizer = make(**arguments)
        except ValueError as error:
            said = re.sub(rf"{re.escape(folder)}\S*json", "its vocabulary", str(error))
            raise ValueError(f"{described.place}: {said}") from error
    if isinstance(tokenizer, LearningTokenizer) and learns and described.vocabulary is None:
        raise FileNotFoundError(
            f"{described.place.parent / 'vocabulary.json'} is missing: the token ids of this model "
            "mean the words in it. Copy it from where the run was trained."
        )
    return tokenizer
