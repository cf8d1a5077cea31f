"""CLIP-ReID: supervised ReID with learned descriptions (Li et al., AAAI 2023).

Two trainings: `PromptLearning` describes the people, `ClipReid` names them by its descriptions. The
first is the stage of the second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.distributed import all_gather_rows, whole_column
from crosswalk.encoders.clip_layers import ClipLayers, LayerFeatures
from crosswalk.encoders.prompts import LearnedPrompts, PersonTexts, likeness, likeness_of_texts
from crosswalk.losses.batch_hard_triplet import batch_hard_triplet_loss
from crosswalk.losses.identity import identity_loss
from crosswalk.losses.supervised_contrast import supervised_contrastive_loss
from crosswalk.methods.base import Method, OptimFactory
from crosswalk.ranges import NotNegative, Share
from crosswalk.types import DataSpec, ImageBatch, Needs, TextBatch


def embedding_of(features: LayerFeatures, *, neck: bool) -> Tensor:
    """Return ``[b, D + P]``: the last two features side by side, and then of unit length."""
    last = features.last_neck if neck else features.last
    projected = features.projected_neck if neck else features.projected
    return F.normalize(torch.cat([last, projected], dim=1))


class PromptLearning(Method[ImageBatch]):
    """Learns the words that describe every training person, with both encoders of CLIP frozen.

    Once, before the first epoch: the features of all training images (`sweep_step`) are put into a
    table (`on_sweep_end`); no image is read again. Each step: 1. the features of the batch's
    images, and of its people's sentences, one for every image; 2. the contrast of both, from
    images to texts and back, on raw products. Behind each epoch the texts of all people are
    written down.
    Source: Li et al., CLIP-ReID, AAAI 2023, the first stage.

    Args:
        encoder: Gives the features of images; the projected ones are compared with texts.
        data: Sizes of the training set.
        optim: Builds the optimizer and its schedule.
        prompts: ``(num_persons=) -> LearnedPrompts``.
    """

    needs = Needs(batches=(ImageBatch,), identities=True, images=False)
    image_features: Tensor
    image_person_id: Tensor
    filled: Tensor

    def __init__(
        self,
        encoder: ClipLayers,
        data: DataSpec,
        optim: OptimFactory,
        *,
        prompts: Callable[..., LearnedPrompts],
    ) -> None:
        super().__init__(optim)
        self.encoder = encoder
        self.get_submodule("encoder").requires_grad_(False)
        self.prompts = prompts(num_persons=data.num_person_ids)
        if self.prompts.num_features != encoder.projected_size:
            raise ValueError(
                f"the texts of method.prompts.text have {self.prompts.num_features} channels, the "
                f"images of encoder= {encoder.projected_size}: they are not of one CLIP. Give "
                "method.prompts.text the name of the encoder's."
            )
        self.texts = PersonTexts(data.num_person_ids, encoder.projected_size)
        size = data.num_samples, encoder.projected_size
        self.register_buffer("image_features", torch.zeros(size))
        self.register_buffer("image_person_id", torch.zeros(data.num_samples, dtype=torch.int64))
        self.register_buffer("filled", torch.tensor(False))

    def embed(self, batch: ImageBatch | TextBatch) -> dict[str, Tensor]:
        assert isinstance(batch, ImageBatch)
        return {"global": embedding_of(self.encoder.layer_features(batch.image), neck=False)}

    def wants_sweep(self, epoch: int) -> bool:
        return not bool(self.filled)

    def sweep_step(self, batch: ImageBatch) -> dict[str, Tensor]:
        features = self.encoder.layer_features(batch.image).projected
        return {"image_features": features, "image_person_id": batch.person_id}

    def on_sweep_end(self, table: dict[str, Tensor]) -> None:
        for name, column in table.items():
            self.get_buffer(name).copy_(column)
        self.filled.fill_(True)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        people, place = torch.unique(batch.person_id, return_inverse=True)
        texts = all_gather_rows(self.prompts(people)[place])
        images = all_gather_rows(self.image_features[batch.sample_index])
        person_id = whole_column(batch, "person_id")
        same = person_id[:, None] == person_id
        # float32 outside autocast: the products are not cosines
        with torch.autocast(images.device.type, enabled=False):
            scores = images @ texts.to(images.dtype).T
            losses = {
                "image_to_text": supervised_contrastive_loss(scores, same).mean(),
                "text_to_image": supervised_contrastive_loss(scores.T, same).mean(),
            }
        return self.log_total("train", losses)

    def on_train_epoch_end(self) -> None:
        self.texts.write(self.prompts.everybody())
        seen = likeness(self.image_features, self.texts.rows, self.image_person_id)
        seen["between_texts"] = likeness_of_texts(self.texts.rows)
        self.log_dict({f"train/{name}": value for name, value in seen.items()})


class ClipReid(Method[ImageBatch]):
    """Learns to name the training people, and to recognise each by the text that describes them.

    Each step: 1. three features of the images: of the last layer but one, of the last, and
    projected; 2. the identity loss of the last two, behind a neck and by a classifier each; 3. the
    triplet loss of all three; 4. the identity loss with the people's texts for a classifier, which
    nothing changes. The terms of a loss are summed, not averaged. Without texts
    (``text_weight=0``) it is the published baseline.
    Source: Li et al., CLIP-ReID, AAAI 2023, the second stage, released code.

    Args:
        encoder: Gives the features of images.
        data: Sizes of the training set.
        optim: Builds the optimizer and its schedule.
        identity_weight: Weight of each of the two identity losses.
        triplet_weight: Weight of each of the three triplet losses.
        text_weight: Weight of the identity loss by texts; 0 leaves texts out.
        label_smoothing: Share of an identity target spread over all persons, in [0, 1].
        margin: Of the triplet loss, in units of the features' distance.
        test_feature: Which features are compared at test: before the necks, or behind them.
    """

    needs = Needs(batches=(ImageBatch,), identities=True)
    starts_with: ClassVar = {"texts.rows": ("texts.rows",)}

    def __init__(
        self,
        encoder: ClipLayers,
        data: DataSpec,
        optim: OptimFactory,
        *,
        identity_weight: NotNegative = 0.25,
        triplet_weight: NotNegative = 1.0,
        text_weight: NotNegative = 1.0,
        label_smoothing: Share = 0.1,
        margin: NotNegative = 0.3,
        test_feature: Literal["pooled", "neck"] = "pooled",
    ) -> None:
        super().__init__(optim)
        self.encoder = encoder
        persons = data.num_person_ids
        self.last_classifier = nn.Linear(encoder.last_size, persons, bias=False)
        self.projected_classifier = nn.Linear(encoder.projected_size, persons, bias=False)
        for classifier in (self.last_classifier, self.projected_classifier):
            nn.init.normal_(classifier.weight, std=0.001)  # CLIP-ReID, released code
        self.texts = PersonTexts(persons, encoder.projected_size)
        if not text_weight:
            self.starts_with = {}  # type: ignore[misc]  # no checkpoint need hold any
        self.identity_weight = identity_weight
        self.triplet_weight = triplet_weight
        self.text_weight = text_weight
        self.label_smoothing = label_smoothing
        self.margin = margin
        self.test_feature = test_feature

    def embed(self, batch: ImageBatch | TextBatch) -> dict[str, Tensor]:
        assert isinstance(batch, ImageBatch)
        features = self.encoder.layer_features(batch.image, batch.camera_id)
        return {"global": embedding_of(features, neck=self.test_feature == "neck")}

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        features = self.encoder.layer_features(batch.image, batch.camera_id)
        person_id = whole_column(batch, "person_id")
        with torch.autocast(batch.image.device.type, enabled=False):
            gathered = LayerFeatures(*(all_gather_rows(each) for each in features))
            losses = self.losses(gathered, person_id)
            if self.text_weight:
                seen = likeness(gathered.projected.detach(), self.texts.rows, person_id)
                for name, value in seen.items():
                    self.log(f"train/{name}", value, on_step=False, on_epoch=True, batch_size=1)
        return self.log_total("train", losses)

    def losses(self, features: LayerFeatures, person_id: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms of the global batch."""

        def named(logits: Tensor) -> Tensor:
            return identity_loss(logits, person_id, label_smoothing=self.label_smoothing).mean()

        def triplets(each: Tensor) -> Tensor:
            return batch_hard_triplet_loss(each, person_id, margin=self.margin).mean()

        identity = named(self.last_classifier(features.last_neck))
        identity = identity + named(self.projected_classifier(features.projected_neck))
        triplet = triplets(features.earlier) + triplets(features.last)
        triplet = triplet + triplets(features.projected)
        losses = {
            "identity": self.identity_weight * identity,
            "triplet": self.triplet_weight * triplet,
        }
        if self.text_weight:
            losses["text"] = self.text_weight * named(features.projected @ self.texts.rows.T)
        return losses
