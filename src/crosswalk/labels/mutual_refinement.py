"""Labels of one modality's outliers from the clusters of the other modality."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

BLOCK = 2**24
"""Similarities held at once: 128 MiB in float64."""


def refine_mutually(
    image_labels: Tensor,
    text_labels: Tensor,
    image_rows: Tensor,
    text_rows: Tensor,
    image_of_caption: Tensor | None = None,
    *,
    search: Literal["exhaustive", "first"] = "exhaustive",
) -> tuple[Tensor, Tensor]:
    """Return the labels of both modalities, with outliers that joined a cluster.

    Where one modality cannot place an instance, the other one often can: an unclustered caption
    whose image is in a cluster takes the label of the caption of the image most like it in that
    cluster, and the other way round. If that one is unclustered too, the next most similar one is
    asked. Both directions read the labels as they were given, so their order does not matter.
    Labels of clustered instances stay, no cluster is merged or made, and the cluster numbers of
    the modalities have nothing to do with each other. Ties go to the lower index.
    Source: Zhao et al., CMMT, ICCV 2021, mutual pseudo label refinement. Captions with rows of
    their own (``image_of_caption``) are ours.

    Args:
        image_labels: ``[images]`` int64, -1 = outlier.
        text_labels: ``[captions]`` int64, -1 = outlier.
        image_rows: ``[images, D]`` unit vectors.
        text_rows: ``[captions, D]`` unit vectors.
        image_of_caption: ``[captions]`` int64 image of each caption; None where caption i belongs
            to image i. The captions of the instance's own image are asked first, captions of one
            image in ascending order.
        search: Whether the whole cluster may be asked, or only the most similar other member.

    Returns:
        ``[images]`` and ``[captions]`` int64 labels, -1 = outlier.

    Raises:
        ValueError: If the sizes do not fit each other.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
        >>> image_labels, text_labels = torch.tensor([0, 0, 0]), torch.tensor([-1, -1, 3])
        >>> refine_mutually(image_labels, text_labels, rows, rows)
        (tensor([0, 0, 0]), tensor([3, 3, 3]))
        >>> refine_mutually(image_labels, text_labels, rows, rows, search="first")
        (tensor([0, 0, 0]), tensor([-1, 3, 3]))
    """
    image_of = torch.arange(len(text_labels), device=text_labels.device)
    if image_of_caption is not None:
        image_of = image_of_caption
    _check_sizes(image_labels, text_labels, image_rows, text_rows, image_of_caption)
    exhaustive = {"exhaustive": True, "first": False}[search]

    text_of_image = _first_labels(text_labels, image_of, len(image_labels))
    asking = (image_labels >= 0) & (text_of_image < 0)
    answering = text_of_image >= 0 if exhaustive else torch.ones_like(asking)
    image = torch.arange(len(image_labels), device=image_labels.device)
    found = _nearest_in_cluster(image_rows, image_labels, image, asking, answering)
    given = torch.where(found >= 0, text_of_image[found], text_of_image)
    given = torch.where(image_labels >= 0, given, -1)[image_of]

    image_of_text = image_labels[image_of]
    asking = (text_labels >= 0) & (image_of_text < 0)
    answering = image_of_text >= 0 if exhaustive else torch.ones_like(asking)
    found = _nearest_in_cluster(text_rows, text_labels, image_of, asking, answering)
    suggested = torch.where(found >= 0, image_of_text[found], -1)
    taken = _first_labels(suggested, image_of, len(image_labels))

    return (
        torch.where(image_labels < 0, taken, image_labels),
        torch.where(text_labels < 0, given, text_labels),
    )


def outliers_as_singletons(labels: Tensor) -> Tensor:
    """Return the labels with every outlier in a cluster of its own.

    Args:
        labels: ``[N]`` int64 clusters, numbered from 0; -1 = outlier.

    Returns:
        ``[N]`` int64; outliers are numbered on from the last cluster, in ascending order.

    Example:
        >>> outliers_as_singletons(torch.tensor([-1, 1, 0, -1, 1]))
        tensor([2, 1, 0, 3, 1])
    """
    outlier = labels < 0
    num_clusters = int(labels.max()) + 1 if len(labels) else 0
    return torch.where(outlier, num_clusters - 1 + outlier.cumsum(dim=0), labels)


def _check_sizes(
    image_labels: Tensor,
    text_labels: Tensor,
    image_rows: Tensor,
    text_rows: Tensor,
    image_of_caption: Tensor | None,
) -> None:
    if image_of_caption is None and len(image_labels) != len(text_labels):
        raise ValueError(
            f"{len(text_labels)} captions and {len(image_labels)} images: say in "
            "`image_of_caption` which image each caption belongs to."
        )
    if image_of_caption is not None and len(image_of_caption) != len(text_labels):
        raise ValueError(
            f"{len(text_labels)} captions, but `image_of_caption` has {len(image_of_caption)}."
        )
    for name, rows, labels in (
        ("image", image_rows, image_labels),
        ("text", text_rows, text_labels),
    ):
        if len(rows) != len(labels):
            raise ValueError(f"{len(labels)} labels for {len(rows)} {name} rows.")


def _first_labels(labels: Tensor, owner: Tensor, num_owners: int) -> Tensor:
    """Return ``[owners]`` the label of the first instance of each owner that has one, or -1."""
    none = len(labels)
    number = torch.arange(none, device=labels.device).where(labels >= 0, none)
    first = number.new_full((num_owners,), none).scatter_reduce(0, owner, number, "amin")
    return torch.cat([labels, labels.new_full((1,), -1)])[first]


def _nearest_in_cluster(
    rows: Tensor, cluster: Tensor, owner: Tensor, asking: Tensor, answering: Tensor
) -> Tensor:
    """Return the answering row most similar to each asking one in its cluster.

    Args:
        rows: ``[N, D]``.
        cluster: ``[N]`` int64; -1 = none, of which nothing is asked.
        owner: ``[N]`` int64; an instance does not answer another one of the same owner.
        asking: ``[N]`` bool, only in clusters.
        answering: ``[N]`` bool.

    Returns:
        ``[N]`` int64, -1 where nothing was asked or nobody answered.
    """
    found = torch.full_like(cluster, -1)
    for asked, candidates in _pairs_of_groups(cluster, asking, answering):
        for query in torch.split(asked, max(1, BLOCK // len(candidates))):
            # In double and rounded, so that equal rows tie wherever they stand in the product.
            similarity = (rows[query].double() @ rows[candidates].double().T).to(rows.dtype)
            own = owner[query, None] == owner[candidates]
            nearest, place = similarity.masked_fill(own, -torch.inf).max(dim=1)
            found[query] = candidates[place].where(nearest > -torch.inf, -1)
    return found


def _pairs_of_groups(
    cluster: Tensor, asking: Tensor, answering: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Return the asking and the answering instances, ascending, of clusters that have both."""
    num_clusters = int(cluster.max()) + 1 if len(cluster) else 0
    counts, members = [], []
    for chosen in (asking, answering & (cluster >= 0)):
        index = chosen.nonzero().squeeze(1)
        counts.append(torch.bincount(cluster[index], minlength=num_clusters))
        members.append(index[cluster[index].argsort(stable=True)])
    both = (counts[0] > 0) & (counts[1] > 0)
    groups = []
    for count, index in zip(counts, members, strict=True):
        kept = both[cluster[index]]
        groups.append(torch.split(index[kept], count[both].tolist()))
    return list(zip(*groups, strict=True))
