"""Clusters of images and captions over the epochs, before and after refinement."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from crosswalk.diagnostics.figures import (
    BLUE,
    ORANGE,
    Curves,
    curve_figures,
    line_of,
    side_by_side,
)
from crosswalk.pages import Section, table_tag
from crosswalk.run.run_folder import RunFolder

MEASURES = {
    "purity": (
        "share",
        "Share of the clustered samples that belong to the commonest person of their cluster. "
        "Refinement adds samples to clusters; it should not lower this much.",
    ),
    "ari": (
        "adjusted Rand index",
        "Agreement of clusters and identities, 0 by chance, 1 at best. It should rise over the "
        "epochs, and lie higher after refinement than before.",
    ),
    "nmi": (
        "share",
        "Normalised mutual information of clusters and identities. It is high for many tiny "
        "clusters too, so read it beside the number of clusters.",
    ),
    "clusters": (
        "clusters",
        "Compare their number with that of the people: far more means that people are split, far "
        "fewer that people are mixed.",
    ),
    "outliers": (
        "share",
        "Samples in no cluster. Refinement gives an outlier the cluster that its partner is in, "
        "so fewer should be left after it.",
    ),
}
"""By measure: its unit, and what to look for."""


def section(run_folder: RunFolder, history: Sequence[Mapping[str, Any]]) -> Section | None:
    """Return the section of a run that logged clusters, None for others.

    Example:
        >>> from pathlib import Path
        >>> section(RunFolder(Path("runs/toy")), [{"epoch": 0, "train/loss": 1.0}]) is None
        True
    """
    names = {
        match.group(1): _in_words(match.group(1))
        for line in history
        for key in line
        if (match := re.fullmatch(r"train/(.+)_clusters", key))
    }
    if not names:
        return None
    wanted = [
        Curves(
            title=_heading(measure),
            unit=unit,
            lines={f"train/{name}_{measure}": text for name, text in names.items()},
            look_for=look_for,
            styles={f"train/{name}_{measure}": _style(name) for name in names},
        )
        for measure, (unit, look_for) in MEASURES.items()
    ]
    rows: list[list[object]] = []
    for name, text in names.items():
        lines = [line_of(history, f"train/{name}_{measure}") for measure in MEASURES]
        rows.append([text, *(f"{each.values[-1]:.4g}" if each.values else "-" for each in lines)])
    table = table_tag(["last epoch", *map(_heading, MEASURES)], rows)
    body = table + side_by_side(curve_figures(history, wanted))
    return Section("clusters", "Clusters before and after refinement", body)


def _in_words(name: str) -> str:
    modality, _, refined = name.partition("_")
    return f"{modality}, {'after' if refined else 'before'} refinement"


def _heading(measure: str) -> str:
    return measure.upper() if measure in ("ari", "nmi") else measure.capitalize()


def _style(name: str) -> tuple[str, str]:
    """Return one colour for each modality, dashed before refinement."""
    return (
        BLUE if name.startswith("image") else ORANGE,
        "-" if name.endswith("_refined") else "--",
    )
