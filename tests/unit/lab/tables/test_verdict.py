"""Verdicts of tables that were calculated by hand."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import numpy as np
import pytest

from crosswalk.lab.tables.noise import mean_interval, prediction_interval
from crosswalk.lab.tables.ordering import Counts, Ordering
from crosswalk.lab.tables.verdict import Verdict, judge
from tests.unit.lab.small_tables import runs_with, small_manifest, spread_over_queries

T_TWO = 4.302652729911275
"""97.5 % quantile of Student's t with two degrees of freedom."""


def row_of(verdict: Verdict, name: str):  # noqa: ANN201
    return next(row for row in verdict.rows if row.name == name)


def test_one_more_run_lies_within_the_prediction_interval() -> None:
    low, high = prediction_interval([70.0, 71.0, 72.0]) or (0, 0)

    assert low == pytest.approx(71 - T_TWO * 1.0 * sqrt(1 + 1 / 3), abs=1e-9)
    assert high == pytest.approx(71 + T_TWO * 1.0 * sqrt(1 + 1 / 3), abs=1e-9)


def test_the_mean_is_known_better_than_a_run() -> None:
    low, high = mean_interval([70.0, 71.0, 72.0]) or (0, 0)

    assert high - low == pytest.approx(2 * T_TWO / sqrt(3), abs=1e-9)


@pytest.mark.parametrize("values", [[], [70.0]])
def test_fewer_than_two_runs_have_no_interval(values: list[float]) -> None:
    assert prediction_interval(values) is None
    assert mean_interval(values) is None


# low = 71 - 4.303 · 1.155 = 66.03, high = 75.97
@pytest.mark.parametrize(
    ("published", "within", "words"),
    [
        (66.1, True, "within seed noise"),
        (66.0, False, "above published"),
        (75.9, True, "within seed noise"),
        (76.0, False, "below published"),
    ],
)
def test_a_published_number_is_held_against_the_spread_over_seeds(
    tmp_path: Path, published: float, within: bool, words: str
) -> None:
    manifest = small_manifest(tmp_path, [{"name": "A", "published": [published, None]}])
    runs = runs_with(manifest, {"A": {1: (70.0, 50.0), 2: (71.0, 51.0), 3: (72.0, 52.0)}})

    row = row_of(judge(manifest, runs), "A")

    assert row.cells[0].mean == pytest.approx(71)
    assert row.cells[0].std == pytest.approx(1)
    assert row.cells[0].difference == pytest.approx(71 - published)
    assert row.cells[0].within is within
    assert row.cells[1].within is None
    assert row.verdict.startswith(words)


def test_one_run_has_no_spread_to_judge_by(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path, [{"name": "A", "published": [70.0, 50.0]}])
    runs = runs_with(manifest, {"A": {2: (71.0, 40.0)}})

    row = row_of(judge(manifest, runs), "A")

    assert (row.seeds, row.planned) == ((2,), (1, 2, 3))
    assert row.cells[0].std is None
    assert row.cells[0].within is None
    assert row.verdict == "one run: spread unknown"


def test_rows_without_runs_were_not_run(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path, [{"name": "A", "published": [70.0, 50.0]}])

    verdict = judge(manifest, [])

    assert row_of(verdict, "A").verdict == "not run"
    assert row_of(verdict, "A").cells[0].mean is None
    assert verdict.orderings == ()


THREE = [
    {"name": "A", "published": [70.0, 60.0]},
    {"name": "B", "published": [69.0, 60.0]},
    {"name": "C", "published": [60.0, 50.0]},
]


def test_on_other_data_only_the_order_is_compared(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path, THREE).with_data("synthetic_pairs")
    # B is ahead of A in rank1 by 1 and 0.5, and tied with it in the published mAP
    runs = runs_with(
        manifest,
        {
            "A": {1: (50.0, 50.0), 2: (52.0, 50.0)},
            "B": {1: (51.0, 51.0), 2: (52.5, 51.0)},
            "C": {1: (40.0, 40.0), 2: (40.0, 40.0)},
        },
    )

    verdict = judge(manifest, runs)

    assert row_of(verdict, "A").cells[0].difference is None
    assert "Absolute numbers are not compared" in verdict.notes[0]
    by_rank1, by_map = verdict.orderings
    assert by_rank1.tau == pytest.approx((2 - 1) / 3)
    assert by_map.tau == pytest.approx(2 / sqrt((3 - 1) * 3))
    assert [(pair.better, pair.worse) for pair in by_map.pairs] == [("A", "C"), ("B", "C")]
    flip = by_rank1.pairs[0]
    assert (flip.better, flip.worse, flip.outcome) == ("A", "B", "flips")
    assert flip.published == pytest.approx(1.0)
    assert flip.obtained == pytest.approx(-0.75)
    assert flip.by_seed == pytest.approx((-1.0, -0.5))
    assert flip.spread == pytest.approx(0.5 / sqrt(2))


def test_a_row_counts_the_pairs_it_is_in(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path, THREE).with_data("synthetic_pairs")
    runs = runs_with(
        manifest,
        {
            "A": {1: (50.0, 50.0), 2: (52.0, 50.0)},
            "B": {1: (51.0, 51.0), 2: (52.5, 51.0)},
            "C": {1: (40.0, 40.0), 2: (40.5, 40.0)},
        },
    )

    verdict = judge(manifest, runs)

    # t(1) = 12.7: the lead of A over C, 10 and 11.5, is 10.75 ± 12.7 · 0.75; A and B are closer
    assert (
        row_of(verdict, "A").verdict == "1 of 2 pairs agree (1 separated); 1 flips (within noise)"
    )
    assert row_of(verdict, "C").verdict == "2 of 2 pairs agree (2 separated)"


@pytest.mark.parametrize(
    ("leads", "separated"),
    [
        # t(2) · std / √3 = 2.48 · std
        ((2.0, 3.0, 4.0), True),
        ((1.0, 3.0, 5.0), False),
        ((3.0,), None),
    ],
)
def test_a_lead_is_separated_if_other_seeds_would_not_turn_it(
    tmp_path: Path, leads: tuple[float, ...], separated: bool | None
) -> None:
    manifest = small_manifest(tmp_path, THREE[:2]).with_data("synthetic_pairs")
    ahead = {seed: (50.0 + lead, 50.0) for seed, lead in enumerate(leads, 1)}
    behind = {seed: (50.0, 50.0) for seed in ahead}
    runs = runs_with(manifest, {"A": ahead, "B": behind})

    pair = judge(manifest, runs).orderings[0].pairs[0]

    assert pair.separated is separated


def test_a_lead_is_not_separated_if_other_queries_would_turn_it(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path, THREE[:2]).with_data("synthetic_pairs")
    by_seed = {seed: (60.0, 50.0) for seed in (1, 2, 3)}
    runs = runs_with(manifest, {"A": by_seed, "B": dict.fromkeys((1, 2, 3), (40.0, 50.0))})
    queries = spread_over_queries(manifest, runs, num_queries=5)
    for seed in (1, 2, 3):  # A: three of five, B: two others of five
        queries[f"A|{seed}|rank1"] = np.array([1, 1, 1, 0, 0])
        queries[f"B|{seed}|rank1"] = np.array([0, 0, 0, 1, 1])

    by_rank1 = judge(manifest, runs, queries).orderings[0]

    pair = by_rank1.pairs[0]
    assert pair.queries is not None
    assert pair.queries.low < 0 < pair.queries.high
    assert pair.separated is False
    assert by_rank1.conclusion == "the order holds: 1 of 1 pairs agree (0 separated)"


def test_the_bootstrap_over_queries_matches_a_loop_with_the_same_draws(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path, THREE[:2], metrics=["rank1", "map"])
    manifest = manifest.with_data("synthetic_pairs")
    skipped = np.array([False, True, False, False, True, False, False, False])
    values = np.random.default_rng(1).random((2, 2, 8))  # row, seed, query
    values[..., skipped] = np.nan
    means = 100 * np.nanmean(values, axis=2)
    runs = runs_with(
        manifest,
        {
            name: {seed: (means[row, seed - 1], means[row, seed - 1]) for seed in (1, 2)}
            for row, name in enumerate("AB")
        },
    )
    queries = {
        f"{name}|{seed}|{metric}": values[row, seed - 1]
        for row, name in enumerate("AB")
        for seed in (1, 2)
        for metric in ("rank1", "map")
    }

    pair = judge(manifest, runs, queries).orderings[0].pairs[0]

    change = 100 * (values[0].mean(axis=0) - values[1].mean(axis=0))[~skipped]
    generator = np.random.default_rng(0)
    draws = [change[generator.integers(6, size=6)].mean() for _ in range(10_000)]
    assert pair.queries is not None
    assert pair.queries.num_queries == 6
    assert pair.queries.mean == pytest.approx(change.mean(), abs=1e-9)
    assert pair.queries.low == pytest.approx(np.quantile(draws, 0.025), abs=1e-9)
    assert pair.queries.high == pytest.approx(np.quantile(draws, 0.975), abs=1e-9)


def test_rows_that_skip_different_queries_are_compared_on_those_of_both(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path, THREE[:2]).with_data("synthetic_pairs")
    runs = runs_with(manifest, {"A": {1: (100.0, 50.0)}, "B": {1: (50.0, 50.0)}})
    queries = {"A|1|rank1": np.array([1, 1, np.nan]), "B|1|rank1": np.array([np.nan, 0, 1])}

    pair = judge(manifest, runs, queries).orderings[0].pairs[0]

    assert pair.queries is not None
    assert (pair.queries.mean, pair.queries.num_queries) == (100.0, 1)


def test_queries_of_other_runs_are_refused(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path, THREE[:1])
    runs = runs_with(manifest, {"A": {1: (70.0, 60.0)}})
    queries = spread_over_queries(manifest, runs, num_queries=3)
    queries["A|1|map"] = np.full(3, 0.5)

    with pytest.raises(ValueError, match=r"row 'A' have a mean map of 50.00 %, its runs 60.00 %"):
        judge(manifest, runs, queries)


def test_an_order_is_held_against_the_means_where_there_are_no_numbers(tmp_path: Path) -> None:
    rows = [{"name": name} for name in "ABCD"]
    manifest = small_manifest(tmp_path, rows, order=["C", ["A", "B"]])
    runs = runs_with(
        manifest,
        {name: {1: (number, number)} for name, number in zip("ABC", (3.0, 1.0, 2.0), strict=True)},
    )

    verdict = judge(manifest, runs)

    pairs = {(pair.better, pair.worse): pair.outcome for pair in verdict.orderings[0].pairs}
    assert pairs == {("C", "A"): "flips", ("C", "B"): "agrees"}
    assert verdict.orderings[0].pairs[0].published is None
    assert verdict.orderings[0].claim == "order"
    assert row_of(verdict, "D").verdict == "not run"


def test_equal_means_are_tied(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path, THREE[:2]).with_data("synthetic_pairs")
    runs = runs_with(
        manifest,
        {
            "A": {1: (50.1, 1.0), 2: (50.2, 1.0), 3: (50.3, 1.0)},
            "B": {1: (50.3, 1.0), 2: (50.1, 1.0), 3: (50.2, 1.0)},
        },
    )

    ordering = judge(manifest, runs).orderings[0]

    assert ordering.pairs[0].outcome == "tied"
    assert ordering.counts.tied == 1
    assert ordering.tau is None


def test_a_view_is_read_from_the_run_of_another_row(tmp_path: Path) -> None:
    rows = [{"name": "A"}, {"name": "one view", "run": "A", "view": "global"}]
    manifest = small_manifest(tmp_path, rows)
    runs = runs_with(manifest, {"A": {1: (50.0, 60.0)}})
    runs[0]["results"]["best"]["test/view/global/rank1"] = 0.25

    verdict = judge(manifest, runs)

    row = row_of(verdict, "one view")
    assert row.cells[0].mean == 25.0
    assert row.cells[1].mean is None
    assert len(verdict.runs) == 1


def test_rows_that_have_no_place_on_the_data_say_why(tmp_path: Path) -> None:
    rows = [{"name": "A", "synthetic": "it needs ImageNet weights", "published": [1.0, 2.0]}]
    manifest = small_manifest(tmp_path, rows).with_data("synthetic_pairs")

    assert row_of(judge(manifest, []), "A").verdict == "not run here: it needs ImageNet weights"


def test_runs_of_other_overrides_do_not_count(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path, [{"name": "A"}])
    runs = runs_with(manifest, {"A": {1: (50.0, 60.0), 2: (51.0, 61.0)}})
    runs[0]["overrides"] = ["method=rde", "data=cuhk_pedes", "optim.lr=1", "seed=1"]

    verdict = judge(manifest, runs)

    assert row_of(verdict, "A").seeds == (2,)
    assert any("left out" in note and ": 1 (A)" in note for note in verdict.notes)


def test_what_the_manifest_says_of_its_kept_runs_comes_first(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path, [{"name": "A"}], note="These were made by hand.")

    verdict = judge(manifest, runs_with(manifest, {"A": {1: (50.0, 60.0)}}))

    assert verdict.notes[0] == "These were made by hand."
    with pytest.raises(ValueError, match="note"):
        small_manifest(tmp_path, [{"name": "A"}], note=3)


def test_runs_of_different_code_are_marked(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path, [{"name": "A"}, {"name": "B"}])
    runs = runs_with(manifest, {"A": {1: (50.0, 60.0), 2: (51.0, 61.0)}})
    runs += runs_with(manifest, {"B": {1: (50.0, 60.0)}}, code=None, dirty=True)

    verdict = judge(manifest, runs)

    assert row_of(verdict, "B").code == ("0123456",)
    assert any("aaaabbbbcccc: 2, 0123456: 1" in note for note in verdict.notes)
    assert any("their commit does not have: 1." in note for note in verdict.notes)


def test_other_digests_of_other_rows_are_no_other_code(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path, [{"name": "A"}, {"name": "B"}])
    runs = runs_with(manifest, {"A": {1: (50.0, 60.0)}}, code="aaaaaaaaaaaa")
    runs += runs_with(manifest, {"B": {1: (50.0, 60.0)}}, code="bbbbbbbbbbbb")

    alike = judge(manifest, runs)
    mixed = judge(manifest, runs + runs_with(manifest, {"B": {2: (1.0, 2.0)}}, code="cccccccccccc"))

    assert not any("same code" in note for note in alike.notes)
    (note,) = [note for note in mixed.notes if "same code" in note]
    assert note.endswith("(version: runs): bbbbbbbbbbbb: 1, cccccccccccc: 1.")


def test_the_only_row_that_ran_has_nothing_to_compare_with(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path, [*THREE[:2], {"name": "ours"}])
    manifest = manifest.with_data("synthetic_pairs")
    runs = runs_with(manifest, {"A": {1: (50.0, 60.0)}, "ours": {1: (50.0, 60.0)}})

    verdict = judge(manifest, runs)

    assert row_of(verdict, "A").verdict == "no other row to compare with"
    assert row_of(verdict, "ours").verdict == "nothing published to compare with"


@pytest.mark.parametrize(
    ("agree", "flip", "words"),
    [
        (2, 1, "the order holds in part: 2 of 3"),
        (1, 2, "the order does not hold, as far as single runs tell: 1 of 3"),
    ],
)
def test_an_order_of_single_runs_holds_in_part_where_most_pairs_agree(
    agree: int, flip: int, words: str
) -> None:
    counts = Counts(agree, 0, flip, flip_separated=0, flip_unknown=flip, tied=0)

    ordering = Ordering("rank1", "numbers", ("a", "b", "c"), (3, 2, 1), None, (), counts)

    assert ordering.conclusion.startswith(words)
