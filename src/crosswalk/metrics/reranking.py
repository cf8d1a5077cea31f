"""Re-ranking: scores that also count how many neighbours a query and a gallery item share."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from crosswalk.metrics.ranking import Rescoring, most_similar


class Reranking(Protocol):
    """What the configuration group ``reranking`` chooses: a function with its numbers set."""

    def __call__(self, query: Tensor, gallery: Tensor) -> Rescoring:
        """Return the new scores of ``[queries, D]`` and ``[gallery, D]`` unit vectors."""


def cross_modal_bonus(
    query: Tensor, gallery: Tensor, *, num_neighbours: int, weight: float
) -> sparse.csr_array:
    """Return what re-ranking adds to similarities, for queries of another kind than the gallery.

    The gallery items nearest to the query are compared with those nearest to the gallery item
    itself: the bonus is the share of both sets that is common (the Jaccard index). An item of
    the query's person has the query's other finds as neighbours; a chance find has not.
    Source: Han et al., Text-based person search with limited data (CM-MoCo), BMVC 2021, official
    evaluation.

    Args:
        query: ``[queries, D]`` unit vectors, such as captions.
        gallery: ``[gallery, D]`` unit vectors, such as images, on the same device.
        num_neighbours: Items of a set, the gallery item itself included; > 0. All items belong
            to it if the gallery has no more.
        weight: Bonus where both sets are equal, in cosine units; >= 0.

    Returns:
        ``[queries, gallery]`` float64 CSR with numbers in [0, weight]; equal similarities count
        in the order of the gallery.

    Raises:
        ValueError: If ``num_neighbours`` is below 1, or the widths differ.

    Example:
        >>> import torch
        >>> images = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> caption = torch.tensor([[0.8, -0.6]])
        >>> cross_modal_bonus(caption, images, num_neighbours=2, weight=0.3).toarray().round(2)
        array([[0.3, 0.3, 0.1]])
    """
    if num_neighbours < 1:
        raise ValueError(f"reranking.num_neighbours={num_neighbours}: give 1 or more.")
    of_query = _one_hot(most_similar(query, gallery, num_neighbours), len(gallery))
    of_gallery = _one_hot(most_similar(gallery, gallery, num_neighbours), len(gallery))
    bonus = sparse.csr_array(of_query @ of_gallery.T)
    size = 2 * min(num_neighbours, len(gallery))
    bonus.data = weight * bonus.data / (size - bonus.data)  # common / (both sizes - common)
    return bonus


def cross_modal(query: Tensor, gallery: Tensor, *, num_neighbours: int, weight: float) -> Rescoring:
    """Return the re-ranking that adds `cross_modal_bonus` to the similarities.

    Example:
        >>> import torch
        >>> images = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> cross_modal(images[:1], images, num_neighbours=2, weight=0.3).slope
        array([1.])
    """
    bonus = cross_modal_bonus(query, gallery, num_neighbours=num_neighbours, weight=weight)
    return Rescoring(np.zeros(len(query)), np.ones(len(query)), bonus)


def _one_hot(index: NDArray[np.int64], num_columns: int) -> sparse.csr_array:
    """Return ``[rows, num_columns]`` ones at each row's places, which are different."""
    start = np.arange(len(index) + 1) * index.shape[1]
    return sparse.csr_array(
        (np.ones(index.size), index.ravel(), start), shape=(len(index), num_columns)
    )
