"""A table with its verdict as the parts of a document, for Markdown and HTML, and in Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from crosswalk.lab.tables.kept import code_of, commit_of
from crosswalk.lab.tables.manifest import metric_label
from crosswalk.lab.tables.ordering import SEPARATED_RULE, Ordering, Pair
from crosswalk.lab.tables.verdict import NOT_RUN, NOTHING_PUBLISHED, SEED_RULE, Verdict
from crosswalk.lab.tables.words import (
    Grid,
    Part,
    conclusions,
    heading,
    main_metrics,
    obtained,
    percent,
    runs_of_row,
    source_line,
    spread,
    tau_text,
)

SAY_NOTHING = (NOTHING_PUBLISHED, NOT_RUN)
"""Verdicts that need no column, because the numbers show them."""
CHECKPOINTS = {"start": "weights before training", "best": "best epoch", "last": "last epoch"}


def document(verdict: Verdict) -> list[Part]:
    """Return the parts of the document; parts with nothing in them are left out."""
    parts = [
        Part("table", "Published and obtained", tuple(_introduction(verdict)), (_main(verdict),)),
        *_order_parts(verdict),
        *_others(verdict),
    ]
    if verdict.runs:
        parts.append(Part("runs", "Runs", (), (_runs(verdict),)))
    return parts


def render_markdown(verdict: Verdict) -> str:
    """Return the whole document in Markdown.

    It depends on manifest and results alone, not on the code that is installed, so that a
    committed file stays what its results render to.
    """
    lines = [f"# {heading(verdict)}", ""]
    for number, part in enumerate(document(verdict)):
        if number:
            lines += [f"## {part.title}", ""]
        for paragraph in part.paragraphs:
            lines += [paragraph, ""]
        for grid in part.grids:
            lines += [grid_in_markdown(grid), ""]
    return "\n".join(lines)


def grid_in_markdown(grid: Grid) -> str:
    r"""Return a table.

    Example:
        >>> print(grid_in_markdown(Grid(("row", "R@1"), (("a|b", "1.00"),), frozenset({1}))))
        | row | R@1 |
        |---|---:|
        | a\|b | 1.00 |
    """
    places = range(len(grid.header))
    rule = "".join("---:|" if place in grid.numbers else "---|" for place in places)
    rows = [
        [
            f"`{cell}`" if place in grid.code else cell.replace("|", r"\|")
            for place, cell in enumerate(row)
        ]
        for row in grid.rows
    ]
    head, *body = (f"| {' | '.join(row)} |" for row in (grid.header, *rows))
    return "\n".join([head, f"|{rule}", *body])


def _introduction(verdict: Verdict) -> list[str]:
    weights = defaultdict(list)
    for row in verdict.rows:
        weights[row.checkpoint].append(row.name)
    usual = max(weights, key=lambda name: len(weights[name]))
    others = "".join(
        f"; {CHECKPOINTS[name]}: {', '.join(rows)}"
        for name, rows in weights.items()
        if name != usual
    )
    lines = [
        source_line(verdict),
        f"Test results on {verdict.data} in percent, {CHECKPOINTS[usual]}{others}; mean ± standard "
        "deviation over runs with different seeds.",
        *verdict.notes,
    ]
    if verdict.is_on_published_data:
        lines.append(SEED_RULE)
    notes = [f"{row.name}: {row.note}" for row in verdict.rows if row.note]
    return [*lines, *notes, *([] if verdict.orderings else conclusions(verdict))]


def _main(verdict: Verdict) -> Grid:
    rows = verdict.rows
    columns = [("row", [row.name for row in rows]), ("runs", [runs_of_row(row) for row in rows])]
    numbers = {1}
    if any(row.verdict not in SAY_NOTHING for row in rows):
        columns.append(("verdict", [row.verdict for row in rows]))
    for position, metric in enumerate(verdict.metrics):
        label = metric_label(metric)
        cells = [row.cells[position] for row in rows]
        start = len(columns)
        if any(cell.published is not None for cell in cells):
            columns.append((f"{label} published", [percent(cell.published) for cell in cells]))
        found = [obtained(row, cell) for row, cell in zip(rows, cells, strict=True)]
        columns.append((f"{label} obtained", found))
        if any(cell.difference is not None for cell in cells):
            differences = [percent(cell.difference, sign=True) for cell in cells]
            columns.append((f"{label} difference", differences))
        numbers |= set(range(start, len(columns)))
    header, contents = zip(*columns, strict=True)
    return Grid(header, tuple(zip(*contents, strict=True)), frozenset(numbers))


def _order_parts(verdict: Verdict) -> list[Part]:
    if not verdict.orderings:
        return []
    claims = {ordering.claim for ordering in verdict.orderings}
    paragraphs = conclusions(verdict)
    if "order" in claims:
        paragraphs.append(
            "The source states an order of rows, not numbers for them: the first of a pair is the "
            "one said to be better."
        )
    orders = (_orders(verdict),)
    parts = [Part("order", "Order of the rows", (*paragraphs, SEPARATED_RULE), orders)]
    shown = main_metrics(verdict)
    flipped = [
        (ordering, pair)
        for ordering in verdict.orderings
        for pair in ordering.pairs
        if pair.outcome != "agrees" and ordering.metric in shown
    ]
    if flipped:
        labels = " and ".join(map(metric_label, shown))
        parts.append(Part("flips", f"Pairs that flip or tie in {labels}", (), (_pairs(flipped),)))
    first = verdict.orderings[0]
    agreeing = [(first, pair) for pair in first.pairs if pair.outcome == "agrees"]
    if agreeing:
        title = f"Pairs that agree in {metric_label(first.metric)}"
        parts.append(Part("agreeing", title, (), (_pairs(agreeing),)))
    return parts


def _orders(verdict: Verdict) -> Grid:
    header = (
        *("metric", "rows", "tau-b", "pairs", "agree", "agree, separated"),
        *("flip", "flip, separated", "tied"),
    )
    rows = []
    for ordering in verdict.orderings:
        counts = ordering.counts
        numbers = (
            *(counts.total, counts.agree, counts.agree_separated),
            *(counts.flip, counts.flip_separated, counts.tied),
        )
        first = (metric_label(ordering.metric), str(len(ordering.rows)), tau_text(ordering))
        rows.append((*first, *map(str, numbers)))
    return Grid(header, tuple(rows), frozenset(range(1, len(header))))


def _pairs(pairs: Sequence[tuple[Ordering, Pair]]) -> Grid:
    header = (
        *("metric", "better by the source", "than", "published lead", "obtained lead"),
        *("seeds", "95 % over queries", "verdict"),
    )
    rows = []
    for ordering, pair in pairs:
        queries = "not kept"
        if pair.queries is not None:
            queries = f"{pair.queries.low:+.2f} to {pair.queries.high:+.2f}"
        words = {True: "separated", False: "within noise", None: "spread unknown"}
        degree = "" if pair.outcome == "tied" else f", {words[pair.separated]}"
        rows.append(
            (
                *(metric_label(ordering.metric), pair.better, pair.worse),
                percent(pair.published, sign=True),
                spread(pair.obtained, pair.spread, sign=True),
                *(str(len(pair.by_seed)), queries, f"{pair.outcome}{degree}"),
            )
        )
    return Grid(header, tuple(rows), frozenset(range(3, 7)))


def _others(verdict: Verdict) -> list[Part]:
    parts = []
    labels = tuple(metric_label(metric) for metric in verdict.metrics)
    columns = frozenset(range(1, 1 + len(labels)))
    none = (None,) * len(labels)
    if verdict.references:
        rows = [
            (each.name, *map(percent, each.published), each.source) for each in verdict.references
        ]
        grid = Grid(("method", *labels, "source"), tuple(rows), columns)
        parts.append(Part("references", "Other methods, as published; not run", (), (grid,)))
    if verdict.not_offered:
        rows = [
            (each.name, *map(percent, each.published or none), each.reason)
            for each in verdict.not_offered
        ]
        grid = Grid(("design", *labels, "reason"), tuple(rows), columns)
        parts.append(Part("not-offered", "As published; not offered here", (), (grid,)))
    return parts


def _runs(verdict: Verdict) -> Grid:
    groups = defaultdict(list)
    for run in verdict.runs:
        command = run["command"].replace(f" seed={run['seed']}", "")
        digest = code_of(run) if run.get("code") else "not kept"
        groups[run["row"], command, commit_of(run), digest].append(run["seed"])
    rows = [
        (row, ", ".join(map(str, seeds)), commit, digest, f"{command} seed={seeds[0]}")
        for (row, command, commit, digest), seeds in groups.items()
    ]
    header = ("row", "seeds", "commit", "code", "command")
    return Grid(header, tuple(rows), frozenset(), code=frozenset({4}))
