"""What the host knows: values that nobody waits for the device to read.

A NumPy array is on the host, whatever device a run is on; a tensor may be anywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Values = Tensor | NDArray[Any]
"""Best an array: of a tensor on a device the host waits for everything before it."""


def on_host(values: Values) -> NDArray[Any]:
    """Return values as an array.

    Example:
        >>> on_host(torch.tensor([3, 5])), on_host(np.array([3, 5]))
        (array([3, 5]), array([3, 5]))
    """
    return values.numpy(force=True) if isinstance(values, Tensor) else values


def to_device(values: NDArray[Any], device: torch.device) -> Tensor:
    """Return an array's values on a device, for which the host does not wait.

    Example:
        >>> to_device(np.array([3, 5]), torch.device("cpu"))
        tensor([3, 5])
    """
    return torch.from_numpy(values).to(device, non_blocking=True)


class HostCopy:
    """The values of a buffer that rarely changes, read again only after a change.

    Example:
        >>> buffer, copy = torch.tensor([3, 5]), HostCopy()
        >>> first = copy(buffer)
        >>> first is copy(buffer), copy(buffer.add_(1))
        (True, array([4, 6]))
    """

    def __init__(self) -> None:
        self._buffer: Tensor | None = None
        self._version = -1
        self._values: NDArray[Any] = np.empty(0)

    def __call__(self, buffer: Tensor) -> NDArray[Any]:
        """Return the values of ``buffer``; not to be written."""
        version = buffer._version  # that of the last write in place
        if self._buffer is not buffer or self._version != version:
            self._values = np.array(on_host(buffer))
            self._buffer, self._version = buffer, version
        return self._values
