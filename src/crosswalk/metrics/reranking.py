"""Re-ranking: scores that also count how many neighbours a query and a gallery item share."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from crosswalk.metrics.ranking import Rescoring, check_widths, most_similar, multiply_rows
from crosswalk.neighbours import (
    averaged_memberships,
    entry_distances,
    expanded_sets,
    jaccard_distances,
    memberships,
)

STRIP_BYTES = 192 * 2**20
"""Size of the similarities held at one time while neighbours are sought; a copy comes to it."""
STRIP_ROWS = 2048
"""Points of a strip; more do not multiply faster."""


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


def k_reciprocal(
    query: Tensor, gallery: Tensor, *, k1: int, k2: int, distance_weight: float
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
    found = _neighbourhoods(rows, min(max(k1 + 1, k2), len(rows)))
    sets = expanded_sets(found.nearest[:, : k1 + 1], k1)
    distance = _distances(rows, sets, found)
    distance /= np.repeat(found.largest, np.diff(sets.indptr))
    membership = averaged_memberships(memberships(sets, distance), found.nearest, k2)
    jaccard = jaccard_distances(membership, num_rows=len(query))[:, len(query) :]
    jaccard.data = (1 - distance_weight) * (1 - jaccard.data)
    # squared distance = 2 - 2 * similarity
    slope = 2 * distance_weight / found.largest[: len(query)].astype(np.float64)
    return Rescoring(-slope - (1 - distance_weight), slope, jaccard)


class _Neighbourhoods(NamedTuple):
    """The nearest points of every point, itself first, and how far the farthest is.

    Attributes:
        nearest: ``[N, k]``.
        distance: ``[N, k]`` their squared distances.
        largest: ``[N]`` squared distance of the farthest point; 1 where all points are equal.
    """

    nearest: NDArray[np.int64]
    distance: NDArray[np.float32]
    largest: NDArray[np.float32]


def _neighbourhoods(rows: Tensor, k: int) -> _Neighbourhoods:
    """Return the neighbourhoods of unit vectors.

    Half of the products are enough: those of a strip of points with all later ones are also
    those of the later ones with the strip.
    """
    num_rows = len(rows)
    similarity = rows.new_full((num_rows, k), -torch.inf)
    index = torch.zeros((num_rows, k), dtype=torch.int64, device=rows.device)
    least = rows.new_full((num_rows,), torch.inf)
    strip_rows = max(1, min(num_rows, STRIP_ROWS, STRIP_BYTES // (4 * num_rows)))
    buffer = rows.new_empty(strip_rows * num_rows)

    def take(some: slice, scores: Tensor, offset: int) -> None:
        """Merge the best of further ``[rows, points]`` similarities into those of some rows."""
        best, place = scores.topk(min(k, scores.shape[1]))
        best = torch.cat([similarity[some], best], dim=1)
        place = torch.cat([index[some], place + offset], dim=1)
        similarity[some], chosen = best.topk(k)
        index[some] = place.gather(1, chosen)

    for start in range(0, num_rows, strip_rows):
        stop = min(start + strip_rows, num_rows)
        here, later = slice(start, stop), slice(stop, num_rows)
        size = stop - start
        strip = buffer[: size * (num_rows - start)].view(size, -1)
        multiply_rows(rows[here], rows[start:], strip)
        least[here] = torch.minimum(least[here], strip.amin(dim=1))
        own = torch.arange(size, device=rows.device)
        strip[own, own] = torch.inf  # first, whatever rounding says of duplicates
        take(here, strip, start)
        if stop < num_rows:
            others = strip[:, size:]
            least[later] = torch.minimum(least[later], others.amin(dim=0))
            take(later, others.T.contiguous(), start)
    similarity[:, 0] = 1
    distance = (2 - 2 * similarity).clamp_min_(0)
    largest = 2 - 2 * least
    largest[largest <= 0] = 1
    return _Neighbourhoods(index.cpu().numpy(), distance.cpu().numpy(), largest.cpu().numpy())


def _distances(rows: Tensor, sets: sparse.csr_array, found: _Neighbourhoods) -> NDArray[np.float32]:
    """Return the squared distances of the entries of ``sets``, most of which are known."""
    num_rows = len(rows)
    order = found.nearest.argsort(axis=1)
    known = (
        np.arange(num_rows)[:, None] * num_rows + np.take_along_axis(found.nearest, order, 1)
    ).ravel()
    first = np.repeat(np.arange(num_rows), np.diff(sets.indptr))
    wanted = first * num_rows + sets.indices
    place = np.searchsorted(known, wanted).clip(max=known.size - 1)
    distance: NDArray[np.float32]
    distance = np.take_along_axis(found.distance, order, 1).ravel()[place]
    missing = np.flatnonzero(known[place] != wanted)
    counts = np.bincount(first[missing], minlength=num_rows)
    rest = sparse.csr_array(
        (
            np.ones(len(missing), np.float32),
            sets.indices[missing],
            np.concatenate([[0], counts.cumsum()]),
        ),
        shape=sets.shape,
    )
    distance[missing] = entry_distances(rows, rest)
    return distance


def _one_hot(index: NDArray[np.int64], num_columns: int) -> sparse.csr_array:
    """Return ``[rows, num_columns]`` ones at each row's places, which are different."""
    start = np.arange(len(index) + 1) * index.shape[1]
    return sparse.csr_array(
        (np.ones(index.size), index.ravel(), start), shape=(len(index), num_columns)
    )
