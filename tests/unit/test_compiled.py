"""Compiled loops, and where their code is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core.caching import CacheImpl, IndexDataCacheFile
from numpy.typing import NDArray

from crosswalk.compiled import compiled

SUM = """
import numpy as np
from crosswalk.compiled import compiled

@compiled("f8(f8[::1])")
def total(values):
    found = 0.0
    for value in values:
        found += value
    return found

print(total(np.arange(5.0)))
"""


def total(values: NDArray[np.float64]) -> float:
    found = 0.0
    for value in values:
        found += value
    return found


def test_the_next_process_loads_what_one_has_compiled(tmp_path: Path) -> None:
    script = tmp_path / "total.py"
    script.write_text(SUM)
    environment = os.environ | {
        "NUMBA_CACHE_DIR": str(tmp_path / "kept"),
        "NUMBA_DEBUG_CACHE": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }

    first, second = (
        subprocess.run(
            [sys.executable, script], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    )

    assert first.endswith("10.0\n")
    assert second.endswith("10.0\n")
    assert "data saved to" in first
    assert "data loaded from" in second
    assert "data saved to" not in second


def test_without_a_folder_to_write_to_every_process_compiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])

    assert compiled("f8(f8[::1])")(total)(np.arange(5.0)) == 10


def test_a_full_disk_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "save", full)

    assert compiled("f8(f8[::1])")(total)(np.arange(5.0)) == 10


def test_a_call_with_other_types_is_refused() -> None:
    with pytest.raises(TypeError, match="No matching definition"):
        compiled("f8(f8[::1])")(total)(np.arange(5, dtype=np.float32))
