"""Re-ranking: scores that also count how many neighbours a query and a gallery item share."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from crosswalk.metrics.ranking import Rescoring, check_widths, most_similar
from crosswalk.nearest import nearest_and_farthest
from crosswalk.neighbours import (
    averaged_memberships,
    entry_distances,
    expanded_sets,
    jaccard_distances,
    memberships,
)
from crosswalk.ranges import Count, Share


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
    near_query, near_item = (
        most_similar(rows, gallery, num_neighbours) for rows in (query, gallery)
    )
    return weight * overlaps(near_query, near_item)


def overlaps(first: NDArray[np.int64], second: NDArray[np.int64]) -> sparse.csr_array:
    """Return the Jaccard indices of all pairs of sets, where they are above 0.

    One sparse product counts what every pair has in common.

    Args:
        first: ``[rows, n]`` members of each set, different numbers from 0.
        second: ``[columns, n]`` the same.

    Returns:
        ``[rows, columns]`` float64 CSR in (0, 1].

    Example:
        >>> overlaps(np.array([[0, 1]]), np.array([[1, 0], [1, 2], [2, 3]])).toarray().round(2)
        array([[1.  , 0.33, 0.  ]])
    """
    num_members = 1 + max(first.max(), second.max())
    shared = sparse.csr_array(_one_hot(first, num_members) @ _one_hot(second, num_members).T)
    shared.data /= 2 * first.shape[1] - shared.data  # both sizes less what they share
    return shared


def cross_modal(
    query: Tensor, gallery: Tensor, *, num_neighbours: Count, weight: Share
) -> Rescoring:
    """Return the re-ranking that adds `cross_modal_bonus` to the similarities.

    Example:
        >>> import torch
        >>> images = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> cross_modal(images[:1], images, num_neighbours=2, weight=0.3).slope
        array([1.])
    """
    bonus = cross_modal_bonus(query, gallery, num_neighbours=num_neighbours, weight=weight)
    return Rescoring(np.zeros(len(query)), np.ones(len(query)), bonus)


def k_reciprocal(
    query: Tensor, gallery: Tensor, *, k1: Count, k2: Count, distance_weight: Share
) -> Rescoring:
    """Return the k-reciprocal re-ranking: minus a mean of two distances.

    Queries and gallery are one set of points. Points whose lists of nearest points hold each
    other are compared by the Jaccard distance of their neighbourhoods
    (`crosswalk.neighbours.jaccard_distances`); the squared distance itself, divided by the
    query's largest one, has the rest of the weight.
    Source: Zhong et al., Re-ranking with k-reciprocal Encoding, CVPR 2017, eq. 12, and its
    official code; CMMT's evaluation uses it for captions and images.

    Args:
        query: ``[queries, D]`` unit vectors; computed in float32.
        gallery: ``[gallery, D]`` unit vectors, on the same device.
        k1: Neighbours of a reciprocal set, the point itself not counted; > 0.
        k2: Neighbours over which memberships are averaged, the point itself among them; > 0.
        distance_weight: Weight of the plain distance (lambda of the paper), in [0, 1].

    Returns:
        ``score = -(1 - distance_weight) * jaccard - distance_weight * distance / largest``, in
        [-1, 0].

    Raises:
        ValueError: If a number is out of its range, or the widths differ.

    Example:
        >>> images = torch.tensor([[0.6, 0.8], [0.6, 0.8], [0.0, 1.0]])
        >>> found = k_reciprocal(
        ...     torch.tensor([[1.0, 0.0]]), images, k1=1, k2=1, distance_weight=0.25
        ... )
        >>> (0.25 * found.slope).round(4), found.bonus.toarray()  # nobody's nearest is the query
        (array([0.0625]), array([[0., 0., 0.]], dtype=float32))
    """
    if k1 < 1 or k2 < 1 or not 0 <= distance_weight <= 1:
        raise ValueError(
            f"reranking.k1={k1}, k2={k2}, distance_weight={distance_weight}: give k1 and k2 of 1 "
            "or more, and a weight from 0 to 1."
        )
    check_widths(query, gallery)
    rows = torch.cat([query, gallery]).float()
    nearest, distance, farthest = (
        part.cpu().numpy() for part in nearest_and_farthest(rows, min(max(k1 + 1, k2), len(rows)))
    )
    farthest[farthest == 0] = 1  # all points are equal
    sets = expanded_sets(nearest[:, : k1 + 1], k1)
    scaled = entry_distances(rows, sets, known=(nearest, distance))
    scaled /= np.repeat(farthest, np.diff(sets.indptr))
    membership = averaged_memberships(memberships(sets, scaled), nearest, k2)
    jaccard = jaccard_distances(membership, num_rows=len(query))[:, len(query) :]
    jaccard.data = (1 - distance_weight) * (1 - jaccard.data)
    # squared distance = 2 - 2 * similarity
    slope = 2 * distance_weight / farthest[: len(query)].astype(np.float64)
    return Rescoring(-slope - (1 - distance_weight), slope, jaccard)


def _one_hot(index: NDArray[np.int64], num_columns: int) -> sparse.csr_array:
    """Return ``[rows, num_columns]`` ones at each row's places, which are different."""
    start = np.arange(len(index) + 1) * index.shape[1]
    return sparse.csr_array(
        (np.ones(index.size), index.ravel(), start), shape=(len(index), num_columns)
    )
