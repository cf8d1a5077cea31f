"""The division into right and wrong pairs: losses, mixtures, what was kept, and whether rightly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from crosswalk.diagnostics.division_quality import division_quality
from crosswalk.diagnostics.division_record import DivisionRecord, division_file, read_division
from crosswalk.diagnostics.figures import (
    BLUE,
    GREY,
    ORANGE,
    PURPLE,
    Curves,
    captioned,
    curve_figures,
    label,
    panels,
    side_by_side,
)
from crosswalk.diagnostics.mixture import boundaries, heaps
from crosswalk.pages import Section, table_tag
from crosswalk.run.run_folder import RunFolder

MOST_BINS = 60
QUALITY = Curves(
    "Precision and recall of the division",
    "share",
    {
        "train/clean_precision": "kept, precision",
        "train/clean_recall": "kept, recall",
        "train/noisy_precision": "rejected, precision",
        "train/noisy_recall": "rejected, recall",
    },
    "Kept pairs: how many of them are right, and how many of the right ones are kept. Rejected "
    "pairs: how many of them are injected noise, and how much of the noise is rejected. The noise "
    "is only looked at here, never trained on. All four should rise in the first epochs.",
)


def section(run_folder: RunFolder, history: Sequence[Mapping[str, Any]]) -> Section | None:
    """Return the section of a run that divided its pairs, None for others.

    Example:
        >>> from pathlib import Path
        >>> section(RunFolder(Path("runs/toy")), [{"epoch": 0, "train/loss": 1.0}]) is None
        True
    """
    files = [division_file(run_folder.path, which) for which in ("first", "last")]
    records = [read_division(path) for path in files if path.exists()]
    if len(records) == 2 and records[0].epoch == records[1].epoch:
        records = records[:1]
    num_pairs = len(records[0].clean) if records else None
    curves = curve_figures(_with_number_kept(history, num_pairs), [_kept(num_pairs), QUALITY])
    if not records and not curves:
        return None
    parts = [table_tag(*_table(records))] if records else []
    if records:
        parts.append(_histograms(records, run_folder.config().get("method", {})))
    bars = [_kept_by_truth(records)] if records and records[0].true_pair is not None else []
    parts.append(side_by_side([*bars, *curves]))
    return Section("division", "Division of the training pairs", Markup("\n").join(parts))


def _kept(num_pairs: int | None) -> Curves:
    unit = "share" if num_pairs is None else "pairs"
    of_all = "" if num_pairs is None else f" of {num_pairs:,}"
    return Curves(
        "Pairs kept",
        unit,
        {"train/clean_fraction" if num_pairs is None else "pairs kept": "kept"},
        f"Pairs{of_all} that an epoch is trained on. It should settle near the number of right "
        "pairs; near all or near none, the losses do not fall into two heaps.",
    )


def _with_number_kept(
    history: Sequence[Mapping[str, Any]], num_pairs: int | None
) -> Sequence[Mapping[str, Any]]:
    if num_pairs is None:
        return history
    return [
        {**line, "pairs kept": round(float(line["train/clean_fraction"]) * num_pairs)}
        if "train/clean_fraction" in line
        else line
        for line in history
    ]


def _table(records: Sequence[DivisionRecord]) -> tuple[list[str], list[list[object]]]:
    names = ["clean_precision", "clean_recall", "noisy_precision", "noisy_recall"]
    header = [
        *("epoch", "pairs", "kept", "all views: right", "views differ", "all views: wrong"),
        *("kept: precision", "recall", "rejected: precision", "recall"),
    ]
    rows = []
    for record in records:
        row: list[object] = [
            *(record.epoch + 1, len(record.clean), int(record.clean.sum())),
            int((record.votes == len(record.views)).sum()),
            int(((record.votes > 0) & (record.votes < len(record.views))).sum()),
            int((record.votes == 0).sum()),
        ]
        if record.true_pair is not None:
            import torch

            truth = torch.from_numpy(record.true_pair)
            quality = division_quality(torch.from_numpy(record.clean), truth)
            row += [f"{100 * quality[name]:.1f} %" if name in quality else "-" for name in names]
        rows.append(row)
    return header[: len(rows[0])], rows


def _histograms(records: Sequence[DivisionRecord], method: Mapping[str, Any]) -> Markup:
    """Return the losses of each view (rows) at each division (columns)."""
    views = records[0].views
    figure, axes = panels(len(views), len(records))
    division, seed = method.get("division") or {}, int(method.get("seed", 0))
    missing = False
    for column, record in enumerate(records):
        for row, view in enumerate(views):
            panel, losses = axes[row][column], record.losses[row].astype(np.float64)
            edges = np.histogram_bin_edges(losses, min(MOST_BINS, 2 * math.isqrt(len(losses)) + 1))
            total = np.histogram(losses, edges)[0]
            if record.true_pair is None:
                panel.stairs(total, edges, fill=True, color=BLUE, label="pairs")
            else:
                right = np.histogram(losses[record.true_pair], edges)[0]
                panel.stairs(right, edges, fill=True, color=BLUE, label="right")
                panel.stairs(total, edges, baseline=right, fill=True, color=ORANGE, label="noise")
            fitted = heaps(record, row, division=division, seed=seed)
            missing |= fitted is None
            grid = np.linspace(edges[0], edges[-1], 200)
            scale = len(losses) * (edges[1] - edges[0])
            for heap, colour, name in zip(
                fitted or (), (PURPLE, GREY), ("fit: right", "fit: wrong"), strict=False
            ):
                panel.plot(grid, scale * heap.density(grid), color=colour, lw=1.3, label=name)
            for place in boundaries(losses, record.prediction[row]):
                panel.axvline(place, color="black", linestyle="--", linewidth=1)
            label(panel, title=f"{view}, epoch {record.epoch + 1}", across="loss", up="pairs")
    axes[0][0].legend(fontsize=7, frameon=False)
    look_for = (
        "Losses of all training pairs at the first and the last division. The two Gaussians should "
        "stand apart, each over its own heap; a view calls a pair right on the low side of the "
        "dashed line, or between two of them, since a broad Gaussian wins on both sides of a "
        "narrow one. Where the heaps overlap, right and wrong pairs are mixed up."
    )
    if missing:
        look_for += (
            " Where no Gaussians are drawn, the run's fit could not be repeated from its losses."
        )
    return captioned(figure, alt="Losses of all training pairs by view", look_for=look_for)


def _kept_by_truth(records: Sequence[DivisionRecord]) -> Markup:
    figure, ((axes,),) = panels(1, 1)
    names, counts = [], []
    for record in records:
        for name, chosen in (("kept", record.clean), ("rejected", ~record.clean)):
            names.append(f"{name}\nepoch {record.epoch + 1}")
            counts.append(_by_truth(record, chosen))
    right, wrong = np.array(counts).T
    axes.bar(names, right, color=BLUE, label="right", width=0.7)
    axes.bar(names, wrong, bottom=right, color=ORANGE, label="noise", width=0.7)
    label(axes, title="Kept and rejected pairs", across="", up="pairs")
    axes.margins(y=0.2)  # room for the legend above the bars
    axes.legend(fontsize=7, frameon=False, ncols=2, loc="upper right")
    look_for = (
        "Each pair by what the division did with it and what it is. Noise among the kept pairs is "
        "trained on; right pairs among the rejected ones are lost."
    )
    return captioned(figure, alt="Kept and rejected pairs by truth", look_for=look_for)


def _by_truth(record: DivisionRecord, chosen: NDArray[np.bool_]) -> tuple[int, int]:
    assert record.true_pair is not None
    right = int((chosen & record.true_pair).sum())
    return right, int(chosen.sum()) - right
