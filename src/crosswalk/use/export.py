"""`crosswalk export`: a model as a folder that can be given away."""

from __future__ import annotations

from pathlib import Path

from crosswalk.config.model_file import CARD, EXPORTED, THRESHOLDS, WEIGHTS
from crosswalk.files import write_text
from crosswalk.run.weights import halved, save_weights
from crosswalk.use.calibrate import thresholds_of
from crosswalk.use.calling import merged
from crosswalk.use.card import card_of
from crosswalk.use.described import described_by
from crosswalk.use.load import fingerprint_with, weights_of
from crosswalk.use.source import Source


def export(source: Source, target: Path, *, half: bool = False) -> int:
    """Write weights, description and card of a model to a folder, say so, and return 0.

    Args:
        source: Of the model.
        target: The folder to make; `crosswalk.load` reads it.
        half: Whether weights are rounded to float16, see `crosswalk.run.weights.halved`.

    Raises:
        ValueError: If the model is damaged.
    """
    described = described_by(source)
    weights = weights_of(source, described)
    card = card_of(source, described)
    fingerprint = fingerprint_with(weights, described)
    card = merged(card, target, "safetensors", fingerprint=fingerprint, half=half)
    weights = halved(weights) if half else weights
    thresholds = thresholds_of(source)
    target.mkdir(parents=True, exist_ok=True)
    save_weights(target / WEIGHTS, weights, method="", origin=source.name, architecture={})
    write_text(target / EXPORTED, described.to_json(weights))
    write_text(target / CARD, card)
    if thresholds is not None:
        fingerprint = fingerprint_with(weights, described)  # as they are loaded
        thresholds._replace(fingerprint=fingerprint).write(target / THRESHOLDS)
    else:
        (target / THRESHOLDS).unlink(missing_ok=True)  # of another model
        if source.is_of_a_run:
            print(
                f"It has no {THRESHOLDS}, as the run has no first scores on test: "
                f"`{source.folder.evaluate_command()}` keeps them, for a new export."
            )
    print(
        f"{len(weights)} tensors of {source.weights} are in {target}, with a card: {target / CARD}."
    )
    return 0
