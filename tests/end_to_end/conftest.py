"""Runs that tests share, also between the processes that run tests."""

import os
from pathlib import Path

import pytest

from tests.end_to_end.small_runs import WholeRuns


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of this session, the same in all its processes."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "shared-runs"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def cache(shared: Path) -> Path:
    """Return the cache folder of the runs, which holds their generated people."""
    return shared / "cache"


@pytest.fixture(scope="session")
def whole(shared: Path, cache: Path) -> WholeRuns:
    """Return uninterrupted runs by kind."""
    return WholeRuns(shared, cache)
