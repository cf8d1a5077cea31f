from pathlib import Path

import pytest

from crosswalk.ablation import read_manifest, row_overrides
from crosswalk.config import compose

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
MANIFESTS = sorted(EXPERIMENTS.glob("*/*.yaml"))


def test_there_are_tables() -> None:
    assert MANIFESTS


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_row_of_a_table_is_a_configuration(path: Path) -> None:
    manifest = read_manifest(path)

    for row in manifest.rows:
        config = compose(row_overrides(manifest, row, manifest.seeds[0]))
        assert config.seed == manifest.seeds[0]
