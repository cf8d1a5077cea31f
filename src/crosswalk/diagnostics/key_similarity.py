"""Momentum contrast: how similar a query is to its own key and to those of the queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crosswalk.diagnostics.figures import Curves, curve_figures, side_by_side
from crosswalk.pages import Section
from crosswalk.run.run_folder import RunFolder

WANTED = (
    Curves(
        "Similarity to keys",
        "cosine",
        {
            "train/positive_similarity": "own partner's key",
            "train/negative_similarity": "keys of others in the queue",
        },
        "Mean cosine of images and captions with the key of their own partner, and with the keys "
        "of other people in the queue. The gap should open. Both near 1 means that everything "
        "collapses onto one point; a gap that never opens, that the contrast teaches nothing.",
    ),
)


def section(run_folder: RunFolder, history: Sequence[Mapping[str, Any]]) -> Section | None:
    """Return the section of a run that contrasted with keys, None for others.

    Example:
        >>> from pathlib import Path
        >>> section(RunFolder(Path("runs/toy")), [{"epoch": 0, "train/loss": 1.0}]) is None
        True
    """
    if not any("train/positive_similarity" in line for line in history):
        return None
    figures = curve_figures(history, WANTED)
    return Section("keys", "Positive and negative similarity", side_by_side(figures))
