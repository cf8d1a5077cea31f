"""CM-MoCo: cross-modal momentum contrast for text-based person search (Han et al., BMVC 2021)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.distributed import all_gather_rows, caption_lengths, whole_column
from crosswalk.encoders.classifier import NormalizedClassifier
from crosswalk.encoders.heads import reinitialize_linears
from crosswalk.encoders.momentum import MomentumEncoder
from crosswalk.encoders.two_stream import TwoStream, apply_head
from crosswalk.host import Values
from crosswalk.losses.identity import identity_loss
from crosswalk.losses.queue_contrast import mean_similarities, queue_contrast_loss
from crosswalk.memory.feature_queue import FeatureQueue
from crosswalk.methods.base import Method, OptimFactory
from crosswalk.ranges import NotNegative, Positive, Share, WholeNumber
from crosswalk.types import DataSpec, ImageBatch, Needs, PairBatch, TextBatch


class CMMoCo(Method[PairBatch]):
    """Contrasts every image with its caption against a queue of earlier captions, and vice versa.

    Each step: 1. embeddings of images and captions; 2. their identity and alignment losses; 3. the
    key encoder moves toward the encoder and embeds the same batch; 4. every embedding is told from
    the other modality's queue by the key of its own partner; 5. after backward, the keys enter the
    queues (`remember`).

    Args:
        encoder: An image and a text stream, each with a head into the common space.
        data: Sizes of the training set.
        optim: Builds the optimizer and its schedule.
        alignment: ``(similarity [B, B], positive [B, B]) -> [B]``, images in rows.
        queue_size: Keys of either modality that are kept, with their identities. With 0 there is
            nothing to contrast with, and no key encoder is made: the published baseline, if
            ``reinitialize`` is off too.
        momentum: Weight of the key encoder's old parameters, in [0, 1].
        temperature: Of the contrast, cosine units; > 0.
        label_smoothing: Of the identity loss, in [0, 1].
        projection: ``(features, embedding_size) -> module`` makes heads used for the contrast
            alone, with momentum copies; None contrasts the embeddings themselves.
        key_head: Without ``projection``: keys pass through the encoder's own heads, as released
            ("shared"), or through momentum copies of them ("momentum").
        reinitialize: Whether all linear layers, CLIP's attention pool among them, are drawn anew,
            for encoder and key encoder separately, as released; False keeps pretrained ones, and
            the key encoder starts as a copy.
        alignment_weight: Of the alignment loss.
        contrast_weight: Of the contrastive loss.
        identity_weight: Of the identity loss.
    """

    needs = Needs(batches=(PairBatch,), identities=True)

    def __init__(
        self,
        encoder: TwoStream,
        data: DataSpec,
        optim: OptimFactory,
        *,
        alignment: Callable[[Tensor, Tensor], Tensor],
        queue_size: WholeNumber = 2048,
        momentum: Share = 0.999,
        temperature: Positive = 0.07,
        label_smoothing: Share = 0.1,
        projection: Callable[[int, int], nn.Module] | None = None,
        key_head: Literal["shared", "momentum"] = "shared",
        reinitialize: bool = True,
        identity_weight: NotNegative = 1.0,
        alignment_weight: NotNegative = 1.0,
        contrast_weight: NotNegative = 1.0,
    ) -> None:
        super().__init__(optim)
        if queue_size < 0:
            raise ValueError(f"method.queue_size={queue_size} must be 0 (no queues) or more.")
        self.encoder = encoder
        self.classifier = NormalizedClassifier(encoder.embedding_size, data.num_person_ids)
        self.alignment = alignment
        self.momentum = momentum
        self.temperature = temperature
        self.label_smoothing = label_smoothing
        self.key_head = key_head
        self.identity_weight = identity_weight
        self.alignment_weight = alignment_weight
        self.contrast_weight = contrast_weight
        self.projections = nn.ModuleDict()
        self.queue: FeatureQueue | None = None
        if queue_size:
            size = encoder.embedding_size
            if projection is not None:
                for stream, num_features in encoder.num_features.items():
                    self.projections[stream] = projection(num_features, size)
            self.queue = FeatureQueue(queue_size, size)
            self.keys = MomentumEncoder(encoder)
            self.key_projections = MomentumEncoder(self.projections)
        if reinitialize:
            # after the copy: the layers of encoder and key encoder are drawn independently
            for module in self.children():
                reinitialize_linears(module)

    def encoder_loaded(self) -> None:
        """Let the key encoder start from the weights that were loaded into the encoder."""
        if self.queue is not None:
            self.keys.copy_from(self.encoder)

    def embed(self, batch: ImageBatch | TextBatch) -> dict[str, Tensor]:
        if isinstance(batch, ImageBatch):
            return {"global": F.normalize(self.encoder.embed_images(batch.image))}
        length, longest = caption_lengths(batch)
        return {"global": F.normalize(self.encoder.embed_texts(batch.tokens, length, longest))}

    @torch.no_grad()
    def keys_of(self, batch: PairBatch, length: Values, longest: int) -> tuple[Tensor, Tensor]:
        """Move the key encoder one step; return its ``[B, D]`` keys of images and captions."""
        self.keys.update_from(self.encoder, momentum=self.momentum)
        self.key_projections.update_from(self.projections, momentum=self.momentum)
        keys = cast(TwoStream, self.keys.module)
        image = keys.image_features(batch.image)
        text = keys.text_features(batch.tokens, length, longest)
        if self.projections:
            heads = cast(nn.ModuleDict, self.key_projections.module)
            image_head, text_head = heads["image"], heads["text"]
        else:
            owner = keys if self.key_head == "momentum" else self.encoder
            image_head, text_head = owner.image_head, owner.text_head
        image, text = apply_head(image_head, image), apply_head(text_head, text)
        return F.normalize(all_gather_rows(image)), F.normalize(all_gather_rows(text))

    def supervised_losses(
        self, image: Tensor, text: Tensor, person_id: Tensor
    ) -> dict[str, Tensor]:
        """Return the identity and the alignment loss of ``[B, D]`` embeddings."""
        identity = torch.stack(
            [
                identity_loss(
                    self.classifier(rows), person_id, label_smoothing=self.label_smoothing
                )
                for rows in (image, text)
            ]
        )
        similarity = F.normalize(image) @ F.normalize(text).T
        alignment = self.alignment(similarity, person_id[:, None] == person_id)
        return {
            "identity": self.identity_weight * identity.sum(dim=0).mean(),
            "alignment": self.alignment_weight * alignment.mean(),
        }

    def contrast_loss(
        self, image: Tensor, text: Tensor, image_key: Tensor, text_key: Tensor, person_id: Tensor
    ) -> Tensor:
        """Return the contrastive loss of ``[B, D]`` queries, both directions together."""
        assert self.queue is not None
        is_negative = self.queue.negatives_of(person_id)
        contrast = partial(
            queue_contrast_loss, is_negative=is_negative, temperature=self.temperature
        )
        losses = contrast(F.normalize(image), text_key, self.queue.text)
        losses = losses + contrast(F.normalize(text), image_key, self.queue.image)
        self.log_similarities(
            mean_similarities(F.normalize(image), text_key, self.queue.text, is_negative),
            mean_similarities(F.normalize(text), image_key, self.queue.image, is_negative),
        )
        return self.contrast_weight * losses.mean()

    def log_similarities(self, *directions: tuple[Tensor, Tensor]) -> None:
        """Log the mean over both directions of the similarity to own and to other keys."""
        means = torch.stack([torch.stack(each) for each in directions]).detach().mean(dim=0)
        for name, value in zip(("positive", "negative"), means, strict=True):
            self.log(f"train/{name}_similarity", value, on_step=False, on_epoch=True, batch_size=1)

    def training_step(self, batch: PairBatch, batch_idx: int) -> dict[str, Tensor]:
        person_id = whole_column(batch, "person_id")
        length, longest = caption_lengths(batch)
        image_features = self.encoder.image_features(batch.image)
        text_features = self.encoder.text_features(batch.tokens, length, longest)
        image = all_gather_rows(apply_head(self.encoder.image_head, image_features))
        text = all_gather_rows(apply_head(self.encoder.text_head, text_features))
        # float32 outside autocast: exp(40 * 0.6) of the alignment overflows float16
        with torch.autocast(batch.image.device.type, enabled=False):
            losses = self.supervised_losses(image, text, person_id)
        if self.queue is None:
            return {"loss": self.log_total("train", losses)}
        image_key, text_key = self.keys_of(batch, length, longest)
        if self.projections:
            image = all_gather_rows(apply_head(self.projections["image"], image_features))
            text = all_gather_rows(apply_head(self.projections["text"], text_features))
        with torch.autocast(batch.image.device.type, enabled=False):
            losses["contrast"] = self.contrast_loss(image, text, image_key, text_key, person_id)
        return {
            "loss": self.log_total("train", losses),
            "image_key": image_key,
            "text_key": text_key,
            "person_id": person_id,
        }

    def remember(self, outputs: dict[str, Any]) -> None:
        if self.queue is not None:
            self.queue.enqueue(outputs["image_key"], outputs["text_key"], outputs["person_id"])
