"""MMCL: unsupervised person ReID as multi-label classification (Wang and Zhang, CVPR 2020)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.distributed import all_gather_rows, global_column, whole_column
from crosswalk.labels.positive_labels import own_row
from crosswalk.losses.identity import identity_loss
from crosswalk.memory.memory_bank import MemoryBank
from crosswalk.methods.base import Method, OptimFactory
from crosswalk.ranges import Count, Epoch, NotNegative, Share
from crosswalk.types import DataSpec, ImageBatch, ImageEncoder, Needs, SourceTargetBatch, TextBatch


class MMCL(Method[ImageBatch | SourceTargetBatch]):
    """Classifies every image among all training images, several of which may be right.

    Each step: 1. embeddings of the batch (`training_step`); 2. their scores against the bank, one
    row per training image; 3. the images' positive rows, at first their own alone, later by the
    label predictor; 4. the multi-label loss; 5. after backward, the rows move toward the embeddings
    (`remember`). A labelled source, where the data have one, adds the loss of a classifier of its
    own; its images never enter the bank.

    Args:
        encoder: Gives the features of images; those behind the neck are trained.
        data: Sizes of the training set.
        optim: Builds the optimizer and its schedule.
        loss: ``(scores [B, N], labels [B, N]) -> [B]`` multi-label loss.
        labels: ``(rows [N, D], index [B]) -> [B, N]`` positive rows of the samples ``index``.
        mplp_start_epoch: First epoch that asks ``labels``.
        momentum_growth: Weight of a bank's old row in epoch ``momentum_epochs``, from 0 in epoch 0.
        momentum_epochs: Epochs of that growth, however long the training is.
        source_weight: Weight of the loss of the labelled source.
        test_feature: Which features are compared at test: before the neck, or behind it.
    """

    needs = Needs(batches=(ImageBatch, SourceTargetBatch))

    def __init__(
        self,
        encoder: ImageEncoder,
        data: DataSpec,
        optim: OptimFactory,
        *,
        loss: Callable[[Tensor, Tensor], Tensor],
        labels: Callable[[Tensor, Tensor], Tensor],
        mplp_start_epoch: Epoch = 6,
        momentum_growth: Share = 0.5,
        momentum_epochs: Count = 60,
        source_weight: NotNegative = 1.0,
        test_feature: Literal["pooled", "neck"] = "pooled",
    ) -> None:
        super().__init__(optim)
        if momentum_epochs < 1:
            raise ValueError(f"method.momentum_epochs={momentum_epochs} must be at least 1.")
        self.encoder = encoder
        self.bank = MemoryBank(data.num_samples, encoder.embedding_size)
        self.multilabel_loss = loss
        self.predict_labels = labels
        self.mplp_start_epoch = mplp_start_epoch
        self.momentum_growth = momentum_growth
        self.momentum_epochs = momentum_epochs
        self.source_weight = source_weight
        self.test_feature = test_feature
        if data.num_source_person_ids:
            self.classifier = nn.Linear(encoder.embedding_size, data.num_source_person_ids)
            nn.init.normal_(self.classifier.weight, std=0.001)  # MMCL, released code
            nn.init.zeros_(self.classifier.bias)

    def embed(self, batch: ImageBatch | TextBatch) -> dict[str, Tensor]:
        assert isinstance(batch, ImageBatch)
        features: Tensor = getattr(self.encoder(batch.image), self.test_feature)
        return {"global": F.normalize(features.to(self.bank.rows.dtype))}

    def labels_of(self, index: Tensor) -> Tensor:
        """Return ``[B, N]`` bool, true where a row of the bank is a positive of a sample."""
        if self.current_epoch < self.mplp_start_epoch:
            return own_row(self.bank.rows, index)
        return self.predict_labels(self.bank.rows, index)

    def momentum_at(self, epoch: int) -> float:
        """Return the weight of the bank's old rows in 0-based ``epoch``, at most 1."""
        return min(1.0, self.momentum_growth * epoch / self.momentum_epochs)

    def source_loss(self, source: ImageBatch) -> Tensor:
        """Return the identity loss of the labelled source."""
        features = self.encoder(source.image).neck
        person_id = whole_column(source, "person_id")
        with torch.autocast(features.device.type, enabled=False):
            logits = self.classifier(all_gather_rows(features.to(self.bank.rows.dtype)))
            return identity_loss(logits, person_id).mean()

    def training_step(
        self, batch: ImageBatch | SourceTargetBatch, batch_idx: int
    ) -> dict[str, Any]:
        losses = {}
        if isinstance(batch, SourceTargetBatch):
            losses["source"] = self.source_weight * self.source_loss(batch.source)
            batch = batch.target
        features = self.encoder(batch.image).neck
        index = whole_column(batch, "sample_index")
        # float32 outside autocast: labels compare similarities, rows are means over many epochs
        with torch.autocast(features.device.type, enabled=False):
            embedding = all_gather_rows(F.normalize(features.to(self.bank.rows.dtype)))
            labels = self.labels_of(index)
            losses["multilabel"] = self.multilabel_loss(self.bank.scores(embedding), labels).mean()
        return {
            "loss": self.log_total("train", losses),
            "embedding": embedding.detach(),
            "sample_index": index,
            "bank_row": global_column(batch, "sample_index"),
            "labels": labels,
        }

    def remember(self, outputs: dict[str, Any]) -> None:
        momentum = self.momentum_at(self.current_epoch)
        self.bank.update(outputs["embedding"], outputs["bank_row"], momentum=momentum)
