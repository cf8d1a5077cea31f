"""What the runs of a table say about the published numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosswalk.lab.tables.kept import Queries, Run, code_of, measured, runs_of
from crosswalk.lab.tables.manifest import Manifest, NotOffered, Reference, Row, metric_label
from crosswalk.lab.tables.noise import Interval, QueryNoise, prediction_interval
from crosswalk.lab.tables.ordering import Counts, Ordering, compare_order, count, flips

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


@dataclass(frozen=True)
class Verdict:
    """A table with what it says.

    Attributes:
        table: ``<method>/<table>``.
        title: What it shows.
        source: Where the published numbers are from.
        data: What the rows were run on.
        published_data: What the published numbers are about.
        is_on_published_data: Whether absolute numbers are compared.
        metrics: Columns; the first one is the headline.
        rows: The lines.
        orderings: The order of rows, one per metric for which something is claimed.
        references: Other methods, never run.
        not_offered: What cannot be run.
        runs: The entries that the numbers are from.
        code: Version of the code that is installed now, by row; None if it was not asked for.
        notes: What a reader has to know before trusting the numbers.
    """

    table: str
    title: str
    source: Mapping[str, Any]
    data: str
    published_data: str
    is_on_published_data: bool
    metrics: tuple[str, ...]
    rows: tuple[RowVerdict, ...]
    orderings: tuple[Ordering, ...]
    references: tuple[Reference, ...]
    not_offered: tuple[NotOffered, ...]
    runs: tuple[Run, ...]
    code: Mapping[str, str] | None
    notes: tuple[str, ...]


def judge(
    manifest: Manifest,
    results: Sequence[Run],
    queries: Queries | None = None,
    *,
    code: Mapping[str, str] | None = None,
) -> Verdict:
    """Return what the runs say about the published numbers of a table.

    On the data that the numbers were published for, every number is held against the spread over
    seeds (`SEED_RULE`). On all data, the order of the rows is held against the published one
    (`crosswalk.lab.tables.ordering`); elsewhere than on its own data that is all that a published
    table can be asked.

    Args:
        manifest: The table, on the data that it was run on (`Manifest.with_data`).
        results: Entries of its results; those of other overrides than the rows have now do not
            count.
        queries: Per-query measures; None where they were not kept.
        code: Version of the code to hold the runs' against, by row; None: not compared.
    """
    runs = {row.name: runs_of(manifest, row, results) for row in manifest.rows}
    numbers = {
        metric: {
            row.name: {
                seed: value
                for seed, run in runs[row.name].items()
                if (value := measured(run, row, metric)) is not None
            }
            for row in manifest.rows
        }
        for metric in manifest.metrics
    }
    noise = QueryNoise(_query_means(numbers, queries or {}))
    orderings = [
        ordering
        for position, metric in enumerate(manifest.metrics)
        if (ordering := _ordering(manifest, position, numbers[metric], noise)) is not None
    ]
    rows = [_judge_row(manifest, row, runs[row.name], numbers, orderings) for row in manifest.rows]
    used = [run for row in manifest.rows if row.run is None for run in runs[row.name].values()]
    return Verdict(
        table=f"{manifest.path.parent.name}/{manifest.path.stem}",
        title=manifest.title,
        source=manifest.source,
        data=manifest.data,
        published_data=manifest.published_data,
        is_on_published_data=manifest.is_on_published_data,
        metrics=manifest.metrics,
        rows=tuple(rows),
        orderings=tuple(orderings),
        references=manifest.references,
        not_offered=manifest.not_offered,
        runs=tuple(used),
        code=code,
        notes=tuple(_notes(manifest, results, used, rows, orderings)),
    )


def _query_means(
    numbers: Mapping[str, Mapping[str, Mapping[int, float]]], queries: Queries
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Return ``[queries]`` percentages by row and metric, mean over the seeds of the row."""
    columns = {}
    for metric, rows in numbers.items():
        for row, by_seed in rows.items():
            names = [f"{row}|{seed}|{metric}" for seed in by_seed]
            if names and all(name in queries for name in names):
                arrays = [np.asarray(queries[name], dtype=np.float64) for name in names]
                columns[row, metric] = 100 * np.mean(arrays, axis=0)
                _check_queries(columns[row, metric], mean(by_seed.values()), row, metric)
    return columns


def _check_queries(values: NDArray[np.float64], obtained: float, row: str, metric: str) -> None:
    if abs(np.nanmean(values) - obtained) > 0.01:
        raise ValueError(
            f"the kept queries of row '{row}' have a mean {metric} of {np.nanmean(values):.2f} %, "
            f"its runs {obtained:.2f} %: the .queries.npz beside the results is of other runs. "
            "Delete it, or write both again with `crosswalk ablate`."
        )


def _ordering(
    manifest: Manifest,
    position: int,
    obtained: Mapping[str, Mapping[int, float]],
    noise: QueryNoise,
) -> Ordering | None:
    published = {
        row.name: number
        for row in manifest.rows
        if row.published is not None and (number := row.published[position]) is not None
    }
    # numbers say more than an order, unless the order speaks of more rows
    claim = "numbers" if len(published) >= max(2, len(manifest.order)) else "order"
    places = {name: -float(place) for name, place in manifest.places.items()}
    claimed = published if claim == "numbers" else places
    return compare_order(manifest.metrics[position], claimed, obtained, noise, claim=claim)


def _notes(
    manifest: Manifest,
    results: Sequence[Run],
    used: Sequence[Run],
    rows: Sequence[RowVerdict],
    orderings: Sequence[Ordering],
) -> list[str]:
    notes = [manifest.note] if manifest.note else []
    if manifest.overrides:
        notes.append(f"All rows were run with {' '.join(manifest.overrides)}.")
    if not any(row.published for row in manifest.rows):
        notes.append("The source gives no numbers for these rows.")
    elif manifest.data != manifest.published_data:
        notes.append(
            f"Absolute numbers are not compared: the published ones are for "
            f"{manifest.published_data}, these runs used {manifest.data}. What can be compared is "
            "the order of the rows."
        )
    names = {row.name for row in manifest.rows}
    left_out = [run["row"] for run in results if not any(run is each for each in used)]
    if left_out:
        known = sorted({name for name in left_out if name in names})
        notes.append(
            f"Kept runs that are left out, because their overrides are not those that the table "
            f"has now: {len(left_out)} ({'; '.join(known) or 'of rows that it no longer has'})."
        )
    few = [pair for ordering in orderings for pair in ordering.pairs if pair.queries is None]
    if few:
        notes.append(
            f"Queries were not kept for {len(few)} of "
            f"{sum(len(ordering.pairs) for ordering in orderings)} compared pairs; these are "
            "judged by their spread over seeds alone."
        )
    mixed = {row.name for row in rows if len(row.code) > 1}
    # a digest is about the code of its own row, a commit, which old runs have, about all code
    about_all = any(not run.get("code") for run in used)
    versions = Counter(code_of(run) for run in used if about_all or run["row"] in mixed)
    if len(versions) > 1:
        counts = ", ".join(f"{code}: {number}" for code, number in versions.most_common())
        notes.append(f"The runs were not all made by the same code (version: runs): {counts}.")
    changed = sum(bool(run.get("dirty")) for run in used)
    if changed:
        notes.append(f"Runs with changes that their commit does not have: {changed}.")
    return notes


def _judge_row(
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
