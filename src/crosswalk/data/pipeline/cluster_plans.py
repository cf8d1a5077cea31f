"""Plan: batches of the clusters of an epoch, a few images of each, from several cameras."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

import numpy as np

from crosswalk.data.pipeline.plans import Index
from crosswalk.ranges import Count, Seed


class Draws(Protocol):
    """The random choices of one pass over the clusters."""

    def order(self, num_clusters: int) -> Index:
        """Return the clusters, numbered from 0, in random order."""

    def anchor(self, members: Index) -> int:
        """Return one of the members of a cluster."""

    def others(self, pool: Index, count: int, *, replace: bool) -> Index:
        """Return ``count`` of the pool; some may be drawn twice if ``replace``."""


class SeededDraws:
    """Draws of a NumPy generator, in the order in which they are asked for.

    Example:
        >>> draws = SeededDraws(np.random.default_rng([1, 0, 0, 0]))
        >>> sorted(draws.order(3).tolist())
        [0, 1, 2]
    """

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random

    def order(self, num_clusters: int) -> Index:
        """Return the clusters, numbered from 0, in random order."""
        return self.random.permutation(num_clusters)

    def anchor(self, members: Index) -> int:
        """Return one of the members of a cluster."""
        return int(members[self.random.integers(len(members))])

    def others(self, pool: Index, count: int, *, replace: bool) -> Index:
        """Return ``count`` of the pool; some may be drawn twice if ``replace``."""
        return self.random.choice(pool, count, replace=replace)


def pass_over_clusters(
    labels: Index, camera_id: Index, draws: Draws, *, images_per_cluster: int, by_camera: bool
) -> Index:
    """Return the samples of one pass: all clusters in random order, each with a few of its images.

    The first image of a cluster is drawn from all of it, the others from those by other cameras,
    or, where one camera took them all, from those that are left. A cluster of one image gives that
    one alone. Where the pool is smaller than ``images_per_cluster``, images may come twice; the
    bound is not one less, although one less is drawn, as released.
    Source: Dai et al., Cluster Contrast, ACCV 2022, released code.

    Args:
        labels: ``[num_samples]`` int64 clusters; -1 = outlier, which is left out.
        camera_id: ``[num_samples]`` camera of each sample.
        draws: Answers the random choices; clusters are numbered by their first samples.
        images_per_cluster: Images of each cluster; >= 1.
        by_camera: Whether other cameras are preferred; False draws from the whole cluster.

    Returns:
        ``[images]`` sample indices, those of a cluster one after the other.

    Example:
        >>> labels, camera_id = np.array([0, 0, 0, -1, 4]), np.array([1, 1, 2, 1, 1])
        >>> draws = SeededDraws(np.random.default_rng(0))
        >>> found = pass_over_clusters(
        ...     labels, camera_id, draws, images_per_cluster=2, by_camera=True
        ... )
        >>> found.tolist()
        [1, 2, 4]
    """
    kept = np.flatnonzero(labels >= 0)
    groups, first, counts = np.unique(labels[kept], return_index=True, return_counts=True)
    members = np.split(kept[np.argsort(labels[kept], kind="stable")], np.cumsum(counts)[:-1])
    in_order = [members[place] for place in np.argsort(first)]
    found: list[Index] = []
    for number in draws.order(len(groups)):
        cluster = in_order[number]
        anchor = draws.anchor(cluster)
        found.append(np.array([anchor]))
        pool = cluster[camera_id[cluster] != camera_id[anchor]] if by_camera else cluster[:0]
        if not len(pool):
            pool = cluster[cluster != anchor]
        if len(pool) and images_per_cluster > 1:
            scarce = len(pool) < images_per_cluster
            found.append(draws.others(pool, images_per_cluster - 1, replace=scarce))
    return np.concatenate(found) if found else kept


class ClusterBatches:
    """Equally many batches in every epoch, of clusters that are other ones in every epoch.

    A pass over the clusters (`pass_over_clusters`) is cut into batches, its rest dropped; passes
    follow each other until there are enough batches. A cluster is split between two batches where
    smaller clusters shifted the cuts. Which images a pass draws is a function of (seed, epoch,
    pass of the loader, number of the pass, clusters), so a run that goes on within an epoch, from
    the clusters that it stored, finds its place again.

    Source: Dai et al., Cluster Contrast, ACCV 2022, released code, whose passes are the same but
    for the random numbers.

    Args:
        person_id: ``[num_samples]`` identities, which stand for clusters until there are some; -1
            where they are unknown.
        camera_id: ``[num_samples]`` camera of each sample.
        batch_size: Samples of a global batch.
        seed: Not negative.
        images_per_cluster: Images of each cluster in a pass.
        num_batches: Batches of an epoch; None is as many as fit into the training set.
        by_camera: Whether a cluster's images are by other cameras than its first one.
        short_pass: What is done where a pass has fewer images than a batch: ``error`` ends the
            run, as released; ``fill`` appends further passes until there is a batch.

    Example:
        >>> labels = np.array([0, 0, 1, 1, 2, 2, -1])
        >>> plan = ClusterBatches(labels, np.arange(7), 4, seed=0, images_per_cluster=2)
        >>> [len(set(labels[batch].tolist())) for batch in plan]
        [2]
    """

    def __init__(
        self,
        person_id: Index,
        camera_id: Index,
        batch_size: int,
        seed: int,
        *,
        images_per_cluster: int = 16,
        num_batches: int | None = None,
        by_camera: bool = True,
        short_pass: Literal["error", "fill"] = "error",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"data.batch_size={batch_size} should be at least 1.")
        self.person_id = np.asarray(person_id)
        self.camera_id = np.asarray(camera_id)
        self.batch_size = batch_size
        self.seed = seed
        self.images_per_cluster = images_per_cluster
        self.num_batches = num_batches or max(1, len(person_id) // batch_size)
        self.by_camera = by_camera
        self.short_pass = short_pass
        self.set_labels(None)
        self.set_epoch(0)

    def set_epoch(self, epoch: int, pass_: int = 0) -> None:
        """Choose the random draws."""
        self.epoch, self.pass_ = epoch, pass_

    def set_labels(self, labels: Index | None) -> None:
        """Take the clusters of the epoch, or with None the identities of the constructor.

        Raises:
            ValueError: If there is not one label per sample.
        """
        if labels is not None and labels.shape != self.person_id.shape:
            raise ValueError(
                f"plan_labels() of the method gives {list(labels.shape)} labels, and there are "
                f"{len(self.person_id)} training samples. Return one label per sample."
            )
        self.labels = self.person_id if labels is None else labels

    def draws(self, number: int) -> Draws:
        """Return what answers the random choices of the pass ``number`` over the clusters."""
        return SeededDraws(np.random.default_rng([self.seed, self.epoch, self.pass_, number]))

    def passes(self) -> Iterator[Index]:
        """Yield one pass over the clusters after the other, without end.

        Raises:
            ValueError: If there is no cluster.
        """
        num_clusters = len(np.unique(self.labels[self.labels >= 0]))
        if not num_clusters:
            raise ValueError(
                f"epoch {self.epoch} has no cluster: all of the {len(self.labels):,} training "
                "samples are outliers, or nothing has grouped them. Raise method.clustering.eps, "
                "lower method.clustering.min_samples, start from weights that know people (stage, "
                "checkpoint), or let a method that waits with clusters begin at once "
                "(method.start_epoch=0)."
            )
        number = 0
        while True:
            yield pass_over_clusters(
                self.labels,
                self.camera_id,
                self.draws(number),
                images_per_cluster=self.images_per_cluster,
                by_camera=self.by_camera,
            )
            number += 1

    def __iter__(self) -> Iterator[Index]:
        left = self.num_batches
        pending = np.empty(0, dtype=np.int64)
        for found in self.passes():
            pending = np.concatenate([pending, found])
            whole = len(pending) // self.batch_size
            if not whole and self.short_pass == "error":
                raise ValueError(
                    f"epoch {self.epoch} has {len(np.unique(self.labels[found]))} clusters, which "
                    f"give {len(found)} images with data.plan.images_per_cluster="
                    f"{self.images_per_cluster}, fewer than data.batch_size={self.batch_size}. "
                    "Change method.clustering.eps, use a smaller data.batch_size, or pass "
                    "data.plan.short_pass=fill, which takes the clusters several times."
                )
            for batch in range(min(whole, left)):
                yield pending[batch * self.batch_size : (batch + 1) * self.batch_size]
            if whole:  # the rest of a pass is dropped
                pending = pending[:0]
            left -= whole
            if left <= 0:
                return

    def __len__(self) -> int:
        return self.num_batches


def cluster_plan(
    person_id: Index,
    *,
    camera_id: Index,
    batch_size: Count,
    seed: Seed,
    images_per_cluster: Count = 16,
    num_batches: Count | None = None,
    by_camera: bool = True,
    short_pass: Literal["error", "fill"] = "error",
) -> ClusterBatches:
    """Return `ClusterBatches` over the samples; a value for ``data.plan``.

    Its attribute ``by_person`` says that it needs identities, or labels of the method's.

    Example:
        >>> len(cluster_plan(np.arange(8) // 4, camera_id=np.arange(8), batch_size=4, seed=0))
        2
    """
    return ClusterBatches(
        person_id,
        camera_id,
        batch_size,
        seed,
        images_per_cluster=images_per_cluster,
        num_batches=num_batches,
        by_camera=by_camera,
        short_pass=short_pass,
    )


cluster_plan.by_person = True  # type: ignore[attr-defined]
