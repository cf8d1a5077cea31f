"""What every test may rely on, however tests were started, and runs that tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.end_to_end.small_runs import WholeRuns

# What a shell starts in the background of a script ignores Ctrl-C, and so would its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
# Whoever starts the tests has a terminal of some width.
os.environ.pop("COLUMNS", None)

settings.register_profile("any machine", deadline=None)  # a busy one takes its time
settings.load_profile("any machine")


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
    from tests.end_to_end.small_runs import WholeRuns  # imports what most tests do without

    return WholeRuns(shared, cache)
