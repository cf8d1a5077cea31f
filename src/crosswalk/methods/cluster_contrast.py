"""Cluster Contrast: unsupervised person ReID with a vector per cluster (Dai et al., ACCV 2022)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from crosswalk.distributed import all_gather_rows, global_column, on_rank_zero
from crosswalk.host import Values, to_device
from crosswalk.memory.cluster_centers import ClusterCenters
from crosswalk.methods.base import Method, OptimFactory
from crosswalk.ranges import Positive
from crosswalk.types import DataSpec, ImageBatch, ImageEncoder, Needs, TextBatch


class Clustering(Protocol):
    """Groups rows by similarity."""

    def __call__(self, rows: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``[N]`` labels, -1 = outlier, and the threshold to hand over next time."""


class ClusterContrast(Method[ImageBatch]):
    """Classifies images among the clusters of all training images, which are found every epoch.

    Each epoch: 1. the features of all images (`sweep_step`); 2. their clusters; images in none are
    left out of the epoch; 3. a memory of one vector per cluster, the mean of its members; 4.
    batches of a few images of each of some clusters (`plan_labels`, with ``data.plan`` a
    `crosswalk.data.pipeline.cluster_plans.cluster_plan`). Each step: 5. the softmax of each image
    among all clusters; 6. after backward, the memory moves toward the images of the batch, in the
    batch's order (`remember`).

    Args:
        encoder: Gives the features of images; those behind the neck are trained and compared.
        data: Sizes of the training set.
        optim: Builds the optimizer and its schedule.
        clustering: Groups the features of all training images.
        update: ``(centers [K, D], embedding [B, D], cluster [B]) -> None`` writes the memory, with
            the clusters as an array:
            `crosswalk.memory.memory_bank.move_rows` follows every image of the batch, one after
            the other, `crosswalk.memory.cluster_centers.move_by_hardest` the hardest of each
            cluster alone.
        temperature: Of the softmax, cosine units; > 0.
    """

    needs = Needs(batches=(ImageBatch,))

    threshold: Tensor

    def __init__(
        self,
        encoder: ImageEncoder,
        data: DataSpec,
        optim: OptimFactory,
        *,
        clustering: Clustering,
        update: Callable[[Tensor, Tensor, Values], None],
        temperature: Positive = 0.05,
    ) -> None:
        super().__init__(optim)
        self.encoder = encoder
        self.memory = ClusterCenters(data.num_samples, encoder.embedding_size)
        self.clustering = clustering
        self.update = update
        self.temperature = temperature
        self.register_buffer("threshold", torch.tensor(torch.nan))

    def features(self, image: Tensor) -> Tensor:
        """Return ``[b, D]`` unit vectors of images, in the memory's precision."""
        return F.normalize(self.encoder(image).neck.to(self.memory.rows.dtype))

    def embed(self, batch: ImageBatch | TextBatch) -> dict[str, Tensor]:
        assert isinstance(batch, ImageBatch)
        return {"global": self.features(batch.image)}

    def wants_sweep(self, epoch: int) -> bool:
        return True

    def sweep_step(self, batch: ImageBatch) -> dict[str, Tensor]:
        return {"features": self.features(batch.image)}

    def on_sweep_end(self, table: dict[str, Tensor]) -> None:
        labels, threshold = on_rank_zero(self.clustering, table["features"], self.threshold)
        self.threshold.copy_(threshold)
        self.memory.fill(table["features"], labels)

    def pseudo_labels(self) -> dict[str, Tensor]:
        """Return the clusters of the epoch, -1 = outlier."""
        return {"image": self.memory.labels}

    def plan_labels(self) -> Tensor | None:
        return self.memory.labels

    def training_step(self, batch: ImageBatch, batch_idx: int) -> dict[str, Any]:
        embedding = all_gather_rows(self.features(batch.image))
        cluster = self.memory.clusters_of(global_column(batch, "sample_index"))
        # float32 outside autocast: exp(1 / 0.05) overflows float16
        with torch.autocast(embedding.device.type, enabled=False):
            # normalised twice, as published: the encoder ends in a unit vector, the memory asks one
            unit = F.normalize(embedding)
            logits = self.memory.scores(unit) / self.temperature
            target = to_device(cluster, logits.device)
            loss = F.cross_entropy(logits, target, reduction="none").mean()
        return {
            "loss": self.log_total("train", {"cluster": loss}),
            "embedding": unit.detach(),
            "cluster": cluster,
        }

    def remember(self, outputs: dict[str, Any]) -> None:
        self.update(self.memory.centers, outputs["embedding"], outputs["cluster"])
