"""Points in heaps, and all their distances."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def points(count: int, size: int, *, seed: int, centers: int = 4) -> Tensor:
    """Return unit vectors in heaps."""
    generator = torch.Generator().manual_seed(seed)
    heaps = torch.randn(centers, size, generator=generator)
    heap = torch.randint(0, centers, (count,), generator=generator)
    rows = heaps[heap] + 0.5 * torch.randn(count, size, generator=generator)
    return torch.nn.functional.normalize(rows)


def all_distances(rows: Tensor) -> NDArray[np.float64]:
    return torch.cdist(rows.double(), rows.double()).square().numpy()
