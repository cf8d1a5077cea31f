"""What has to be known of a model beside its weights, wherever it is loaded from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from crosswalk.config.construct import construct, locate
from crosswalk.config.constructors import check_node, fits, signature_of
from crosswalk.config.keys import ENCODERS, flatten
from crosswalk.config.model_file import (
    COLOURS,
    place_of_description,
    read_description,
    written_description,
)
from crosswalk.config.moved import modernised
from crosswalk.config.stored import check_plain, check_stored, targets_of
from crosswalk.data.pipeline.image_transform import ImageTransform
from crosswalk.data.pipeline.preprocessing import Preprocessing, preprocessing_by
from crosswalk.data.pipeline.transforms import PairTransform
from crosswalk.methods.base import Method
from crosswalk.ranges import TokenCount
from crosswalk.run.callbacks.checkpoints import read_checkpoint
from crosswalk.use.named import named_model
from crosswalk.use.source import Source

EVALUATED_BY = ("data.eval_batch_size", "trainer.precision")
"""Keys of a run that an evaluation of its model repeats: numbers may depend on them a little."""

OF_CAPTIONS = ("tokenizer", "context_length")
"""Keys of ``data`` that say how captions become numbers."""

STARTS = ("pretrained", "start")
"""Arguments of encoders that only say what their training starts from."""

TABLE = "table"
"""What makes the word vectors of an encoder; checkpoints hold them."""

TABLES_BY = "crosswalk.encoders.word_table."
"""Where the functions are that make word vectors, some by the network or the cache folder."""

MISSING = f"{TABLES_BY}missing_word_table"
PREPROCESSING = "crosswalk.data.pipeline.preprocessing.Preprocessing"


@dataclass(frozen=True)
class Described:
    """What has to be known beside the weights.

    Attributes:
        config: The plain configuration: ``method``, the encoders, and of ``data`` what captions
            need; of a run all of it.
        preprocessing: What is done to images.
        vocabulary: The words that the tokenizer has learned, as ``vocabulary.json`` holds them.
        place: Where this was read, for messages.
        evaluation: What the run had for keys of `EVALUATED_BY`; of an import perhaps `COLOURS`.
    """

    config: dict[str, Any]
    preprocessing: Preprocessing
    vocabulary: dict[str, Any] | None
    place: Path
    evaluation: Mapping[str, Any] = field(default_factory=dict)

    def content(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return all that the embeddings depend on beside ``weights``, plain."""
        config, data = self.config, self.config["data"]
        try:
            encoders = {
                name: without_start(config[name], weights) for name in ENCODERS if name in config
            }
        except ValueError as error:
            raise ValueError(f"{self.place}: {error}") from error
        for key, target in targets_of({"method": config["method"], **encoders}):
            if str(target).startswith(TABLES_BY) and target != MISSING:
                raise ValueError(
                    f"{self.place}: {key}={target} makes word vectors where a model has none, so "
                    "nothing was run. Put back a copy."
                )
        return {
            "method": config["method"],
            **encoders,
            "data": {name: data[name] for name in OF_CAPTIONS if name in data},
            "preprocessing": asdict(self.preprocessing),
            "vocabulary": self.vocabulary,
        }

    def to_json(self, weights: Mapping[str, Tensor]) -> str:
        """Return what `described_by` reads of a folder that holds these weights."""
        chosen = self.config.get("choices") or {}
        return written_description(
            self.content(weights),
            choices={name: chosen.get(name) for name in ("method", *ENCODERS)},
            evaluation=self.evaluation,
        )


def described_by(source: Source) -> Described:
    """Return what a source says of its model; what an earlier release left out, its run folder.

    Raises:
        ValueError: If it is damaged, names code that is not known, or does not say enough.
    """
    if source.kind in ("timm", "open_clip"):
        model = named_model(source.name)
        return Described(model.config, model.preprocessing, None, source.weights)
    if not source.is_of_a_run:
        return _described_by_itself(source)
    folder, told = source.folder, _told_by(source.weights)
    if source.kind == "run":
        config = folder.runnable_config(needed=("method", "data"))
        if source.weights == folder.start_weights:  # which say nothing of themselves
            others = (folder.last_checkpoint, folder.best_checkpoint)
            told = next((_told_by(path) for path in others if path.is_file()), told)
    else:
        stored = told.get("config")
        config = modernised(stored) if isinstance(stored, dict) else {}
        if not isinstance(config.get("method"), dict):
            raise ValueError(
                f"{source.weights} does not say which model it is of: it was not written by "
                "`crosswalk train`. Name a run folder."
            )
        check_stored(config, source.weights)
    check_model(config, source.weights if source.kind == "checkpoint" else folder.config_file)
    vocabulary, steps = told.get("vocabulary"), told.get("preprocessing")
    if steps is not None:
        preprocessing = _as_preprocessing(steps, source.weights)
    else:
        preprocessing = _preprocessing_of(config["data"], source)
    return Described(
        config=config,
        preprocessing=preprocessing,
        vocabulary=folder.vocabulary() if vocabulary is None else vocabulary,
        place=source.weights,
        evaluation=_settings_of_evaluations(config),
    )


def _settings_of_evaluations(config: Mapping[str, Any]) -> dict[str, Any]:
    leaves = flatten(config)
    return {key: leaves[key] for key in EVALUATED_BY if key in leaves}


def _told_by(weights: Path) -> dict[str, Any]:
    """Return what a checkpoint says of its run; nothing of another file."""
    if weights.suffix != ".ckpt":
        return {}
    told = read_checkpoint(weights).get("crosswalk") or {}
    check_plain(told, weights)
    if not isinstance(told, dict):
        raise ValueError(f"{weights}: what it says of its model is no entries by name.")
    return cast("dict[str, Any]", told)


def _described_by_itself(source: Source) -> Described:
    place = place_of_description(source.weights)
    assert place is not None  # `source_of` has looked
    content = read_description(place)
    config = {name: content.get(name) for name in ("method", *ENCODERS, "data", "choices")}
    config["data"] = config["data"] or {}
    check_stored(config, place)
    check_model(config, place)
    return Described(
        config=config,
        preprocessing=_as_preprocessing(content.get("preprocessing"), place),
        vocabulary=content.get("vocabulary"),
        place=place,
        evaluation={
            key: value
            for key, value in (content.get("evaluation") or {}).items()
            if key in (*EVALUATED_BY, COLOURS) and isinstance(value, (int, str))
        },
    )


def check_model(config: Mapping[str, Any], place: Path) -> None:
    """Compare the nodes that a model is built of with the constructors that they name.

    Args:
        config: A stored configuration, whose targets are known.
        place: The file, for messages.

    Raises:
        ValueError: If a node is missing, or an argument is none of its constructor, or of another
            kind or range.
    """
    data = config.get("data")
    if not isinstance(data, dict):
        raise ValueError(f"{place}: data is {type(data).__name__}, not entries by name.")
    encoders = [name for name in ENCODERS if config.get(name) is not None]
    nodes: list[tuple[str, Any, tuple[str, ...]]] = [
        ("method", config.get("method"), ("data", "optim", *encoders)),
        *((name, config[name], ("words",)) for name in encoders),
    ]
    if data.get("tokenizer") is not None:
        nodes.append(("data.tokenizer", data["tokenizer"], ("context_length",)))
    length = data.get("context_length", 1)
    if not fits(length, TokenCount):
        raise ValueError(f"{place}: data.context_length={length!r} is no number of tokens.")
    for key, node, given in nodes:
        if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
            raise ValueError(f"{place}: {key} names no class (_target_).")
        try:
            check_node(node, key, frozenset(given))
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
    target: Any = locate(config["method"]["_target_"], "method")
    if not (isinstance(target, type) and issubclass(target, Method)) or not encoders:
        what = "has no encoder" if encoders == [] else f"is {target}, no method"
        raise ValueError(f"{place}: method._target_={config['method']['_target_']} {what}.")


def without_start(node: Any, weights: Mapping[str, Tensor]) -> Any:  # noqa: ANN401
    """Return an encoder's node without the files that its training started from.

    They may not be on this machine, and all weights come from the checkpoint, tables of word
    vectors included.

    Args:
        node: The node, or a part of it.
        weights: By name, for the size of such a table.

    Example:
        >>> node = {"_target_": "crosswalk.encoders.resnet.resnet", "pretrained": "a.pth"}
        >>> without_start(node, {})
        {'_target_': 'crosswalk.encoders.resnet.resnet', 'pretrained': None}
    """
    if isinstance(node, list):
        return [without_start(item, weights) for item in node]
    if not isinstance(node, Mapping):
        return node
    plain = {name: without_start(value, weights) for name, value in node.items()}
    takes = signature_of(node["_target_"], "encoder") if "_target_" in node else None
    for name in STARTS:
        if name in plain and takes is not None and name in takes.parameters:
            default = takes.parameters[name].default
            if default is None or default is True:
                plain[name] = None if default is None else False
    tables = [row for name, row in weights.items() if name.endswith(".table") and row.dim() == 2]
    if isinstance(plain.get(TABLE), Mapping):
        if len(tables) != 1:
            raise ValueError(
                f"the weights hold {len(tables)} tables of word vectors (*.table), where the "
                "encoder has one. Put back a copy."
            )
        plain[TABLE] = {"_target_": MISSING, "_partial_": True, "size": tables[0].shape[1]}
    return plain


def _as_preprocessing(stored: Any, place: Path) -> Preprocessing:  # noqa: ANN401
    if not isinstance(stored, dict):
        raise ValueError(f"{place}: what it says of the preprocessing of images is damaged.")
    plain = {name: list(v) if isinstance(v, tuple) else v for name, v in stored.items()}
    try:
        check_node({"_target_": PREPROCESSING, **plain}, "preprocessing")
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    arguments: dict[str, Any] = dict(plain)
    arguments |= {name: tuple(plain[name]) for name in ("image_size", "mean", "std")}
    return Preprocessing(**arguments)


def _preprocessing_of(data: Mapping[str, Any], source: Source) -> Preprocessing:
    """Return what a run of an earlier release did to images, which did not keep it.

    Args:
        data: The part of its configuration; of a target, what it says itself counts more.
        source: Of the model.
    """
    own = data.get("target")
    known = {**data, **own} if isinstance(own, Mapping) else dict(data)
    place = source.weights
    if known.get("normalization") == "dataset":
        if source.kind != "run":
            raise ValueError(
                f"{place} is of an earlier release, which did not keep the mean and std of the "
                "images that the model is used on. Load its run folder, while its data are there."
            )
        # of its training images: they are read
        return cast(Preprocessing, construct(dict(data), {}).preprocessing)
    takes = signature_of(str(known.get("_target_")), "data")

    def value(name: str) -> Any:  # noqa: ANN401
        if name in known or takes is None or name not in takes.parameters:
            return known.get(name)
        return takes.parameters[name].default

    interpolation = known.get("eval_interpolation") or value("interpolation")
    default = PairTransform() if "tokenizer" in known else ImageTransform()
    transform = construct(known.get("transform"), {}) or default
    size = value("image_size")
    if not isinstance(size, (list, tuple)) or len(size) != 2:
        raise ValueError(f"{place}: data.image_size={size} is not what crosswalk knows: two sides.")
    found = preprocessing_by(transform, size, interpolation)
    if found is None:
        raise ValueError(
            f"{place}: its data.transform={type(transform).__name__} does not say by which mean "
            "and std it normalises, so what the model takes is not known. Give the class the "
            "attributes mean and std."
        )
    return found
