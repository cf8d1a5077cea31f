"""What the runs of one row say about its published numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from crosswalk.lab.tables.kept_runs import Run, code_of
from crosswalk.lab.tables.manifest import Manifest, Row
from crosswalk.lab.tables.metric_names import metric_label
from crosswalk.lab.tables.ordering import Counts, Ordering, count, flips
from crosswalk.lab.tables.seed_noise import Interval, prediction_interval

NOT_RUN = "not run"
NOTHING_PUBLISHED = "nothing published to compare with"
SEED_RULE = (
    "A published number is within seed noise if it lies in the 95 % prediction interval of one "
    "more run, mean ± t(n - 1) · std · √(1 + 1/n) over the n seeds run here: the published spread "
    "is unknown, so its number is taken for one run. One run alone has no spread to judge by."
)


@dataclass(frozen=True)
class Cell:
    """One row's numbers for one metric, in percent.

    Attributes:
        metric: Name of the metric.
        published: The published number, None where there is none.
        by_seed: Obtained numbers by seed.
        mean: Their mean; None without runs.
        std: Their standard deviation (n - 1); None for fewer than two runs.
        difference: Mean minus published, in points; None where the two cannot be compared.
        interval: Where one more run would lie; None where nothing is to be judged by it.
        within: Whether the published number lies in it; None if not judged.
    """

    metric: str
    published: float | None
    by_seed: Mapping[int, float]
    mean: float | None
    std: float | None
    difference: float | None
    interval: Interval | None
    within: bool | None


@dataclass(frozen=True)
class RowVerdict:
    """One row of the table.

    Attributes:
        name: Its name.
        checkpoint: Weights that it is about: "start", "best" or "last".
        note: A sentence of the manifest about it.
        skipped: Why it is not run on these data.
        seeds: Seeds that were run.
        planned: Seeds that the table asks for.
        cells: Its numbers, one per metric of the table.
        counts: Its pairs by outcome in the first ordering; None if it is in none.
        code: Versions of the code that made its runs.
        verdict: In words what the runs say about the published numbers.
    """

    name: str
    checkpoint: str
    note: str | None
    skipped: str | None
    seeds: tuple[int, ...]
    planned: tuple[int, ...]
    cells: tuple[Cell, ...]
    counts: Counts | None
    code: tuple[str, ...]
    verdict: str


def judge_row(
    manifest: Manifest,
    row: Row,
    runs: Mapping[int, Run],
    numbers: Mapping[str, Mapping[str, Mapping[int, float]]],
    orderings: Sequence[Ordering],
) -> RowVerdict:
    """Return what is said of one row.

    Args:
        manifest: The table, on the data that it was run on.
        row: The row.
        runs: Its entries by seed.
        numbers: By metric, row and seed what was obtained, in percent.
        orderings: The order of the rows by metric.
    """
    cells = tuple(
        _cell(
            metric,
            row.published[position] if row.published else None,
            numbers[metric][row.name],
            compared=manifest.is_on_published_data,
        )
        for position, metric in enumerate(manifest.metrics)
    )
    pairs = [
        pair
        for ordering in orderings[:1]
        for pair in ordering.pairs
        if row.name in (pair.better, pair.worse)
    ]
    counts = count(pairs) if pairs else None
    if row.skipped is not None:
        verdict = f"not run here: {row.skipped}"
    elif not runs:
        verdict = NOT_RUN
    elif manifest.is_on_published_data and any(cell.published is not None for cell in cells):
        verdict = _against_published(cells)
    elif counts is not None:
        verdict = _against_order(counts)
    elif row.name in manifest.places or any(cell.published is not None for cell in cells):
        verdict = "no other row to compare with"
    else:
        verdict = NOTHING_PUBLISHED
    return RowVerdict(
        name=row.name,
        checkpoint=row.checkpoint,
        note=row.note,
        skipped=row.skipped,
        seeds=tuple(runs),
        planned=manifest.seeds,
        cells=cells,
        counts=counts,
        code=tuple(sorted({code_of(run) for run in runs.values()})),
        verdict=verdict,
    )


def _cell(
    metric: str, published: float | None, by_seed: Mapping[int, float], *, compared: bool
) -> Cell:
    values = list(by_seed.values())
    center = mean(values) if values else None
    difference = interval = within = None
    if compared and published is not None and center is not None:
        difference = center - published
        interval = prediction_interval(values)
        within = interval.holds(published) if interval is not None else None
    return Cell(
        metric=metric,
        published=published,
        by_seed=dict(by_seed),
        mean=center,
        std=stdev(values) if len(values) > 1 else None,
        difference=difference,
        interval=interval,
        within=within,
    )


def _against_published(cells: Sequence[Cell]) -> str:
    """Return which published numbers lie within, above and below the noise of the runs."""
    if all(cell.within is None for cell in cells):
        return "one run: spread unknown"
    groups: dict[str, list[str]] = {}
    for cell in cells:
        if cell.within is None or cell.difference is None:
            continue
        side = "above published" if cell.difference > 0 else "below published"
        side = "within seed noise" if cell.within else side
        groups.setdefault(side, []).append(metric_label(cell.metric))
    if len(groups) == 1:
        return next(iter(groups)) + (" in all metrics" if len(cells) > 1 else "")
    return "; ".join(f"{side}: {', '.join(labels)}" for side, labels in groups.items())


def _against_order(counts: Counts) -> str:
    separated = f" ({counts.agree_separated} separated)" if counts.agree_separated else ""
    parts = [f"{counts.agree} of {counts.total} pairs agree{separated}", flips(counts)]
    return "; ".join(part for part in parts if part)
