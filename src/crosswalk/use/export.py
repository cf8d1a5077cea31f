"""`crosswalk export`: a model as a folder that can be given away."""

from __future__ import annotations

from pathlib import Path

from crosswalk.config.model_file import EXPORTED, WEIGHTS
from crosswalk.files import write_text
from crosswalk.run.weights import halved, save_weights
from crosswalk.use.card import card_of
from crosswalk.use.described import described_by
from crosswalk.use.load import weights_of
from crosswalk.use.source import CARD, Source


def export(source: Source, target: Path, *, half: bool = False) -> int:
    """Write weights, description and card of a model to a folder, say so, and return 0.

    Args:
        source: Of the model.
        target: The folder to make; `crosswalk.load` reads it.
        half: Whether floating point numbers are rounded to float16, half the size.

    Raises:
        ValueError: If the model is damaged.
    """
    described = described_by(source)
    weights = weights_of(source, described)
    weights = halved(weights) if half else weights
    target.mkdir(parents=True, exist_ok=True)
    save_weights(target / WEIGHTS, weights, method="", origin=source.name, architecture={})
    write_text(target / EXPORTED, described.to_json(weights))
    write_text(target / CARD, card_of(source, described))
    print(
        f"{len(weights)} tensors of {source.weights} are in {target}, with a card: {target / CARD}."
    )
    return 0


def check_target(target: Path) -> None:
    """Refuse a folder that holds something else than an earlier export.

    Raises:
        ValueError: If it does.
    """
    there = {path.name for path in target.iterdir()} if target.is_dir() else set()
    strange = sorted(there - {WEIGHTS, EXPORTED, CARD})
    if strange or target.is_file():
        what = f"holds {strange[0]}" if strange else "is a file"
        raise ValueError(f"--out {target} {what}. Name a new folder, or one of an earlier export.")
