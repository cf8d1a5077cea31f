"""`crosswalk export`: a model as a folder that can be given away."""

from __future__ import annotations

import json
from pathlib import Path

from crosswalk.config.model_file import CARD, EXPORTED, WEIGHTS
from crosswalk.files import write_text
from crosswalk.run.weights import halved, save_weights
from crosswalk.use.calling import merged
from crosswalk.use.card import card_of
from crosswalk.use.described import described_by
from crosswalk.use.load import weights_of
from crosswalk.use.model import fingerprint_of
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
    fingerprint = fingerprint_of(
        {name: row.float() if row.is_floating_point() else row for name, row in weights.items()},
        json.dumps(described.content(weights), sort_keys=True),
    )
    card = card_of(source, described)
    card = merged(card, target, "safetensors", fingerprint=fingerprint, half=half)
    weights = halved(weights) if half else weights
    target.mkdir(parents=True, exist_ok=True)
    save_weights(target / WEIGHTS, weights, method="", origin=source.name, architecture={})
    write_text(target / EXPORTED, described.to_json(weights))
    write_text(target / CARD, card)
    print(
        f"{len(weights)} tensors of {source.weights} are in {target}, with a card: {target / CARD}."
    )
    return 0
