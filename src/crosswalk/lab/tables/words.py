"""What tables say in words, wherever they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from crosswalk.lab.tables.manifest import metric_label
from crosswalk.lab.tables.ordering import Ordering
from crosswalk.lab.tables.verdict import Cell, RowVerdict, Verdict

MAIN_METRICS = ("rank1", "map")
"""Metrics that are shown where there is no room for all."""


class Grid(NamedTuple):
    """A table in words.

    Attributes:
        header: Its columns.
        rows: Its cells.
        numbers: Positions of the columns that stand on the right.
        code: Positions of the columns that hold commands.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int]
    code: frozenset[int] = frozenset()


class Part(NamedTuple):
    """One part of the document: an anchor, a heading, paragraphs and then tables."""

    anchor: str
    title: str
    paragraphs: tuple[str, ...]
    grids: tuple[Grid, ...]


def percent(value: float | None, *, sign: bool = False, digits: int = 2) -> str:
    """Return a number, a dash for none.

    Example:
        >>> percent(71.333), percent(-0.5, sign=True), percent(0.5, sign=True, digits=1)
        ('71.33', '-0.50', '+0.5')
        >>> percent(None)
        '-'
    """
    return "-" if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def spread(center: float, std: float | None, *, sign: bool = False, digits: int = 2) -> str:
    """Return mean ± standard deviation; one run has no ±.

    Example:
        >>> spread(71.3, 0.25), spread(71.3, None), spread(1.5, 0.5, sign=True, digits=1)
        ('71.30 ± 0.25', '71.30', '+1.5 ± 0.5')
    """
    end = "" if std is None else f" ± {percent(std, digits=digits)}"
    return percent(center, sign=sign, digits=digits) + end


def obtained(row: RowVerdict, cell: Cell) -> str:
    """Return what the runs of a row gave, or why there is nothing."""
    if cell.mean is not None:
        return spread(cell.mean, cell.std)
    return "not measured" if row.seeds else "not run"


def runs_of_row(row: RowVerdict) -> str:
    """Return how many runs a row's numbers are from."""
    if not row.seeds:
        return "not run"
    missing = len(set(row.planned) - set(row.seeds))
    return f"{len(row.seeds)} of {len(row.seeds) + missing}" if missing else str(len(row.seeds))


def heading(verdict: Verdict) -> str:
    """Return what the table shows, and on which data if they are not those of the title."""
    moved = verdict.data != verdict.published_data
    return f"{verdict.title}; here on {verdict.data}" if moved else verdict.title


def main_metrics(verdict: Verdict) -> tuple[str, ...]:
    """Return the headline metric and those that are usually looked at."""
    return tuple(
        name
        for position, name in enumerate(verdict.metrics)
        if position == 0 or name in MAIN_METRICS
    )


def source_line(verdict: Verdict) -> str:
    """Return where the published numbers are from, in a sentence."""
    source = verdict.source
    checked = "checked against the paper" if source["verified"] else "not checked against the paper"
    note = f" {source['note']}" if source.get("note") else ""
    return f"Source: {place_in_paper(source)} ({checked}).{note}"


def place_in_paper(source: Mapping[str, Any]) -> str:
    """Return the paper and its table or figure.

    Example:
        >>> place_in_paper({"paper": "RDE (CVPR 2024)", "table": "2"})
        'RDE (CVPR 2024), Table 2'
        >>> place_in_paper({"paper": "RDE (CVPR 2024)", "table": "Figs. 4 and 6"})
        'RDE (CVPR 2024), Figs. 4 and 6'
        >>> place_in_paper({"paper": "ours", "table": None})
        'ours'
    """
    table = str(source.get("table") or "")
    numbered = f"Table {table}" if table[:1].isdigit() else table
    return ", ".join(filter(None, [source["paper"], numbered]))


def conclusions(verdict: Verdict) -> list[str]:
    """Return the outcome in sentences, the first metric first."""
    lines, within = [], []
    for position, metric in enumerate(verdict.metrics):
        judged = [row.cells[position].within for row in verdict.rows]
        known = [each for each in judged if each is not None]
        if known:
            within.append(f"{metric_label(metric)} {sum(known)} of {len(known)}")
    if within:
        lines.append(f"Published numbers within seed noise: {', '.join(within)}.")
    shown = main_metrics(verdict)
    for ordering in verdict.orderings:
        if ordering.metric in shown:
            lines.append(
                f"{metric_label(ordering.metric)}: {ordering.conclusion}. Kendall's tau-b "
                f"{tau_text(ordering)} over {len(ordering.rows)} rows."
            )
    return lines


LEGEND = {
    "separated": "other seeds and other queries would leave the sign of the difference",
    "within noise": "they might turn it",
    "spread unknown": "one seed does not tell",
    "within seed noise": "where one more run may lie",
    "tau-b": "1 is the published order, -1 its reverse",
}
"""What words of verdicts and conclusions mean, in a few words."""


def legend(lines: Iterable[str]) -> str:
    """Return what words of the lines mean in a sentence, empty if there are none of `LEGEND`.

    Example:
        >>> legend(["1 flips (spread unknown)"])
        'Here "spread unknown" means: one seed does not tell.'
    """
    said = " ".join(lines)
    meant = [f'"{word}" means: {meaning}' for word, meaning in LEGEND.items() if word in said]
    return f"Here {'; '.join(meant)}." if meant else ""


def other_code(verdict: Verdict) -> str:
    """Return which rows were made by other code than is installed now, empty if none was."""
    if verdict.code is None:
        return ""
    ran = [row for row in verdict.rows if row.seeds]
    others = [row.name for row in ran if set(row.code) - {verdict.code.get(row.name)}]
    names = "all rows" if len(others) == len(ran) else "; ".join(others)
    return f"Made by other code than is installed now: {names}." if others else ""


def tau_text(ordering: Ordering) -> str:
    """Return Kendall's tau-b in words."""
    return "undefined" if ordering.tau is None else f"{ordering.tau:.2f}"
