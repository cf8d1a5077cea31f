"""Soft multilabels: the agreement that counts as such, and the pairs that reach it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crosswalk.diagnostics.figures import Curves, curve_figures, side_by_side
from crosswalk.pages import Section
from crosswalk.run.run_folder import RunFolder

WANTED = (
    Curves(
        "Agreement threshold",
        "agreement",
        {"train/agreement_threshold": "threshold"},
        "Similar pairs whose multilabels agree more than this are positive, the others hard "
        "negatives. It moves with the multilabels and should settle; a fall to 0 means that "
        "everything agrees or nothing does.",
    ),
    Curves(
        "Positive pairs",
        "pairs of a batch",
        {"train/positive_pairs": "positive pairs"},
        "Moving average of the pairs of a batch that are drawn together. Near 0 the "
        "discriminative loss has nothing to draw together; it is 0 before mining starts.",
    ),
    Curves(
        "True positive rate",
        "share",
        {"train/true_positive_rate": "right"},
        "Moving average of the share of positive pairs that show one person. Identities are only "
        "looked at here, never trained on. It should rise; a fall means that the multilabels "
        "confuse people.",
    ),
)


def section(run_folder: RunFolder, history: Sequence[Mapping[str, Any]]) -> Section | None:
    """Return the section of a run that mined pairs by their multilabels, None for others.

    Example:
        >>> from pathlib import Path
        >>> section(RunFolder(Path("runs/toy")), [{"epoch": 0, "train/loss": 1.0}]) is None
        True
    """
    if not any("train/agreement_threshold" in line for line in history):
        return None
    figures = curve_figures(history, WANTED)
    return Section("agreement", "Agreement of soft multilabels", side_by_side(figures))
