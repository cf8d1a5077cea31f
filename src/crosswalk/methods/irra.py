"""IRRA: cross-modal implicit relation reasoning and aligning (Jiang and Ye, CVPR 2023)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.distributed import all_gather_ragged, all_gather_rows, on_rank_zero, whole_column
from crosswalk.encoders.clip import ClipTokens
from crosswalk.encoders.clip_embedding import ClipEmbedding, every_token
from crosswalk.encoders.masked_language_model import MaskedLanguageModel
from crosswalk.labels.consensus_division import Division
from crosswalk.labels.masked_words import MaskedCaptions, WordMasking, check_masking
from crosswalk.losses.cross_modal_projection import cross_modal_projection_loss
from crosswalk.losses.identity import identity_loss
from crosswalk.losses.pair_losses import (
    info_nce_of_pairs,
    similarity_distribution_of_pairs,
    weighted_mean,
)
from crosswalk.methods.base import Method, OptimFactory
from crosswalk.ranges import Epoch, NotNegative, Positive, Seed
from crosswalk.types import DataSpec, ImageBatch, Needs, PairBatch, TextBatch

Loss = Literal["sdm", "itc", "cmpm", "id"]


class IRRA(Method[PairBatch]):
    """Matches the similarities of a batch to its identities, and guesses masked words.

    Each step: 1. words of every caption are masked; 2. embeddings of images and captions, and
    their losses (`embedding_losses`): similarity distribution matching and the identity loss of a
    classifier that both modalities share; 3. masked words ask the image what they are
    (`word_loss`). Each loss is a mean over the global batch: of pairs, or of masked words.

    Args:
        encoder: Gives tokens and one embedding of images and captions.
        data: Sizes of the training set.
        optim: Builds the optimizer and its schedule.
        losses: Of the embeddings: similarity distribution matching (``sdm``), InfoNCE (``itc``),
            cross-modal projection matching (``cmpm``), identities (``id``); summed.
        masking: Which words of which captions are masked; None masks none.
        mlm: ``(width, vocabulary_size) -> module`` makes what guesses the masked words; None
            guesses none, and masking is mere augmentation.
        temperature: Of SDM and ITC, in cosine units; > 0.
        id_weight: Of the identity loss.
        division: ``(*losses [N], seed) -> Division``, which pairs are kept, by the losses of pairs
            among ``losses``; None trains on all pairs, as published.
        warmup_epochs: Epochs on all pairs before the first division.
        seed: Seeds the mixture fits and the coins of the division.

    Raises:
        ValueError: If there is no loss, one twice, or nothing to divide or to guess by.
    """

    needs = Needs(batches=(PairBatch,), identities=True)
    may_start_with = ("classifier", "mlm")

    clean: Tensor
    latest_losses: dict[str, Tensor] | None = None
    """``[N]`` losses that the division of this epoch was made of, only to be looked at."""
    latest_division: Division | None = None
    """The division of this epoch, only to be looked at; None after a run went on within it."""

    def __init__(
        self,
        encoder: ClipEmbedding,
        data: DataSpec,
        optim: OptimFactory,
        *,
        losses: Sequence[Loss] = ("sdm", "id"),
        masking: WordMasking | None = None,
        mlm: Callable[[int, int], MaskedLanguageModel] | None = None,
        temperature: Positive = 0.02,
        id_weight: NotNegative = 1.0,
        division: Callable[..., Division] | None = None,
        warmup_epochs: Epoch = 0,
        seed: Seed = 1,
    ) -> None:
        super().__init__(optim)
        _check(losses, guesses=mlm is not None, divides=division is not None)
        check_masking(masking, data.vocabulary_size, guesses=mlm is not None)
        self.encoder = encoder
        self.losses = tuple(losses)
        self.masking = masking
        self.sdm = similarity_distribution_of_pairs(temperature=temperature)
        self.itc = info_nce_of_pairs(temperature=temperature)
        self.id_weight = id_weight
        self.division = division
        self.warmup_epochs = warmup_epochs
        self.seed = seed
        width = encoder.embedding_size
        self.classifier: nn.Linear | None = None
        if "id" in losses:
            self.classifier = nn.Linear(width, data.num_person_ids)
            nn.init.normal_(self.classifier.weight, std=0.001)
            nn.init.zeros_(self.classifier.bias)
        self.mlm = None if mlm is None else mlm(width, data.vocabulary_size)
        self.register_buffer("clean", torch.ones(data.num_samples))

    def embed(self, batch: ImageBatch | TextBatch) -> dict[str, Tensor]:
        if isinstance(batch, ImageBatch):
            return self.encoder.embed_images(batch.image)
        return self.encoder.embed_texts(batch.tokens)

    def captions_of(self, batch: PairBatch) -> MaskedCaptions:
        """Return the batch's captions with words masked."""
        if self.masking is None:
            return MaskedCaptions(batch.tokens, batch.tokens, torch.zeros_like(batch.tokens))
        return self.masking(batch.tokens, batch.key)

    def pair_losses(self, image: Tensor, text: Tensor, person_id: Tensor) -> dict[str, Tensor]:
        """Return ``[B]`` losses of the pairs of ``[B, D]`` embeddings, both directions together."""
        positive = person_id[:, None] == person_id
        unit_image, unit_text = F.normalize(image), F.normalize(text)
        similarity = unit_text @ unit_image.T
        losses = {}
        if "sdm" in self.losses:
            losses["sdm"] = self.sdm.of_pairs(similarity, positive)
        if "itc" in self.losses:
            losses["itc"] = self.itc.of_pairs(similarity, positive)
        if "cmpm" in self.losses:
            of_images = cross_modal_projection_loss(image @ unit_text.T, positive)
            of_texts = cross_modal_projection_loss(text @ unit_image.T, positive)
            losses["cmpm"] = of_images + of_texts
        return losses

    def identity_losses(self, image: Tensor, text: Tensor, person_id: Tensor) -> Tensor:
        """Return ``[B]`` identity losses of the pairs, and log how many are right."""
        assert self.classifier is not None
        losses = []
        for name, embedding in (("image", image), ("text", text)):
            logits = self.classifier(embedding)
            losses.append(identity_loss(logits, person_id))
            right = (logits.argmax(dim=1) == person_id).to(logits.dtype)
            self.log_mean(f"{name}_accuracy", right.mean())
        return self.id_weight * torch.stack(losses).mean(dim=0)

    def word_loss(
        self, images: ClipTokens, words: ClipTokens, label: Tensor, kept: Tensor
    ) -> Tensor:
        """Return the mean loss of all masked words of pairs that are kept, of all processes.

        Args:
            images: Of this process's ``b`` images.
            words: Of its masked captions.
            label: ``[b, L]`` words to guess, 0 elsewhere.
            kept: ``[b]`` weights of its pairs.
        """
        assert self.mlm is not None
        guesses = self.mlm(
            every_token(self.encoder.clip.project_text, words),
            every_token(self.encoder.clip.project_image, images),
            label,
        )
        columns = torch.stack([guesses.loss, guesses.hit, kept[guesses.caption]], dim=1)
        loss, hit, weight = all_gather_ragged(columns).unbind(1)
        self.log_mean("mlm_accuracy", weighted_mean(hit, weight))
        return self.mlm.weight * weighted_mean(loss, weight)

    def log_mean(self, name: str, value: Tensor) -> None:
        """Log a value of a step, of which the epoch has the mean."""
        self.log(f"train/{name}", value, on_step=False, on_epoch=True, batch_size=1)

    def wants_sweep(self, epoch: int) -> bool:
        return self.division is not None and epoch >= self.warmup_epochs

    def sweep_step(self, batch: PairBatch) -> dict[str, Tensor]:
        images = self.encoder.clip.encode_image(batch.image)
        texts = self.encoder.clip.encode_text(self.captions_of(batch).tokens)
        image, text = self.embeddings(images, texts)
        person_id = whole_column(batch, "person_id")
        with torch.autocast(batch.image.device.type, enabled=False):
            return self.local_rows(self.pair_losses(image, text, person_id))

    def on_sweep_end(self, table: dict[str, Tensor]) -> None:
        assert self.division is not None  # no sweep is wanted without
        seed = self.seed + self.current_epoch
        division = Division(*on_rank_zero(self.division, *table.values(), seed=seed))
        self.latest_losses, self.latest_division = table, division
        self.clean.copy_(division.clean)
        self.log("train/clean_fraction", self.clean.mean())

    def embeddings(self, images: ClipTokens, texts: ClipTokens) -> tuple[Tensor, Tensor]:
        """Return the ``[B, D]`` embeddings of the global batch."""
        image, text = self.encoder.image_embedding(images), self.encoder.text_embedding(texts)
        return all_gather_rows(image), all_gather_rows(text)

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        captions = self.captions_of(batch)
        images = self.encoder.clip.encode_image(batch.image)
        texts = words = self.encoder.clip.encode_text(captions.tokens)
        if self.mlm is not None and captions.masked is not captions.tokens:
            words = self.encoder.clip.encode_text(captions.masked)
        image, text = self.embeddings(images, texts)
        person_id = whole_column(batch, "person_id")
        kept = self.clean[whole_column(batch, "sample_index")]
        # float32 outside autocast: similarities times 50 need the precision
        with torch.autocast(batch.image.device.type, enabled=False):
            of_pairs = self.pair_losses(image, text, person_id)
            if self.classifier is not None:
                of_pairs["id"] = self.identity_losses(image, text, person_id)
        losses = {name: weighted_mean(loss, kept) for name, loss in of_pairs.items()}
        if self.mlm is not None:
            own = self.clean[batch.sample_index]
            losses["mlm"] = self.word_loss(images, words, captions.label, own)
        return self.log_total("train", losses)


def _check(losses: Sequence[str], *, guesses: bool, divides: bool) -> None:
    """Refuse arguments that leave nothing to train, or nothing to divide by."""
    if len(set(losses)) < len(losses):
        raise ValueError(f"method.losses={list(losses)} has a loss twice. Name each once.")
    if not losses and not guesses:
        raise ValueError(
            "method.losses=[] with mlm=off trains nothing. Name a loss, or mlm=shared."
        )
    if divides and not {"sdm", "itc", "cmpm"} & set(losses):
        raise ValueError(
            f"method.division judges pairs by their losses, and method.losses={list(losses)} has "
            "none of sdm, itc and cmpm. Name one, or division=off."
        )
