"""Files of arrays, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays of numbers and text to a compressed ``.npz``, its folder too.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "diagnostics" / "losses.npz"
        >>> write_arrays(path, {"losses": np.zeros(2)})
        >>> read_arrays(path)
        {'losses': array([0., 0.])}
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return what `write_arrays` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file}
