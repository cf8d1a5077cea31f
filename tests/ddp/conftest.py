from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:
    from tests.ddp.small_fits import Outcomes

# `from tests.ddp.processes import …` must work under plain `pytest` as under `python -m pytest`.
ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)


@pytest.fixture(scope="session")
def of_one_process(shared: Path, cache: Path) -> Outcomes:
    """Return outcomes of one process without workers; each made once by a session."""
    return _kept(shared / "one-process", cache, 1)


@pytest.fixture(scope="session")
def of_two_processes(shared: Path, cache: Path) -> Outcomes:
    """Return outcomes of two processes with two workers each; each made once by a session."""
    return _kept(shared / "two-processes", cache, 2, "data.num_workers=2")


def _kept(folder: Path, cache: Path, world_size: int, *more: str) -> Outcomes:
    from crosswalk.files import lock
    from tests.ddp.processes import run_on_processes
    from tests.ddp.small_fits import fit, run_of

    def outcomes(kind: str) -> list[dict[str, Any]]:
        place = folder / re.sub(r"[^a-z_]+", "-", kind)
        place.mkdir(parents=True, exist_ok=True)
        file = place / "outcomes.pt"
        with lock(place / "outcomes.lock"):
            if not file.exists():
                run = run_of(kind, cache, *more)
                done = run_on_processes(fit, world_size, *run, place / "run", world_size)
                torch.save(done, file)
        return torch.load(file, weights_only=False)

    return outcomes
