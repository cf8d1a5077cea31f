"""Every row of every table is a configuration that trains."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from crosswalk.config.check import check
from crosswalk.config.compose import compose
from crosswalk.config.plain import differences, to_plain
from crosswalk.config.stage import stage_overrides
from crosswalk.lab.tables.manifest import Manifest, Row, read_manifest, row_overrides
from tests.end_to_end.small_runs import tiny_pairs
from tests.experiments.one_step import (
    make_published_encoders_narrow,
    take_one_step,
    tiny_overrides,
)

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
PATHS = sorted(EXPERIMENTS.glob("*/*.yaml"))
every_table = pytest.mark.parametrize(
    "path", PATHS, ids=lambda path: f"{path.parent.name}/{path.stem}"
)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the root of tiny data; published encoders are narrow meanwhile."""
    folder = tmp_path_factory.mktemp("tables")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSWALK_CACHE", str(folder / "cache"))
        make_published_encoders_narrow(patch)
        yield tiny_pairs(folder)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def stepped() -> set[str]:
    """Configurations that took their step in another table."""
    return set()


def trained_rows(manifest: Manifest) -> list[Row]:
    return [row for row in manifest.rows if row.run is None and row.skipped is None]


COMPOSED: dict[tuple[str, ...], dict[str, Any]] = {}


def plain_of(overrides: list[str]) -> Mapping[str, Any]:
    """Return a plain configuration; composed once, since tables and tests share many."""
    if tuple(overrides) not in COMPOSED:
        COMPOSED[tuple(overrides)] = to_plain(compose(overrides))
    return COMPOSED[tuple(overrides)]


def on_synthetic_data(manifest: Manifest) -> Manifest:
    assert manifest.suitable_data is not None or manifest.data.startswith("synthetic")
    return manifest.with_data(manifest.suitable_data or manifest.data)


def shrunk(manifest: Manifest, row: Row, pairs: Path) -> Mapping[str, Any]:
    """Return a row's configuration at a tiny size, which leaves all that the row changes."""
    whole = plain_of(row_overrides(manifest, row, 1))
    choices = [each for each in row.overrides if each.startswith("method=")]
    base = plain_of([*manifest.base, *choices, "seed=1"])
    changed = {key for key, _, _ in differences(base, whole)}
    tiny = tiny_overrides(whole, changed, pairs)
    # they stand between the base and the row, so that the row has the last word
    small = plain_of([*manifest.base, *choices, *tiny, *row.overrides, "seed=1"])
    undone = {key for key, _, _ in differences(small, whole)} & changed
    # weights are not fetched, and groups are as small as the batches
    expected = {key for key in undone if key.endswith(("pretrained", ".group_size"))}
    assert undone == expected, f"{row.name}: the tiny size undoes {sorted(undone)}"
    return small


@every_table
def test_every_row_is_a_configuration_as_published(path: Path) -> None:
    manifest = read_manifest(path)

    for row in trained_rows(manifest):
        config = plain_of(row_overrides(manifest, row, manifest.seeds[0]))
        check(config)
        if config["stage"] is not None:
            check(plain_of(stage_overrides(config)))
        assert config["seed"] == manifest.seeds[0]
        assert config["choices"]["data"] == manifest.data
        assert row.checkpoint != "best" or config["protocol"] != "last", row.name
        assert row.checkpoint != "start" or config["stage"] is not None, row.name


@every_table
def test_every_row_is_a_configuration_on_synthetic_data_or_says_why_not(path: Path) -> None:
    manifest = on_synthetic_data(read_manifest(path))

    assert trained_rows(manifest)
    for row in trained_rows(manifest):
        config = plain_of(row_overrides(manifest, row, manifest.seeds[0]))
        check(config)
        assert config["choices"]["data"].startswith("synthetic")
        assert row.checkpoint != "best" or config["protocol"] != "last", row.name
        assert row.checkpoint != "start" or config["stage"] is not None, row.name


@every_table
def test_rows_of_a_table_are_different_runs(path: Path) -> None:
    published = read_manifest(path)

    for manifest in (published, on_synthetic_data(published)):
        rows = trained_rows(manifest)
        found = [json.dumps(plain_of(row_overrides(manifest, row, 1))) for row in rows]
        twice = [row.name for row, each in zip(rows, found, strict=True) if found.count(each) > 1]
        assert not twice, f"{twice} are one run: name one and let the others say run: <its name>"


@pytest.mark.filterwarnings("ignore:method.loss.ratio=:UserWarning")  # few images, few negatives
@every_table
def test_every_row_takes_a_step_at_a_tiny_size(path: Path, pairs: Path, stepped: set[str]) -> None:
    published = read_manifest(path)
    synthetic = on_synthetic_data(published)

    for row in published.rows:
        if row.run is not None:
            continue
        moved = synthetic.row(row.name)
        manifest = synthetic if moved.skipped is None else published
        config = shrunk(manifest, manifest.row(row.name), pairs)
        what = json.dumps([config[key] for key in ("method", "data", "encoder", "optim")])
        if what not in stepped:
            stepped.add(what)
            take_one_step(config)


# Copied by hand from the sources, to find slips of the pen


@pytest.mark.parametrize(
    ("table", "row", "published"),
    [
        ("rde/table1_cuhk_pedes", "RDE, 0 %, best", (75.94, 90.14, 94.12, 67.56, 51.44)),
        ("rde/table1_cuhk_pedes", "RDE, 80 %, last", (64.91, 83.20, 89.54, 57.83, 41.07)),
        ("rde/table1_icfg_pedes", "RDE, 20 %, last", (66.51, 81.70, 86.71, 39.09, 7.56)),
        ("rde/table1_rstp_reid", "RDE, 50 %, last", (62.85, 83.20, 89.15, 47.67, 23.96)),
        ("rde/table1_rstp_reid", "RDE, 80 %, best", (53.40, 76.70, 85.55, 39.71, 18.28)),
        ("rde/table2", "without CCD", (63.11, 81.04, 87.22, 55.42, 38.68)),
        ("rde/table2", "TSE alone", (70.70, 86.60, 91.16, 62.67, 46.19)),
        ("rde/table7", "TSE', top 10", (67.35, 85.36, 90.51, 60.21, 43.54)),
        ("rde/table8", "TRL for TAL", (2.18, 6.45, 10.48, 2.65, 0.83)),
        ("rde/heads", "BGE, last", (72.09, 88.55, 93.01, 64.08, 47.31)),
        ("rde/fig4_margin", "0.4", (67.53, 59.68)),
        ("rde/fig4_temperature", "0.01", None),
        ("rde/fig4_temperature", "0.10", (64.91, 58.03)),
        ("rde/fig6_ratio", "0.7", (70.48, 63.29)),
        ("rde/main_icfg_pedes", "RDE", (67.68, 82.47, 87.36, 40.06, 7.87)),
        ("cm_moco/main_cuhk_pedes", "CLIP ResNet-101", (64.08, 81.73, 88.19, 60.08)),
        ("cmmt/main_cuhk_pedes", "CMMT", (57.10, 78.14, 85.23)),
        ("mar/table3_market", "baseline (feature-guided)", (44.4, 62.5, 69.8, 21.5, None)),
        ("mar/table3_market", "MAR without L_RAL", (59.2, 76.4, 82.3, 30.8, None)),
        ("mar/table3_dukemtmc", "MAR without L_CML", (63.2, 77.2, 82.5, 44.9, None)),
        ("mar/main_dukemtmc", "MAR", (67.1, 79.8, 48.0)),
        (
            "cluster_contrast/main_market1501",
            "DBSCAN, best epoch on test",
            (92.3, 96.7, 97.9, 82.1),
        ),
        ("cluster_contrast/main_msmt17", "DBSCAN, best epoch on test", (56.0, 66.8, 71.5, 27.6)),
        ("cluster_contrast/version1_dukemtmc", "ResNet-50-IBN-a", (85.8, 92.1, 94.2, 74.2)),
        ("mmcl/main_market1501", "MMCL, best epoch on test", (80.3, 89.4, 92.3, 45.5, None)),
        ("mmcl/main_msmt17", "MMCL, best epoch on test", (35.4, 44.8, 49.8, 11.2, None)),
        (
            "mmcl/transfer_dukemtmc_to_msmt17",
            "MMCL, best epoch on test",
            (43.6, 54.3, 58.9, 16.2, None),
        ),
        ("mmcl/camstyle_dukemtmc", "without camera styles", (58.0, 36.3, None)),
        ("irra/main_cuhk_pedes", "IRRA", (73.38, 89.93, 93.71, 66.13, 50.24)),
        ("irra/main_icfg_pedes", "CLIP ResNet-50 fine-tuned", (41.46, 63.68, 73.04, 21.00, 2.46)),
        ("irra/main_rstp_reid", "IRRA", (60.20, 81.30, 88.20, 47.17, 25.28)),
        ("irra/components", "CLIP fine-tuned (ITC)", (68.19, 86.47, 91.47, 61.12, 44.86)),
        ("irra/components", "SDM + ID", None),
        ("irra/noise_rstp_reid", "IRRA, 50 %, last", (31.15, 55.40, 65.45, 23.96, 9.67)),
        ("irra/nam_icfg_pedes", "IRRA from CLIP, one rate for all", (63.83, None, None, 38.37)),
    ],
)
def test_published_numbers_are_those_of_the_source(
    table: str, row: str, published: tuple[float | None, ...] | None
) -> None:
    assert read_manifest(EXPERIMENTS / f"{table}.yaml").row(row).published == published


@pytest.mark.parametrize(
    ("table", "metric", "rows", "references"),
    [
        ("rde/table1_cuhk_pedes", "rank1", 497.41, 1105.53),
        ("rde/table2", "map", 371.84, 0),
        ("rde/table8", "minp", 207.61, 0),
        ("rde/table7", "rank1", 409.06, 0),
        ("mar/table3_market", "rank1", 331.4, 161.057),
        ("mar/table3_dukemtmc", "map_first_hit_bonus", 230.9, 0),
        ("mar/main_market", "rank1", 67.7, 558.7),
        ("cmmt/main_cuhk_pedes", "rank10", 85.23, 599.49),
        ("irra/main_cuhk_pedes", "minp", 167.08, 0),
        ("irra/noise_cuhk_pedes", "rank1", 365.45, 0),
        ("irra/noise_icfg_pedes", "map", 176.35, 0),
    ],
)
def test_columns_add_up_to_those_of_the_source(
    table: str, metric: str, rows: float, references: float
) -> None:
    manifest = read_manifest(EXPERIMENTS / f"{table}.yaml")
    position = manifest.metrics.index(metric)

    for found, expected in ((manifest.rows, rows), (manifest.references, references)):
        numbers = [each.published[position] for each in found if each.published is not None]
        total = sum(number for number in numbers if number is not None)
        assert total == pytest.approx(expected, abs=1e-6)


def test_only_tables_seen_in_the_paper_itself_are_called_verified() -> None:
    verified = {path.parent.name for path in PATHS if read_manifest(path).source["verified"]}

    assert verified == {"rde", "cluster_contrast", "irra"}  # of IRRA those of the RDE paper
