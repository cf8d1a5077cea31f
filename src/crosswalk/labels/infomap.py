"""Pseudo labels of embeddings: modules of their graph of neighbours, by Infomap.

A module is a set of points that a random walk along the links stays in for long. Needs the package
``infomap`` (extra ``[infomap]``). The function has the form of those in
`crosswalk.labels.clustering`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from crosswalk.labels.clustering import OUTLIER
from crosswalk.nearest import EXACT, nearest
from crosswalk.ranges import Count, Share, WholeNumber

if find_spec("infomap") is None:  # said when a run is built, not after its first sweep
    raise ValueError(
        "clusters by Infomap need the package infomap, which is not installed: "
        'pip install "<folder or URL of crosswalk>[infomap]". Or leave method.clustering as '
        "configs/method has it."
    )

Index = NDArray[np.int64]
PROGRAM = "crosswalk.labels.infomap_program"


class Links(NamedTuple):
    """Directed links of a graph of neighbours: from, to, and their similarities in (0, 1]."""

    start: Index
    end: Index
    weight: NDArray[np.float64]


def infomap_clusters(
    rows: Tensor,
    threshold: Tensor,
    *,
    k1: Count = 15,
    k2: WholeNumber = 4,
    min_similarity: Share = 0.5,
    seed: Count = 123,  # Infomap's own default
    index: str = EXACT,
) -> tuple[Tensor, Tensor]:
    """Return the modules that Infomap finds in the links of neighbours, and the threshold as given.

    Source: Dai et al., Cluster Contrast, ACCV 2022, released code; Rosvall and Bergstrom, Maps of
    random walks on complex networks reveal community structure, PNAS 2008.

    Args:
        rows: ``[N, D]`` points, made unit vectors here; computed in float32.
        threshold: 0-d; not used, see `crosswalk.labels.clustering.self_paced_clusters`.
        k1: Neighbours of a point that may be linked, itself among them; 1 <= k1 <= N.
        k2: Modules of this many members or fewer are outliers; >= 0.
        min_similarity: Least cosine similarity of a link; in [0, 1].
        seed: Of Infomap's search; >= 1.
        index: How neighbours are searched, see `crosswalk.nearest.nearest`.

    Returns:
        ``[N]`` int64 labels in the order of the modules' first points, and ``threshold``.

    Raises:
        ValueError: If there are fewer than ``k1`` points.

    Example:
        >>> infomap_clusters(torch.eye(3), torch.tensor(torch.nan), k1=2)  # nobody has a link
        (tensor([-1, -1, -1]), tensor(nan))
    """
    links = neighbour_links(rows, k1=k1, min_similarity=min_similarity, index=index)
    modules = _modules_of(links, seed) if len(links.start) else {}
    labels = large_modules(modules, num_points=len(rows), largest_outlier=k2)
    return torch.from_numpy(labels).to(rows.device), threshold


def neighbour_links(rows: Tensor, *, k1: int, min_similarity: float, index: str = EXACT) -> Links:
    """Return the links from every point to its nearest ones, as far as they are similar enough.

    Args:
        rows: ``[N, D]`` points, made unit vectors here; computed in float32.
        k1: Neighbours looked at, the point itself among them; it is not linked.
        min_similarity: Least cosine similarity of a link.
        index: How neighbours are searched.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]])
        >>> links = neighbour_links(rows, k1=2, min_similarity=0.5)
        >>> links.start.tolist(), links.end.tolist(), links.weight.round(4).tolist()
        ([0, 1], [1, 0], [0.8, 0.8])
    """
    unit = F.normalize(rows.detach().float())
    found, squared_distance = nearest(unit, k1, index=index)
    distance = squared_distance / 2  # 1 - similarity
    near = distance <= 1 - min_similarity
    near[:, 0] = False  # the point itself
    start = torch.arange(len(rows), device=found.device)[:, None].expand_as(found)
    columns = (start[near], found[near], (1 - distance[near]).double())
    return Links(*(column.numpy(force=True) for column in columns))


def large_modules(modules: Mapping[int, int], *, num_points: int, largest_outlier: int) -> Index:
    """Return a label per point from the modules of those that have links.

    Args:
        modules: Module of every point with a link; each of the others is a module of its own.
        num_points: N.
        largest_outlier: Modules of this many points or fewer become outliers.

    Returns:
        ``[N]`` labels, numbered by the modules' first points; -1 = outlier.

    Example:
        >>> large_modules({1: 7, 2: 7, 3: 5}, num_points=5, largest_outlier=1)
        array([-1,  0,  0, -1, -1])
    """
    alone = 1 + max(modules.values(), default=0)
    module = [modules.get(point, alone + point) for point in range(num_points)]
    _, first, own, counts = np.unique(
        module, return_index=True, return_inverse=True, return_counts=True
    )
    first[counts <= largest_outlier] = num_points
    number = first.argsort(kind="stable").argsort(kind="stable")
    return np.where(counts[own] > largest_outlier, number[own], OUTLIER)


def _modules_of(links: Links, seed: int) -> dict[int, int]:
    """Return the module of every point that has a link, found in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder, "links.npz"), Path(folder, "modules.npz")
        np.savez(given, **links._asdict())
        program = [sys.executable, "-m", PROGRAM, str(given), str(found), str(seed)]
        done = subprocess.run(program, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(
                f"Infomap ended with status {done.returncode}: {done.stderr.strip()[-500:]}"
            )
        with np.load(found) as modules:
            return dict(zip(modules["point"].tolist(), modules["module"].tolist(), strict=True))
