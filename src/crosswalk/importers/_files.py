"""Official checkpoints: read without running code from them, and under new names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from crosswalk.weight_files import tensors_in

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def state_dict_in(path: str | Path, *, entry: str, model: str) -> dict[str, Tensor]:
    """Return the state dict of a file of weights; see `crosswalk.weight_files.tensors_in`.

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
        >>> torch.save({"model": {"module.bias": torch.zeros(2)}}, path)
        >>> state_dict_in(path, entry="model", model="RDE")
        {'bias': tensor([0., 0.])}
    """
    try:
        return tensors_in(path, entry=entry)
    except ValueError as error:
        raise ValueError(
            f"{error} It is no checkpoint of {model}, of which {entry!r} is needed."
        ) from error


def entries_below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries whose names begin with ``prefix``, without it.

    Example:
        >>> entries_below("head.", {"head.bias": torch.zeros(2), "body.bias": torch.zeros(3)})
        {'bias': tensor([0., 0.])}
    """
    return {n.removeprefix(prefix): row for n, row in state.items() if n.startswith(prefix)}


def weight_and_bias(*layers: str) -> Iterator[str]:
    """Yield the entries of linear layers, convolutions or layer normalisations.

    Example:
        >>> list(weight_and_bias("head"))
        ['head.weight', 'head.bias']
    """
    yield from (f"{layer}.{part}" for layer in layers for part in ("weight", "bias"))


def norm_names(name: str) -> Iterator[str]:
    """Yield the entries of the batch normalisation ``name``."""
    yield from (f"{name}.{part}" for part in _NORM)


def rename(
    state: dict[str, Tensor], names: dict[str, str], ignored: tuple[str, ...], origin: str
) -> dict[str, Tensor]:
    """Return ``state`` under new names, with counters at 0 where they are missing.

    Half precision is widened to float32; float64, as in files made for comparisons, stays.

    Args:
        state: By official names.
        names: Official name to new name of every entry that is wanted.
        ignored: Beginnings of official names that are left out.
        origin: What the state dict should be, for the message.

    Raises:
        ValueError: If entries are missing or unknown; they are named.
    """
    wanted = {name for name in names if not name.endswith("num_batches_tracked")}
    missing = sorted(wanted - state.keys())
    unknown = sorted(
        name for name in state if name not in names and not name.startswith(ignored or ("\0",))
    )
    if missing or unknown:
        raise ValueError(
            f"this is no state dict of {origin}: {len(missing)} entries are missing "
            f"{missing[:5]}, {len(unknown)} are unknown {unknown[:5]}"
        )
    # PyTorch before 0.4.1 counted no batches
    rows = {ours: state.get(official, torch.tensor(0)) for official, ours in names.items()}
    return {
        name: row.to(torch.promote_types(row.dtype, torch.float32))
        if row.is_floating_point()
        else row.clone()
        for name, row in rows.items()
    }
