"""Positive labels of training images: how many, and how many of them are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from crosswalk.diagnostics.figures import (
    BLUE,
    Curves,
    captioned,
    curve_figures,
    label,
    panels,
    side_by_side,
)
from crosswalk.diagnostics.label_record import LabelRecord, label_file, read_labels
from crosswalk.pages import Section
from crosswalk.run.run_folder import RunFolder

WANTED = (
    Curves(
        "Labels per image",
        "labels",
        {"train/labels_per_sample": "labels"},
        "Training images that an image is labelled with, itself included; 1 until labels are "
        "predicted. It should come near the number of images of a person.",
    ),
    Curves(
        "Right labels",
        "share",
        {"train/label_precision": "precision", "train/label_recall": "recall"},
        "Precision: share of the labels, own ones aside, that show the same person. Recall: share "
        "of a person's other images that are found. Precision should stay high while recall "
        "grows. Identities are only looked at here, never trained on.",
    ),
)
MOST_BARS = 40


def section(run_folder: RunFolder, history: Sequence[Mapping[str, Any]]) -> Section | None:
    """Return the section of a run that gave images several labels, None for others.

    Example:
        >>> from pathlib import Path
        >>> section(RunFolder(Path("runs/toy")), [{"epoch": 0, "train/loss": 1.0}]) is None
        True
    """
    figures = curve_figures(history, WANTED)
    path = label_file(run_folder.path)
    if path.exists():
        figures.append(_distribution(read_labels(path)))
    return Section("labels", "Labels per image", side_by_side(figures)) if figures else None


def _distribution(record: LabelRecord) -> Markup:
    """Return a histogram of the labels per image; the last bar may hold all larger numbers."""
    from matplotlib.ticker import MaxNLocator

    numbers = record.num_labels
    largest = int(min(numbers.max(initial=1), MOST_BARS))
    counts = np.bincount(np.minimum(numbers, largest), minlength=largest + 1)
    figure, ((axes,),) = panels(1, 1)
    axes.bar(np.arange(largest + 1), counts, color=BLUE, width=0.9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    title = f"Labels per image in epoch {record.epoch + 1}"
    label(axes, title=title, across="labels", up="images")
    own_alone = f"{counts[1]:,} have none but their own"
    more = f" The last bar holds all with {largest} or more." if numbers.max() > largest else ""
    look_for = (
        f"{len(numbers):,} images, {np.median(numbers):g} labels in the middle, "
        f"{numbers.max()} at most; {own_alone}.{more} A long tail means that look-alikes are put "
        "together; a bar at 1 alone, that nothing is found."
    )
    return captioned(figure, alt=title, look_for=look_for)
