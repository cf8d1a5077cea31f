"""Whether rows come out in the order that was published, pair by pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isnan
from statistics import mean, stdev

from scipy.stats import kendalltau

from crosswalk.lab.tables.noise import QueryNoise, mean_interval
from crosswalk.metrics.paired import Difference

SEPARATED_RULE = (
    "A difference is separated if its sign survives both other seeds and other queries: the 95 % "
    "interval of the mean over seeds (Student's t, paired by seed) and the 95 % paired bootstrap "
    "interval over queries leave out 0. Where queries were not kept, the seeds decide; with one "
    "seed in common nothing is called separated. Each pair is judged by itself, with no correction "
    "for the number of pairs."
)


@dataclass(frozen=True)
class Pair:
    """Two rows of which the source says that one is better.

    Attributes:
        better: The row that is better by the source.
        worse: The other one.
        published: Its lead in the source in points; None where the source only states an order.
        obtained: Its lead here in points, of the means over runs; negative = the pair flips.
        by_seed: The same for every seed that both rows have.
        spread: Standard deviation of `by_seed`; None for fewer than two.
        queries: Paired bootstrap over queries; None where queries were not kept.
        separated: Whether the lead is beyond the noise (`SEPARATED_RULE`); None if unknown.
    """

    better: str
    worse: str
    published: float | None
    obtained: float
    by_seed: tuple[float, ...]
    spread: float | None
    queries: Difference | None
    separated: bool | None

    @property
    def outcome(self) -> str:
        """Return "agrees", "flips" or "tied"."""
        return "agrees" if self.obtained > 0 else "flips" if self.obtained < 0 else "tied"


@dataclass(frozen=True)
class Counts:
    """Pairs by outcome.

    Attributes:
        agree: Pairs in the published order.
        agree_separated: Those of them beyond the noise.
        flip: Pairs the other way round.
        flip_separated: Those of them beyond the noise.
        flip_unknown: Those of them for which the noise is not known.
        tied: Pairs that came out equal.
    """

    agree: int
    agree_separated: int
    flip: int
    flip_separated: int
    flip_unknown: int
    tied: int

    @property
    def total(self) -> int:
        """The number of pairs."""
        return self.agree + self.flip + self.tied


@dataclass(frozen=True)
class Ordering:
    """The order of the rows by one metric.

    Attributes:
        metric: Name of the metric.
        claim: "numbers" (published ones) or "order" (the source only states an order).
        rows: Rows compared.
        claimed: What the source says of them, larger is better: percentages, or places below 0.
        tau: Kendall's tau-b between claim and obtained means, in [-1, 1]; None if undefined.
        pairs: All pairs that the claim tells apart.
        counts: The pairs by outcome.
    """

    metric: str
    claim: str
    rows: tuple[str, ...]
    claimed: tuple[float, ...]
    tau: float | None
    pairs: tuple[Pair, ...]
    counts: Counts

    @property
    def conclusion(self) -> str:
        """Return in words whether the order holds."""
        counts = self.counts
        agree = f"{counts.agree} of {counts.total} pairs agree ({counts.agree_separated} separated)"
        if counts.flip == 0 and counts.tied == 0:
            return f"the order holds: {agree}"
        rest = f"{agree}; {flips(counts)}"
        if counts.flip_separated:
            return f"the order does not hold: {rest}"
        if counts.flip_unknown and counts.flip > counts.agree:
            return f"the order does not hold, as far as single runs tell: {rest}"
        if counts.flip_unknown:
            return f"the order holds in part: {rest}"
        return f"nothing contradicts the order beyond noise: {rest}"


def flips(counts: Counts) -> str:
    """Return the flipped and the tied pairs in words, empty if there are none.

    Example:
        >>> flips(Counts(3, 1, flip=2, flip_separated=1, flip_unknown=0, tied=1))
        '2 flip (1 separated, 1 within noise), 1 tied'
        >>> flips(Counts(3, 1, flip=1, flip_separated=0, flip_unknown=1, tied=0))
        '1 flips (spread unknown)'
    """
    parts = []
    if counts.flip:
        within = counts.flip - counts.flip_separated - counts.flip_unknown
        numbers = (counts.flip_separated, within, counts.flip_unknown)
        words = ("separated", "within noise", "spread unknown")
        degrees = [(number, word) for number, word in zip(numbers, words, strict=True) if number]
        degree = degrees[0][1]
        if len(degrees) > 1:
            degree = ", ".join(f"{number} {word}" for number, word in degrees)
        parts.append(f"{counts.flip} {'flips' if counts.flip == 1 else 'flip'} ({degree})")
    if counts.tied:
        parts.append(f"{counts.tied} tied")
    return ", ".join(parts)


def compare_order(
    metric: str,
    claimed: Mapping[str, float],
    obtained: Mapping[str, Mapping[int, float]],
    noise: QueryNoise,
    *,
    claim: str,
) -> Ordering | None:
    """Return how the rows' order agrees with the claimed one; None for fewer than two rows.

    Rows that the claim sets equal make no pair.

    Args:
        metric: Name of the metric.
        claimed: By row what the source says, larger is better: percentages, or places.
        obtained: By row and seed the percentage; rows without runs are left out.
        noise: The bootstrap over queries.
        claim: "numbers" or "order".

    Example:
        >>> runs = {"A": {1: 50.0, 2: 52.0}, "B": {1: 51.0, 2: 52.5}, "C": {1: 40.0, 2: 40.0}}
        >>> published = {"A": 70.0, "B": 69.0, "C": 60.0}
        >>> ordering = compare_order("map", published, runs, QueryNoise({}), claim="numbers")
        >>> round(ordering.tau, 3), ordering.pairs[0].outcome, ordering.pairs[0].by_seed
        (0.333, 'flips', (-1.0, -0.5))
    """
    rows = [row for row in claimed if obtained.get(row)]
    if len(rows) < 2:
        return None
    # rounded: metrics are logged as float32, and runs equal to its precision are tied
    means = {row: round(mean(obtained[row].values()), 4) for row in rows}
    pairs = []
    for first, second in combinations(rows, 2):
        if claimed[first] == claimed[second]:
            continue
        better, worse = sorted((first, second), key=lambda row: -claimed[row])
        seeds = [seed for seed in obtained[better] if seed in obtained[worse]]
        by_seed = tuple(obtained[better][seed] - obtained[worse][seed] for seed in seeds)
        # over the seeds that both have, where there are any: what the intervals are about
        lead = round(mean(by_seed), 4) if by_seed else means[better] - means[worse]
        queries = noise.difference(metric, better=better, worse=worse)
        pairs.append(
            Pair(
                better=better,
                worse=worse,
                published=claimed[better] - claimed[worse] if claim == "numbers" else None,
                obtained=lead,
                by_seed=by_seed,
                spread=stdev(by_seed) if len(by_seed) > 1 else None,
                queries=queries,
                separated=_is_separated(lead, by_seed, queries),
            )
        )
    places = tuple(claimed[row] for row in rows)
    tau = float(kendalltau(places, list(means.values())).statistic)  # tau-b
    return Ordering(
        metric=metric,
        claim=claim,
        rows=tuple(rows),
        claimed=places,
        tau=None if isnan(tau) else tau,
        pairs=tuple(pairs),
        counts=count(pairs),
    )


def _is_separated(lead: float, by_seed: Sequence[float], queries: Difference | None) -> bool | None:
    over_seeds = mean_interval(by_seed)
    known = [interval for interval in (over_seeds, queries) if interval is not None]
    if not all(each.low > 0 if lead > 0 else each.high < 0 for each in known):
        return False
    return None if over_seeds is None else True


def count(pairs: Sequence[Pair]) -> Counts:
    """Return the pairs by outcome."""
    agree = [pair for pair in pairs if pair.outcome == "agrees"]
    flip = [pair for pair in pairs if pair.outcome == "flips"]
    return Counts(
        agree=len(agree),
        agree_separated=sum(pair.separated is True for pair in agree),
        flip=len(flip),
        flip_separated=sum(pair.separated is True for pair in flip),
        flip_unknown=sum(pair.separated is None for pair in flip),
        tied=len(pairs) - len(agree) - len(flip),
    )
