"""What the runs of a table say about the published numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosswalk.lab.tables.kept_runs import Queries, Run, code_of, measured, runs_of
from crosswalk.lab.tables.manifest import Manifest, NotOffered, Reference
from crosswalk.lab.tables.ordering import Ordering, compare_order
from crosswalk.lab.tables.query_noise import QueryNoise
from crosswalk.lab.tables.row_verdict import RowVerdict, judge_row


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
    overrides: Sequence[str] = (),
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
        overrides: Those of the base that the table itself does not have, to be said with it.
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
    rows = [judge_row(manifest, row, runs[row.name], numbers, orderings) for row in manifest.rows]
    used = [run for row in manifest.rows if row.run is None for run in runs[row.name].values()]
    notes = _notes(manifest, results, used, rows, orderings)
    if overrides:
        notes.insert(0, f"All rows were run with {' '.join(overrides)}.")
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
        notes=tuple(notes),
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
    notes = []
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
