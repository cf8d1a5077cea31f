"""How a comparison is put into words and numbers, for the terminal and the page alike."""

from __future__ import annotations

from typing import NamedTuple

from crosswalk.lab.compare.compare import (
    BROKEN_DOWN,
    Change,
    Comparison,
    DirectionComparison,
)
from crosswalk.lab.compare.runs import VIEW, checkpoints_of
from crosswalk.run.results import DIRECTIONS, MEASURES

ABOUT_INTERVALS = (
    "Intervals are 95 % bootstrap intervals over queries: they say how much the choice of queries "
    "matters, as if queries of one person were independent. Other seeds of the trainings can move "
    "a difference by more."
)
ABOUT_LISTS = "AP is the mean over runs; ranks and lists are those of the first run of each side."


class Row(NamedTuple):
    """A change as it is printed, in percent."""

    name: str
    first: str
    second: str
    mean: str
    interval: str
    better: str
    worse: str
    equal: str


def signed(fraction: float) -> str:
    """Return a difference in percentage points, with its sign unless it is 0.

    Example:
        >>> signed(0.0123), signed(-0.5), signed(-1e-9)
        ('+1.23', '-50.00', '0.00')
    """
    text = f"{100 * fraction:+.2f}"
    return text[1:] if float(text) == 0 else text


def row_of(change: Change) -> Row:
    """Return the change as it is printed.

    Example:
        >>> from crosswalk.metrics.paired import Difference
        >>> difference = Difference(0.25, -0.125, 0.5, 0.9, 4)
        >>> row_of(Change("rank1", 0.5, 0.75, difference, better=1, worse=0, equal=3))
        ... # doctest: +NORMALIZE_WHITESPACE
        Row(name='R@1', first='50.00', second='75.00', mean='+25.00', interval='[-12.50, +50.00]',
            better='1', worse='0', equal='3')
    """
    difference = change.difference
    return Row(
        MEASURES[change.measure],
        f"{100 * change.first:.2f}",
        f"{100 * change.second:.2f}",
        signed(difference.mean),
        f"[{signed(difference.low)}, {signed(difference.high)}]",
        *(f"{number:,}" for number in (change.better, change.worse, change.equal)),
    )


def verdict(change: Change) -> str:
    """Return a sentence on one measure.

    Example:
        >>> from crosswalk.metrics.paired import Difference
        >>> difference = Difference(-0.25, -0.5, -0.125, 0.0, 4)
        >>> print(verdict(Change("map", 0.5, 0.25, difference, better=0, worse=3, equal=1)))
        mAP: B is worse by 25.00 points on these 4 queries; the interval leaves out 0.
    """
    difference, name = change.difference, MEASURES[change.measure]
    queries = f"these {difference.num_queries:,} queries"
    if change.better == change.worse == 0:
        return f"{name}: A and B are equal on each of {queries}."
    word = "better" if difference.mean > 0 else "worse"
    if difference.is_separated:
        size = signed(abs(difference.mean)).lstrip("+")
        return f"{name}: B is {word} by {size} points on {queries}; the interval leaves out 0."
    return (
        f"{name}: {queries} do not tell A and B apart; the interval of their difference, "
        f"{signed(difference.mean)} points, holds 0."
    )


def verdict_on(comparison: Comparison) -> list[str]:
    """Return three lines: what is compared, and the verdict on each of `BROKEN_DOWN`."""
    sides = (comparison.first, comparison.second)
    first, second = (" + ".join(run.path.resolve().name for run in side.runs) for side in sides)
    direction = comparison.first.directions[0]
    lines = [
        f"A is {first}, B is {second}: {title_of(direction)} on {sides[0].split}, "
        f"{checkpoints_of(*sides)}."
    ]
    for change in comparison.directions[direction].changes:
        if change.measure in BROKEN_DOWN:
            row, difference = row_of(change), change.difference
            said = "B is better." if difference.mean > 0 else "B is worse."
            if not difference.is_separated:
                said = "not told apart by these queries."
            lines.append(
                f"{row.name}: {row.first} → {row.second}, {row.mean} {row.interval}: {said}"
            )
    return lines


def sentences_on(direction: DirectionComparison) -> list[str]:
    """Return what stands beside the table of a direction, sentence by sentence.

    That is a verdict on each of `BROKEN_DOWN`; where there are several runs, the measure of each
    of them; and the number of queries that do not count.
    """
    sentences = [verdict(change) for change in direction.changes if change.measure in BROKEN_DOWN]
    if any(len(runs) > 1 for runs in direction.by_run):
        for measure in BROKEN_DOWN:
            sides = [
                ", ".join(f"{100 * run[measure]:.2f}" for run in runs) for runs in direction.by_run
            ]
            sentences.append(f"{MEASURES[measure]} run by run: A {sides[0]}; B {sides[1]}.")
    if direction.num_skipped == 1:
        sentences.append("1 query without a match counts nowhere.")
    elif direction.num_skipped:
        sentences.append(f"{direction.num_skipped:,} queries without a match count nowhere.")
    return sentences


def title_of(name: str) -> str:
    """Return a direction or a view in words.

    Example:
        >>> title_of("text_to_image"), title_of("view/token_selection")
        ('text → image', 'view token_selection alone')
    """
    if name.startswith(VIEW):
        return f"view {name.removeprefix(VIEW)} alone"
    return DIRECTIONS[name]
