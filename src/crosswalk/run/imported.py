"""What an official checkpoint lacks to be a model of its own, from its method's published run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from crosswalk.config.compose import compose
from crosswalk.config.construct import construct
from crosswalk.config.keys import ENCODERS
from crosswalk.config.model_file import COLOURS, written_description
from crosswalk.config.plain import to_plain
from crosswalk.config.search import only_own_folder
from crosswalk.data.pairs import LearningTokenizer, Tokenizer
from crosswalk.data.pipeline.image_transform import ImageTransform
from crosswalk.data.pipeline.preprocessing import Preprocessing, preprocessing_by
from crosswalk.data.pipeline.transforms import PairTransform

if TYPE_CHECKING:
    from torch import Tensor

Recipe = Callable[[dict[str, Any]], dict[str, Any]]

TABLE = "table"
"""The part of word vectors that official files do not hold."""


def description_of(
    method: str,
    published_data: str,
    architecture: dict[str, Any],
    recipe: Recipe,
    weights: dict[str, Tensor],
    *,
    vocabulary: Path | None = None,
    word_table: Path | None = None,
) -> str | None:
    """Return the description of an imported model; None where its words are not known.

    Encoder, preprocessing and tokenizer are those of the method's published run, with the sizes
    that the weights show.

    Args:
        method: A file of ``configs/method``.
        published_data: That of its published run, a file of ``configs/data``.
        architecture: Of the weights.
        recipe: Says which keys of the run it changes.
        weights: Those of the encoder; get the ``word_table``.
        vocabulary: A file with the words of the token ids.
        word_table: A ``.npy`` with a vector for each of them.

    Raises:
        ValueError: If a file does not go with the model, or is not needed.
    """
    with only_own_folder():
        config = to_plain(compose([f"method={method}", f"data={published_data}"]))
    for key, value in _plain(recipe(architecture)).items():
        *parents, last = key.split(".")
        node = config
        for name in parents:
            node = node[name]
        node[last] = value
    data = config["data"]
    tokenizer, words = _tokenizer(data, vocabulary)
    needs = isinstance(tokenizer, LearningTokenizer)
    vectors = (config["encoder"].get("text") or {}).get("vectors") or {}
    needs_table = isinstance(vectors.get(TABLE), Mapping)
    for option, given, is_needed in (
        ("--vocabulary", vocabulary, needs),
        ("--word-table", word_table, needs_table),
    ):
        if given is not None and not is_needed:
            raise ValueError(f"{option} {given}: this checkpoint of {method} needs none.")
    if (needs and words is None) or (needs_table and word_table is None):
        return None
    if word_table is not None:
        from crosswalk.encoders.word_table import file_word_table

        table = file_word_table(getattr(tokenizer, "words", ()), file=str(word_table))
        inner = "frozen." if vectors["_target_"].endswith("ProjectedWords") else ""
        weights[f"text.vectors.{inner}{TABLE}"] = table
    content = {
        "method": config["method"],
        **{name: config[name] for name in ENCODERS if name in config},
        "data": {key: data[key] for key in ("tokenizer", "context_length") if key in data},
        "preprocessing": asdict(_preprocessing(data, reads_captions=tokenizer is not None)),
        "vocabulary": words,
    }
    evaluation = {"data.eval_batch_size": data["eval_batch_size"]}
    if data.get("normalization") == "dataset":
        evaluation[COLOURS] = "dataset"
    choices = {name: config["choices"].get(name) for name in ("method", *ENCODERS)}
    return written_description(content, choices=choices, evaluation=evaluation)


def _preprocessing(data: Mapping[str, Any], *, reads_captions: bool) -> Preprocessing:
    """Return what a published run does to the images that it evaluates; of a target, to its own."""
    transform = construct(data.get("transform"), {}) or (
        PairTransform() if reads_captions else ImageTransform()
    )
    own = data.get("target")
    known = {**data, **own} if isinstance(own, Mapping) else data
    interpolation = known.get("eval_interpolation") or known["interpolation"]
    found = preprocessing_by(transform, data["image_size"], interpolation)
    assert found is not None  # of our own transforms
    return found


def _plain(node: Any) -> Any:  # noqa: ANN401
    """Return containers as JSON gives them back: lists for tuples."""
    return json.loads(json.dumps(node))


def _tokenizer(
    data: Mapping[str, Any], vocabulary: Path | None
) -> tuple[Tokenizer | None, dict[str, Any] | None]:
    """Return the tokenizer of captions, and its words if they are known."""
    node = data.get("tokenizer")
    if node is None:
        return None, None
    if vocabulary is None:
        return construct(node, {})(context_length=data["context_length"]), None
    node = {**node, "vocabulary": str(vocabulary)}
    tokenizer: Tokenizer = construct(node, {})(context_length=data["context_length"])
    if not isinstance(tokenizer, LearningTokenizer):
        return tokenizer, None
    with TemporaryDirectory() as folder:
        file = Path(folder) / "vocabulary.json"
        tokenizer.save_vocabulary(file)
        return tokenizer, json.loads(file.read_text(encoding="utf-8"))
