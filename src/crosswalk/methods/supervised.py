"""Supervised baseline of image ReID: identity loss and batch-hard triplet loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.distributed import all_gather_rows, whole_column
from crosswalk.losses.batch_hard_triplet import batch_hard_triplet_loss
from crosswalk.losses.identity import identity_loss
from crosswalk.methods.base import Method, OptimFactory
from crosswalk.ranges import NotNegative, Share
from crosswalk.types import DataSpec, ImageBatch, ImageEncoder, Needs, TextBatch


class Supervised(Method[ImageBatch]):
    """Learns to name the training people, and to hold their images together.

    The identity loss sees the features behind the neck, the triplet loss those before it. With
    `AgentClassifier` and without triplets it is the stage that MAR starts from.
    Source: Luo et al., Bag of tricks and a strong baseline for deep person ReID, CVPRW 2019.

    Args:
        encoder: Gives the features of images.
        data: Sizes of the training set.
        optim: Builds the optimizer and its schedule.
        classifier: ``(features, persons) -> module`` that makes logits, without bias.
        label_smoothing: Share of the identity target spread over all persons, in [0, 1].
        triplet_weight: Weight of the triplet loss; 0 leaves it out.
        margin: Of the triplet loss, in units of the features' distance.
        test_feature: Which features are compared at test: behind the neck, or before it.
    """

    needs = Needs(batches=(ImageBatch,), identities=True)

    def __init__(
        self,
        encoder: ImageEncoder,
        data: DataSpec,
        optim: OptimFactory,
        *,
        classifier: Callable[[int, int], nn.Module],
        label_smoothing: Share = 0.1,
        triplet_weight: NotNegative = 1.0,
        margin: NotNegative = 0.3,
        test_feature: Literal["neck", "pooled"] = "neck",
    ) -> None:
        super().__init__(optim)
        self.encoder = encoder
        self.classifier = classifier(encoder.embedding_size, data.num_person_ids)
        self.label_smoothing = label_smoothing
        self.triplet_weight = triplet_weight
        self.margin = margin
        self.test_feature = test_feature

    def embed(self, batch: ImageBatch | TextBatch) -> dict[str, Tensor]:
        assert isinstance(batch, ImageBatch)
        features: Tensor = getattr(self.encoder(batch.image), self.test_feature)
        return {"global": F.normalize(features)}

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        features = self.encoder(batch.image)
        person_id = whole_column(batch, "person_id")
        with torch.autocast(batch.image.device.type, enabled=False):
            logits = self.classifier(all_gather_rows(features.neck))
            named = identity_loss(logits, person_id, label_smoothing=self.label_smoothing)
            losses = {"identity": named.mean()}
            if self.triplet_weight:
                pooled = all_gather_rows(features.pooled)
                triplet = batch_hard_triplet_loss(pooled, person_id, margin=self.margin)
                losses["triplet"] = self.triplet_weight * triplet.mean()
        return self.log_total("train", losses)
