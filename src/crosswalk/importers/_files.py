"""Reading the files of official checkpoints, without running code from them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def arrays_in(path: Path) -> dict[str, Tensor] | None:
    """Return the arrays of an ``.npz``; None for a file of another kind.

    Raises:
        FileNotFoundError: If there is no such file.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.npz"
        >>> np.savez(path, bias=np.zeros(2))
        >>> arrays_in(path)
        {'bias': tensor([0., 0.], dtype=torch.float64)}
    """
    if not path.is_file():
        raise FileNotFoundError(f"the checkpoint {path} is missing")
    if path.suffix != ".npz":
        return None
    with np.load(path, allow_pickle=False) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive}


def state_dict_in(path: Path, *, entry: str, model: str) -> dict[str, Tensor]:
    """Return the state dict of a file of `torch.save`, or of an ``.npz`` with one array per entry.

    Args:
        path: The file; it holds the state dict itself, or a dictionary with it.
        entry: Name of the state dict in that dictionary.
        model: Whose checkpoint it should be, for messages.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds something else.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "best.pth"
        >>> torch.save({"model": {"bias": torch.zeros(2)}}, path)
        >>> state_dict_in(path, entry="model", model="RDE")
        {'bias': tensor([0., 0.])}
    """
    arrays = arrays_in(path)
    if arrays is not None:
        return arrays
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors and plain values, so it is not read: loading it would "
            f"run code from it. Save its {entry!r} entry alone with torch.save. ({error})"
        ) from error
    state = checkpoint.get(entry, checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(row, Tensor) for row in state.values()):
        raise ValueError(
            f"{path} has no state dict under {entry!r}: it is no checkpoint of {model}"
        )
    return state
