from pathlib import Path

import pytest

from crosswalk.lab.tables.manifest import Manifest, Row, metric_key, read_manifest, row_overrides

MANIFEST = """
title: Parts
source: {paper: A paper, table: "1", verified: false}
base: [method=rde, data=cuhk_pedes, data.noise_rate=0.5, protocol=official]
checkpoint: last
metrics: [rank1, map]
seeds: [1, 2]
synthetic: [data=synthetic_pairs, protocol=val]
order: [full, [no division, small batches]]
rows:
  - {name: full, overrides: [], published: [70, null]}
  - {name: one view, run: full, view: token_selection, checkpoint: best, published: null}
  - {name: no division, overrides: [division=off], published: [60.5, 50.25]}
  - name: small batches
    overrides: [data.batch_size=8]
    synthetic: [data.batch_size=4]
    published: null
  - name: large
    overrides: [encoder=large]
    synthetic: there is one size
    note: Slow.
    published: null
  - {name: large at start, run: large, checkpoint: start, published: null}
references:
  - {name: Other, published: [65, 55], source: its paper}
not_offered:
  - {name: Words, reason: no such words, published: null}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "experiments" / "rde" / "parts.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(MANIFEST)
    return file


@pytest.fixture
def manifest(path: Path) -> Manifest:
    return read_manifest(path)


def test_a_manifest_is_read_row_by_row(manifest: Manifest) -> None:
    assert [row.name for row in manifest.rows] == [
        *("full", "one view", "no division", "small batches", "large", "large at start")
    ]
    assert manifest.rows[0] == Row("full", (), (70.0, None), "last")
    assert manifest.rows[1] == Row("one view", (), None, "best", "token_selection", "full")
    assert manifest.rows[2].published == (60.5, 50.25)
    assert manifest.rows[4].note == "Slow."
    assert manifest.references[0].published == (65.0, 55.0)
    assert manifest.not_offered[0].reason == "no such words"


def test_an_order_may_have_places_of_several_rows(manifest: Manifest) -> None:
    assert manifest.places == {"full": 1, "no division": 2, "small batches": 2}
    assert manifest.order == ("full", "no division", "small batches")


def test_a_row_measured_on_another_rows_run_has_its_overrides(manifest: Manifest) -> None:
    base = ["method=rde", "data=cuhk_pedes", "data.noise_rate=0.5", "protocol=official"]

    assert row_overrides(manifest, manifest.row("no division"), 2) == [
        *(*base, "division=off", "seed=2")
    ]
    assert row_overrides(manifest, manifest.row("one view"), 7) == [*base, "seed=7"]
    assert row_overrides(manifest, manifest.row("large at start"), 1) == [
        *(*base, "encoder=large", "seed=1")
    ]


def test_a_single_view_has_metrics_of_its_own(manifest: Manifest) -> None:
    assert metric_key(manifest.row("full"), "rank1") == "test/rank1"
    assert metric_key(manifest.row("one view"), "map") == "test/view/token_selection/map"
    assert metric_key(manifest.row("full"), "image_to_text/map", "val") == "val/image_to_text/map"


def test_on_its_own_data_a_table_stays_what_it_is(manifest: Manifest) -> None:
    assert manifest.with_data("cuhk_pedes") is manifest
    assert manifest.data == "cuhk_pedes"
    assert manifest.suitable_data == "synthetic_pairs"
    assert manifest.is_on_published_data
    assert manifest.name == "rde-parts"
    assert manifest.committed_path == manifest.path.parent / "results" / "parts.json"


def test_on_synthetic_data_rows_are_replaced_or_skipped(manifest: Manifest) -> None:
    moved = manifest.with_data("synthetic_pairs")

    assert moved.base == (
        *("method=rde", "data=synthetic_pairs", "data.noise_rate=0.5", "protocol=official"),
        "protocol=val",
    )
    assert moved.row("no division").overrides == ("division=off",)
    assert moved.row("small batches").overrides == ("data.batch_size=4",)
    assert moved.row("large").skipped == "there is one size"
    assert moved.row("large at start").skipped == "there is one size"
    assert [row.name for row in moved.rows if row.skipped is None] == [
        *("full", "one view", "no division", "small batches")
    ]
    assert moved.row("full").published == (70.0, None)


def test_on_synthetic_data_rows_about_the_best_epoch_may_be_about_the_last(path: Path) -> None:
    path.write_text(
        MANIFEST.replace("checkpoint: last\nmetrics", "metrics").replace(
            "order:", "synthetic_checkpoint: last\norder:"
        )
    )
    manifest = read_manifest(path)

    own = [row.checkpoint for row in manifest.rows]
    synthetic = [row.checkpoint for row in manifest.with_data("synthetic_pairs").rows]
    other = [row.checkpoint for row in manifest.with_data("icfg_pedes").rows]

    assert own == other == ["best", "best", "best", "best", "best", "start"]
    assert synthetic == ["last", "last", "last", "last", "last", "start"]


def test_on_other_data_numbers_are_not_comparable(manifest: Manifest) -> None:
    synthetic, other = manifest.with_data("synthetic_pairs"), manifest.with_data("icfg_pedes")

    assert not synthetic.is_on_published_data
    assert not other.is_on_published_data
    assert synthetic.name == "rde-parts-synthetic_pairs"
    assert other.committed_path.name == "parts.icfg_pedes.json"
    assert other.base[1] == "data=icfg_pedes"
    assert other.row("small batches").overrides == ("data.batch_size=8",)
    assert other.row("large").skipped is None


def test_a_table_made_for_synthetic_data_has_no_published_data(path: Path) -> None:
    path.write_text(MANIFEST.replace("data=cuhk_pedes", "data=synthetic_pairs"))

    manifest = read_manifest(path)

    assert not manifest.is_on_published_data
    assert manifest.name == "rde-parts"
    assert manifest.with_data("synthetic_pairs") is manifest


def test_a_table_is_moved_to_other_data_once(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match=r"data=synthetic_pairs already; read .*parts\.yaml again"):
        manifest.with_data("synthetic_pairs").with_data("icfg_pedes")


def test_a_row_that_does_not_exist_is_named(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match=r"no row 'ful'. Did you mean full\? It has: full; one"):
        manifest.row("ful")


def test_a_table_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"table9\.yaml does not exist\. The tables lie"):
        read_manifest(tmp_path / "table9.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seeds: [1, 2]\n", ""), "needs seeds"),
        (("seeds: [1, 2]", "seeds: [1, 1]"), r"seeds=\[1, 1\]; write a list of different whole"),
        (("seeds: [1, 2]", "seeds: [-1]"), r"seeds=\[-1\]; .* whole numbers, 0 or more"),
        (("seeds: [1, 2]", "seeds: 3"), "seeds is 3; write a list"),
        (("seeds:", "seedz:"), r"unknown key seedz. Did you mean seeds\?"),
        (("title: Parts", "title: 3"), "title is 3; write a text, in quotes"),
        (("title: Parts", "title: [Parts"), "is not valid YAML"),
        ((", verified: false", ""), "source: needs verified"),
        (("[rank1, map]", "[rank1, rnak5]"), r"unknown metric rnak5. Did you mean rank5\?"),
        (("[rank1, map]", "[rank1, i2t/map]"), "unknown metric i2t/map"),
        (("data=cuhk_pedes, ", ""), "base: needs data="),
        (("[method=rde,", "[3,"), "base: .* is no list of key=value"),
        (("published: [70, null]", "published: [70]"), "row 'full': 1 published .* 2 metrics"),
        (
            ("published: [70, null]", "published: [701, 1]"),
            "row 'full': .* 701 is not a percentage",
        ),
        (("published: [70, null]", "published: 70"), "row 'full': published is 70; write a list"),
        (("name: no division,", "name: full,"), "two rows have the same name 'full'"),
        (("name: Other", "name: full"), "two rows have the same name 'full'"),
        (("name: no division,", "name: 0.1,"), "name of a row is 0.1; write a text, in quotes"),
        (("checkpoint: best", "checkpoint: first"), "row 'one view': checkpoint=first"),
        (("run: full,", "run: fully,"), r"no row 'fully'. Did you mean full\?"),
        (
            ("run: large,", "run: one view,"),
            "'large at start': run='one view' has no run of its own",
        ),
        (("run: full,", "run: full, overrides: [],"), "'one view': needs overrides .* or run"),
        (("run: full, view: token_selection, ", ""), "'one view': needs overrides .* or run"),
        (
            ("run: full,", "run: full, synthetic: no,"),
            "'one view': synthetic belongs to row 'full'",
        ),
        (("[division=off]", "[data=icfg_pedes]"), "'no division': data= belongs to base"),
        (("[division=off]", "division=off"), "'no division', overrides: .* is no list"),
        (("order: [full,", "order: [fell,"), r"no row 'fell'. Did you mean full\?"),
        (("[no division, small batches]]", "[full]]"), "order: 'full' has two places"),
        (("[65, 55]", "null"), "reference 'Other': it stands here for its published numbers"),
        (("reason: no such words", "reason:"), "not offered 'Words': reason is None"),
    ],
)
def test_a_broken_manifest_is_refused(path: Path, change: tuple[str, str], message: str) -> None:
    broken = MANIFEST.replace(*change)
    assert broken != MANIFEST
    path.write_text(broken)

    with pytest.raises(ValueError, match=message):
        read_manifest(path)
