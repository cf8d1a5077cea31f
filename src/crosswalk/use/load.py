"""From a run, a checkpoint alone or an exported folder to a model that embeds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch

from crosswalk.config.build import build_method
from crosswalk.config.check import ENCODERS
from crosswalk.config.constructors import construct
from crosswalk.config.stored import trusting
from crosswalk.data.pairs import LearningTokenizer, Tokenizer
from crosswalk.encoders.clip_weights import downloading
from crosswalk.run.weights import load_encoder
from crosswalk.types import DataSpec
from crosswalk.use.described import Described, described_by, without_start
from crosswalk.use.model import Model, Precision
from crosswalk.use.source import Source, source_of

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

    Neither its data nor a network is needed. Safe on files of somebody else: see
    ``docs/security.md``.

    Args:
        model: A run folder, a ``best.ckpt`` or ``last.ckpt`` alone, or an exported folder.
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
        FileNotFoundError: runs/nowhere does not exist. Name a run folder (`ls runs` shows yours), \
        a .ckpt of a run, or an exported folder.
    """
    source = source_of(model, which)
    if trust:
        with trusting():
            loaded = _load(source, precision)
    else:
        loaded = _load(source, precision)
    return loaded.to(device)


def _load(source: Source, precision: Precision) -> Model:
    described = described_by(source)
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
    config |= {name: without_start(config[name]) for name in ENCODERS if name in config}
    with torch.random.fork_rng(devices=[]), downloading(False, tables=False):
        method = build_method(config, sizes, tokenizer)
    load_encoder(method, source.weights)
    return Model(
        method,
        described.preprocessing,
        tokenizer=tokenizer,
        name=source.name,
        precision=precision,
    )


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
