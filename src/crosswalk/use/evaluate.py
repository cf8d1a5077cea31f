"""`crosswalk evaluate MODEL`: a model of no run here, on data that it was not trained on here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from crosswalk.config.compose import compose, restore
from crosswalk.config.keys import ENCODERS
from crosswalk.config.model_file import COLOURS
from crosswalk.config.plain import to_plain
from crosswalk.run.train import Trained, evaluate_weights
from crosswalk.run.weights import load_weights
from crosswalk.use.described import Described, described_by
from crosswalk.use.load import weights_of
from crosswalk.use.source import Source, recipe_of


def evaluate_model(source: Source, overrides: Iterable[str]) -> Trained | None:
    """Evaluate a model on data that overrides name; only what is evaluated of them is opened.

    Images and captions become numbers as the model has learned it.

    Args:
        source: Of the model.
        overrides: As for `crosswalk.config.compose.compose`, ``data=`` among them.

    Raises:
        ValueError: If it does not go with the data, or an override changes the model.
    """
    described = described_by(source)
    weights = weights_of(source, described)
    with TemporaryDirectory() as folder:
        words = Path(folder) / "vocabulary.json"
        if described.vocabulary is not None:
            words.write_text(json.dumps(described.vocabulary), encoding="utf-8")
        config = evaluation_config(source, described, described.content(weights), overrides)
        if described.vocabulary is not None and "tokenizer" in config["data"]:
            config["data"]["tokenizer"]["vocabulary"] = str(words)

        def load(method: Any) -> None:  # noqa: ANN401
            begin = f"{source.weights} does not fit the encoder that {described.place} describes"
            load_weights(method, weights, begin, advice="They are of two models.")

        called = re.sub(r"/.*/", "/", source.name)  # of a file its own name is enough
        name = re.sub(r"[^\w.+=-]+", "-", called).strip("-")[:80]
        return evaluate_weights(config, load, name=f"zero-shot-{name}", evaluates=source.name)


def evaluation_config(
    source: Source, described: Described, content: Mapping[str, Any], overrides: Iterable[str]
) -> dict[str, Any]:
    """Return the configuration of a run of no epochs that starts from a model.

    Args:
        source: Of the model.
        described: What it needs.
        content: The same without what its training started from.
        overrides: On which data, and by which rules.

    Raises:
        ValueError: If an override changes the model.
    """
    method = recipe_of(source, described.config)
    stored = to_plain(compose([f"method={method}"]))
    steps = described.preprocessing
    model = {
        "image_size": list(steps.image_size),
        "interpolation": steps.interpolation,
        **content["data"],
    }
    stored = {
        **stored,
        **{name: content[name] for name in ("method", *ENCODERS) if name in content},
        **{"stage": None, "checkpoint": None, "name": None, "source": None, "diagnostics": []},
        "data": {**stored["data"], **model},
    }
    settings = [f"{key}={value}" for key, value in described.evaluation.items()]
    config = to_plain(restore(stored, [*settings, *overrides]))
    config["trainer"]["max_epochs"] = 0
    config["choices"]["method"] = (described.config.get("choices") or {}).get("method") or method
    if source.weights.is_file():
        config["checkpoint"] = str(source.weights.resolve())
    data = config["data"]
    if "tokenizer" in data and described.config["data"].get("tokenizer") is None:
        raise ValueError(
            f"data={config['choices']['data']} gives image-caption pairs, and {source.name} is a "
            "model of images alone that knows no captions. Evaluate it on images of people, such "
            "as data=own_images data.root=<folder or .csv>."
        )
    is_pairs = "tokenizer" in data
    # nothing is chosen, so no people are held out of training images, which need not be there
    config["protocol"] = data["protocol"] = "official" if is_pairs else "last"
    data |= {"image_size": model["image_size"], "interpolation": steps.interpolation}
    data |= {key: None for key in ("eval_interpolation", "phrases") if key in data}
    data |= {key: "off" for key in ("camstyle",) if key in data}  # of training images alone
    if COLOURS not in described.evaluation and "normalization" in data:
        data["normalization"] = "given"
    colours = {"mean": list(steps.mean), "std": list(steps.std)}
    if is_pairs:
        colours["pixel_format"] = steps.pixel_format  # type: ignore[assignment]
    elif steps.pixel_format != "rgb01":
        raise ValueError(
            f"{source.name} takes images as {steps.pixel_format}, which data of images do not "
            "give. Evaluate it on image-caption pairs."
        )
    kind = "transforms.PairTransform" if is_pairs else "image_transform.ImageTransform"
    transform = data.get("transform") or {"_target_": f"crosswalk.data.pipeline.{kind}"}
    data["transform"] = {**transform, **colours}
    return config
