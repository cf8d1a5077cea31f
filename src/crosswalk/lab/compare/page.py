"""The page of a comparison: runs, differences, groups of queries, ranking lists side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from crosswalk.lab.compare.compare import BROKEN_DOWN, Breakdown, Change, ChangedQuery, Comparison
from crosswalk.lab.compare.runs import checkpoints_of, run_facts
from crosswalk.lab.compare.words import (
    ABOUT_INTERVALS,
    ABOUT_LISTS,
    row_of,
    sentences_on,
    signed,
    title_of,
    verdict_on,
)
from crosswalk.lab.report.ranking_lists import ranking_list_html
from crosswalk.metrics.paired import Difference
from crosswalk.pages import Section, render, render_page
from crosswalk.run.ranking_lists import people_of, queries_and_gallery, ranking_lists
from crosswalk.run.results import MEASURES

BAR = (180, 20)
"""Width and height of the picture of an interval, in units of its own."""


def comparison_page(comparison: Comparison) -> str:
    """Return the HTML of a comparison, one file.

    Ranking lists are shown for the first direction. Where the images or captions are not found
    any more, their section says so.
    """
    first, second = comparison.first, comparison.second
    names = [" + ".join(run.path.resolve().name for run in side.runs) for side in (first, second)]
    told = Markup("<br>").join(verdict_on(comparison))
    sections = [
        Section("verdict", "Verdict", Markup("<p>{}</p>").format(told)),
        Section("runs", "Runs", _runs(comparison)),
        Section("differences", "Differences", _differences(comparison)),
        Section("groups", "Groups of queries", _groups(comparison)),
    ]
    direction = first.directions[0]
    for anchor, title, queries in (
        ("better", "Queries that got better", comparison.directions[direction].better),
        ("worse", "Queries that got worse", comparison.directions[direction].worse),
    ):
        heading = f"{title} ({title_of(direction)})"
        sections.append(Section(anchor, heading, _lists(comparison, direction, queries)))
    checkpoints = checkpoints_of(first, second)
    subtitle = f"A: {names[0]}; B: {names[1]}. Split {first.split}, checkpoint {checkpoints}."
    return render_page("Comparison of runs", sections, subtitle=subtitle)


def _runs(comparison: Comparison) -> Markup:
    runs = [
        (side.label, run_facts(run, side.checkpoint))
        for side in (comparison.first, comparison.second)
        for run in side.runs
    ]
    return render(
        "compare/runs.html.j2",
        names=list(runs[0][1]),
        runs=runs,
        notes=comparison.notes,
        differing=comparison.differing,
    )


def _differences(comparison: Comparison) -> Markup:
    parts = [Markup('<p class="quiet">{}</p>').format(ABOUT_INTERVALS)]
    for name, each in (comparison.directions | comparison.views).items():
        parts.append(
            render(
                "compare/changes.html.j2",
                heading=title_of(name),
                sentences=sentences_on(each),
                rows=_rows(each.changes, _reach([change.difference for change in each.changes])),
            )
        )
    return Markup("\n").join(parts)


def _groups(comparison: Comparison) -> Markup:
    parts = []
    if comparison.data_problem:
        known = "Only the numbers of matches are known, not cameras and captions"
        parts.append(Markup("<p>{}: {}</p>").format(known, comparison.data_problem))
    for name, each in comparison.directions.items():
        parts.append(Markup("<h3>{}</h3>").format(title_of(name)))
        parts += [_breakdown(breakdown) for breakdown in each.breakdowns]
    return Markup("\n").join(parts)


def _breakdown(breakdown: Breakdown) -> Markup:
    large = [group for group in breakdown.groups if not group.is_small] or breakdown.groups
    reach = _reach([change.difference for group in large for change in group.changes])
    groups = [
        {
            "name": group.name,
            "is_small": group.is_small,
            "num_queries": group.num_queries,
            "rows": _rows(group.changes, reach, is_small=group.is_small),
        }
        for group in breakdown.groups
    ]
    measures = [MEASURES[name] for name in BROKEN_DOWN]
    return render("compare/groups.html.j2", title=breakdown.title, measures=measures, groups=groups)


def _rows(
    changes: Sequence[Change], reach: float, *, is_small: bool = False
) -> list[dict[str, Any]]:
    return [
        {
            **row_of(change)._asdict(),
            "bar": interval_tag(change.difference, reach, is_certain=not is_small),
        }
        for change in changes
    ]


def _reach(differences: Sequence[Difference]) -> float:
    """Return the largest distance of an interval's end from 0."""
    return max(max(abs(each.low), abs(each.high)) for each in differences)


def interval_tag(difference: Difference, reach: float, *, is_certain: bool = True) -> Markup:
    """Return a small drawing of an interval: 0 in the middle, green or red where it leaves out 0.

    Args:
        difference: The interval and its mean.
        reach: The distance from 0 to the edge of the drawing; what goes beyond is cut off. Equal
            within a table.
        is_certain: False draws it grey whatever it says.

    Example:
        >>> drawing = interval_tag(Difference(0.5, 0.25, 0.75, 1.0, 9), reach=1.0)
        >>> 'x1="112.5" x2="157.5"' in drawing, "var(--right)" in drawing
        (True, True)
    """
    width, height = BAR
    colour = "--quiet"
    if difference.is_separated and is_certain:
        colour = "--right" if difference.low > 0 else "--wrong"

    def place(value: float) -> float:
        share = min(max(value / reach, -1.0), 1.0) if reach else 0.0
        return round(width / 2 * (1 + share), 2)

    low, mean, high = (place(v) for v in (difference.low, difference.mean, difference.high))
    text = f"{signed(difference.mean)} [{signed(difference.low)}, {signed(difference.high)}]"
    return Markup(
        '<svg class="interval" viewBox="-4 0 {} {}" role="img" aria-label="{}">'
        '<line x1="{}" x2="{}" y1="0" y2="{}" stroke="var(--line)" stroke-width="2"/>'
        '<line x1="{}" x2="{}" y1="{}" y2="{}" stroke="var({})" stroke-width="3"/>'
        '<circle cx="{}" cy="{}" r="4" fill="var({})"/></svg>'
    ).format(
        *(width + 8, height, text),
        *(width / 2, width / 2, height),
        *(low, high, height / 2, height / 2, colour),
        *(mean, height / 2, colour),
    )


def _lists(comparison: Comparison, direction: str, queries: Sequence[ChangedQuery]) -> Markup:
    problem = comparison.data_problem
    lists: list[list[Markup]] = [[] for _ in queries]
    if problem:
        problem = f"The images and captions cannot be shown: {problem}"
    elif queries:
        lists, gone = _lists_of(comparison, direction, queries)
        if gone:
            problem = f"Some images are not where they were, {gone} for instance."
        if comparison.has_several_runs:
            problem = " ".join(filter(None, [problem, ABOUT_LISTS]))
    return render(
        "compare/lists.html.j2",
        problem=problem,
        queries=[
            {
                **query._asdict(),
                "first": f"{100 * query.first:.1f}",
                "second": f"{100 * query.second:.1f}",
                "lists": found,
            }
            for query, found in zip(queries, lists, strict=True)
        ],
    )


def _lists_of(
    comparison: Comparison, direction: str, queries: Sequence[ChangedQuery]
) -> tuple[list[list[Markup]], Path | None]:
    """Return both ranking lists of each query, and an image that is gone."""
    texts = queries_and_gallery(comparison.data, comparison.first.split, direction)  # type: ignore[arg-type]
    sides = (comparison.first, comparison.second)
    found = [
        ranking_lists(
            side.of(direction)[0],
            [query.row for query in queries],
            *texts,
            people=people_of(comparison.data),
        )
        for side in sides
    ]
    shown = [[each.query, *(item.item for item in each.found)] for side in found for each in side]
    files = {item for items in shown for item in items if isinstance(item, Path)}
    gone = min((file for file in files if not file.exists()), default=None)
    pages = [
        [ranking_list_html(each, title=side.label) for side, each in zip(sides, pair, strict=True)]
        for pair in zip(*found, strict=True)
    ]
    return pages, gone
