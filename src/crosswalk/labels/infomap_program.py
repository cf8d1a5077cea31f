"""Infomap as a program of its own, ``python -m`` with the files of links and modules, and a seed.

Its bindings and those of faiss are both made by SWIG and take each other's types for their own: in
one process they crash. So it is imported late, and nowhere else.
"""

from __future__ import annotations

import sys

import numpy as np


def _main(links: str, modules: str, seed: str) -> None:
    """Write the module of every point that has a link.

    Args:
        links: A ``.npz`` with ``start``, ``end`` and ``weight``.
        modules: The ``.npz`` to write, with ``point`` and ``module``.
        seed: Of Infomap's search.
    """
    from infomap import Infomap

    graph = Infomap(two_level=True, directed=True, silent=True, seed=int(seed))
    with np.load(links) as given:
        columns = [given[name].tolist() for name in ("start", "end", "weight")]
    for start, end, weight in zip(*columns, strict=True):
        graph.add_link(start, end, weight)
    found = graph.run().modules()
    np.savez(modules, point=np.array([*found]), module=np.array([*found.values()]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
