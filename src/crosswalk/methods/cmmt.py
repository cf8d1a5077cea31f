"""CMMT: weakly supervised text-based person search (Zhao et al., ICCV 2021)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.distributed import (
    all_gather_rows,
    caption_lengths,
    global_column,
    on_rank_zero,
    whole_column,
)
from crosswalk.encoders.two_stream import TwoStream
from crosswalk.host import HostCopy, to_device
from crosswalk.labels.mutual_refinement import outliers_as_singletons
from crosswalk.labels.text_iou import text_iou
from crosswalk.losses.cluster_contrast import cluster_contrast_loss
from crosswalk.losses.hard_samples import hard_sample_loss
from crosswalk.losses.projection_matching import soft_projection_matching_loss
from crosswalk.memory.hybrid_memory import HybridMemory
from crosswalk.methods.base import Method, OptimFactory
from crosswalk.ranges import Epoch, NotNegative, Positive, Share
from crosswalk.types import DataSpec, ImageBatch, Needs, PairBatch, TextBatch

Labels = tuple[Tensor, Tensor]


class Clustering(Protocol):
    """Groups rows by similarity."""

    def __call__(self, rows: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``[N]`` labels, -1 = outlier, and the threshold to hand over next time."""


class CMMT(Method[PairBatch]):
    """Trains on images with their captions, without knowing which pairs show one person.

    Each epoch: 1. the embeddings of all pairs fill two memories (`sweep_step`); later the memories
    follow the training; 2. clusters of the images and of the captions; 3. outliers take the label
    of the cluster that their partner's neighbours are in, the others become clusters of one
    (`label`). Each step: 4. captions are matched with images as far as noun phrases agree; 5.
    either modality is told from the other clusters; 6. hard samples, chosen by noun phrases; 7.
    after backward, the memories move toward the embeddings (`remember`).

    Args:
        encoder: An image and a text stream, each with a head into the common space.
        data: Sizes of the training set.
        optim: Builds the optimizer and its schedule.
        clustering: Groups the rows of one modality; None leaves the self-training out.
        memory: ``(slots, embedding_size) -> memory`` of one modality.
        refinement: ``(image labels, text labels, image rows, text rows, image_of_caption) ->
            (image labels, text labels)``; None leaves outliers as they are.
        relation: What a caption is matched with: its own image ("pairs"), every image as far as
            their noun phrases agree ("text_iou"), or, as an upper bound that the setting does not
            allow, all images of the person ("identities", which are the clusters then, too).
        iou_power: Exponent of the Text-IoU before its rows are normalised; > 0.
        directions: Whether captions alone are matched ("text_to_image"), or images too ("both").
        text_slot: Whether the captions of an image share a row of the text memory, or have their
            own.
        recluster_from: Whether later epochs cluster the rows of the memory, or embed all again.
        start_epoch: First epoch with clusters.
        temperature: Of the contrast with clusters, cosine units; > 0.
        momentum: Weight of a memory's old rows, in [0, 1].
        hard_samples: ``(anchor [B, D], pool [B, D], relation [B, B]) -> [B]`` loss of hard samples.
        matching_weight: Of the projection matching.
        cluster_weight: Of the contrast with clusters, for both modalities together.
        cross_weight: Of the hard samples across modalities.
        intra_weight: Of the hard samples within each modality.
    """

    needs = Needs(batches=(PairBatch,), identities_if={"relation": "identities"})

    image_of_sample: Tensor
    filled: Tensor
    threshold: Tensor

    def __init__(
        self,
        encoder: TwoStream,
        data: DataSpec,
        optim: OptimFactory,
        *,
        clustering: Clustering | None,
        memory: Callable[[int, int], HybridMemory],
        refinement: Callable[..., Labels] | None,
        relation: Literal["pairs", "text_iou", "identities"] = "text_iou",
        iou_power: Positive = 1.0,
        directions: Literal["text_to_image", "both"] = "text_to_image",
        text_slot: Literal["image", "caption"] = "image",
        recluster_from: Literal["memory", "encoder"] = "memory",
        start_epoch: Epoch = 0,
        temperature: Positive = 0.05,
        momentum: Share = 0.2,
        hard_samples: Callable[[Tensor, Tensor, Tensor], Tensor] = hard_sample_loss,
        matching_weight: NotNegative = 1.0,
        cluster_weight: NotNegative = 1.0,
        cross_weight: NotNegative = 1.0,
        intra_weight: NotNegative = 1.0,
    ) -> None:
        super().__init__(optim)
        if iou_power <= 0:
            raise ValueError(f"method.iou_power={iou_power} must be more than 0.")
        if start_epoch < 0:
            raise ValueError(f"method.start_epoch={start_epoch} must be 0 or more.")
        self.encoder = encoder
        self.clustering = clustering
        self.refinement = refinement
        self.relation = relation
        self.iou_power = iou_power
        self.directions = directions
        self.text_slot = text_slot
        self.recluster_from = recluster_from
        self.start_epoch = start_epoch
        self.temperature = temperature
        self.momentum = momentum
        self.hard_sample_loss = hard_samples
        self.matching_weight = matching_weight
        self.cluster_weight = cluster_weight
        self.cross_weight = cross_weight
        self.intra_weight = intra_weight
        if clustering is not None:
            num_texts = data.num_samples if text_slot == "caption" else data.num_images
            sizes = {"image": data.num_images, "text": num_texts}
            self.memories = nn.ModuleDict(
                {name: memory(size, encoder.embedding_size) for name, size in sizes.items()}
            )
            follow = all(memory.rows_move for _, memory in self.each_memory())
            if recluster_from == "memory" and relation != "identities" and not follow:
                raise ValueError(
                    "method.recluster_from=memory would find the same clusters in every epoch: the "
                    "rows of this memory stay as filled. Set method.recluster_from=encoder."
                )
            for name, size in sizes.items():  # -1: outlier, or no clustering yet
                self.register_buffer(f"{name}_clusters", torch.full((size,), -1))
                self.register_buffer(f"{name}_refined", torch.full((size,), -1))
            self.register_buffer("threshold", torch.full((2,), torch.nan))
            self.register_buffer(
                "image_of_sample", torch.zeros(data.num_samples, dtype=torch.int64)
            )
            self.register_buffer("filled", torch.tensor(False))
            self._filled = HostCopy()

    def embed(self, batch: ImageBatch | TextBatch) -> dict[str, Tensor]:
        if isinstance(batch, ImageBatch):
            return {"global": F.normalize(self.encoder.embed_images(batch.image))}
        length, longest = caption_lengths(batch)
        return {"global": F.normalize(self.encoder.embed_texts(batch.tokens, length, longest))}

    def wants_sweep(self, epoch: int) -> bool:
        if self.clustering is None or epoch < self.start_epoch:
            return False
        return self.recluster_from == "encoder" or not bool(self.filled)

    def sweep_step(self, batch: PairBatch) -> dict[str, Tensor]:
        length, longest = caption_lengths(batch)
        rows = {
            "image": F.normalize(self.encoder.embed_images(batch.image)),
            "text": F.normalize(self.encoder.embed_texts(batch.tokens, length, longest)),
            "image_index": batch.image_index,
        }
        if self.relation == "identities":
            rows["person_id"] = batch.person_id
        return rows

    def on_sweep_end(self, table: dict[str, Tensor]) -> None:
        self.image_of_sample.copy_(table["image_index"])
        self.filled.fill_(True)
        # a later caption overwrites an earlier one of the same image, as released
        order = torch.arange(len(self.image_of_sample), device=self.image_of_sample.device)
        last = torch.zeros_like(self.get_buffer("image_clusters"))
        last.scatter_reduce_(0, self.image_of_sample, order, "amax")
        sample = {"image": last, "text": last if self.text_slot == "image" else order}
        for name, memory in self.each_memory():
            memory.fill(table[name][sample[name]])
            if self.relation == "identities":
                self.get_buffer(f"{name}_clusters").copy_(table["person_id"][sample[name]])
                self.get_buffer(f"{name}_refined").copy_(table["person_id"][sample[name]])
                memory.relabel(table["person_id"][sample[name]])

    def on_train_epoch_start(self) -> None:
        """Name the clusters of this epoch; `EpochSweep` has filled the memories by now."""
        if self.clusters_known() and self.relation != "identities":
            self.label()

    def each_memory(self) -> Iterator[tuple[str, HybridMemory]]:
        """Yield the name of each modality with its memory."""
        for name, memory in self.memories.items():
            yield name, cast(HybridMemory, memory)

    def clusters_known(self) -> bool:
        """Return whether the memories have been filled, so that there can be clusters."""
        return self.clustering is not None and bool(self._filled(self.filled))

    def label(self) -> None:
        """Cluster the rows of both memories, refine the labels, write them into the memories."""
        assert self.clustering is not None
        rows = {name: memory.rows for name, memory in self.each_memory()}
        labels = {}
        for number, (name, each) in enumerate(rows.items()):
            labels[name], self.threshold[number] = on_rank_zero(
                self.clustering, each, self.threshold[number]
            )
            self.get_buffer(f"{name}_clusters").copy_(labels[name])
        if self.refinement is not None:
            pairs = self.image_of_sample if self.text_slot == "caption" else None
            labels["image"], labels["text"] = on_rank_zero(
                self.refinement, labels["image"], labels["text"], *rows.values(), pairs
            )
        for name, memory in self.each_memory():
            self.get_buffer(f"{name}_refined").copy_(labels[name])
            memory.relabel(outliers_as_singletons(labels[name]))

    def pseudo_labels(self) -> dict[str, Tensor]:
        """Return the clusters of both modalities, before and after refinement; -1 = outlier."""
        if not self.clusters_known():
            return {}
        names = ("image_clusters", "text_clusters", "image_refined", "text_refined")
        keys = ("image", "text", "image_refined", "text_refined")
        return {key: self.get_buffer(name) for key, name in zip(keys, names, strict=True)}

    def plan_labels(self) -> Tensor | None:
        """Return the refined label of every pair's image, -1 = outlier; None without clusters."""
        if self.clustering is None:
            return None
        return self.get_buffer("image_refined")[self.image_of_sample]

    def agreement(self, batch: PairBatch) -> Tensor:
        """Return ``[B, B]`` in [0, 1], how surely two pairs of the global batch show one person."""
        if self.relation == "identities":
            person_id = whole_column(batch, "person_id")
            return (person_id[:, None] == person_id).float()
        if batch.phrases is None:
            raise ValueError(
                "data.phrases=null: the captions come without the noun phrases that Text-IoU is "
                "made of. Leave data.phrases as configs/method/cmmt.yaml sets it, or do without: "
                "method.relation=pairs method.cross_weight=0 method.intra_weight=0."
            )
        return text_iou(global_column(batch, "phrases"), batch.phrases.device)

    def matching_loss(self, image: Tensor, text: Tensor, relation: Tensor) -> Tensor:
        """Return the projection matching loss of ``[B, D]`` embeddings, which keep their length."""
        projections = [text @ F.normalize(image).T]
        if self.directions == "both":
            projections.append(image @ F.normalize(text).T)
        losses = [soft_projection_matching_loss(each, relation).mean() for each in projections]
        return self.matching_weight * torch.stack(losses).sum()

    def cluster_loss(self, memory: HybridMemory, rows: Tensor, slot: Tensor) -> Tensor:
        """Return the contrast of one modality's ``[B, D]`` unit vectors with its clusters."""
        losses = cluster_contrast_loss(
            memory.scores(rows), memory.labels[slot], temperature=self.temperature
        )
        return self.cluster_weight * losses.mean()

    def hard_sample_losses(
        self, image: Tensor, text: Tensor, agreement: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses of hard samples across and within the modalities, summed."""
        samples = {
            "hard_cross": (self.cross_weight, text, image),
            "hard_image": (self.intra_weight, image, image),
            "hard_text": (self.intra_weight, text, text),
        }
        return {
            name: weight * self.hard_sample_loss(anchor, pool, agreement).sum()
            for name, (weight, anchor, pool) in samples.items()
            if weight
        }

    def training_step(self, batch: PairBatch, batch_idx: int) -> dict[str, Any]:
        length, longest = caption_lengths(batch)
        image = all_gather_rows(self.encoder.embed_images(batch.image))
        text = all_gather_rows(self.encoder.embed_texts(batch.tokens, length, longest))
        mines = bool(self.cross_weight or self.intra_weight)
        # float32 outside autocast: exp(1 / 0.05) overflows float16, embeddings have any length
        with torch.autocast(batch.image.device.type, enabled=False):
            own_pair = torch.eye(len(image), device=image.device)
            agreement = self.agreement(batch) if mines or self.relation != "pairs" else own_pair
            relation = own_pair if self.relation == "pairs" else agreement**self.iou_power
            losses = {"matching": self.matching_loss(image, text, relation)}
            unit = {"image": F.normalize(image), "text": F.normalize(text)}
            if mines:
                losses |= self.hard_sample_losses(unit["image"], unit["text"], agreement)
            if not self.clusters_known():
                return {"loss": self.log_total("train", losses)}
            slot = {"image": global_column(batch, "image_index")}
            by_caption = self.text_slot == "caption"
            slot["text"] = global_column(batch, "sample_index") if by_caption else slot["image"]
            for name, memory in self.each_memory():
                place = to_device(slot[name], image.device)
                losses[f"cluster_{name}"] = self.cluster_loss(memory, unit[name], place)
        return {
            "loss": self.log_total("train", losses),
            **{name: rows.detach() for name, rows in unit.items()},
            **{f"{name}_slot": index for name, index in slot.items()},
        }

    def remember(self, outputs: dict[str, Any]) -> None:
        if not self.clusters_known():
            return
        for name, memory in self.each_memory():
            memory.update(outputs[name], outputs[f"{name}_slot"], momentum=self.momentum)
