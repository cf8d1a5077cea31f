"""RDE: robust dual embedding under noisy correspondence (Qin et al., CVPR 2024)."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from crosswalk.distributed import all_gather_ragged, all_gather_rows, on_rank_zero, whole_column
from crosswalk.encoders.clip_embedding import TokenEncoder, every_token
from crosswalk.encoders.masked_language_model import MaskedLanguageModel
from crosswalk.labels.consensus_division import Division
from crosswalk.labels.masked_words import MaskedCaptions, WordMasking, check_masking
from crosswalk.losses.pair_losses import PairLoss, weighted_mean
from crosswalk.methods.base import Method, OptimFactory
from crosswalk.ranges import Epoch, Seed
from crosswalk.types import DataSpec, DualEncoder, ImageBatch, Needs, PairBatch, TextBatch


class RDE(Method[PairBatch]):
    """Trains two embeddings on the pairs that both of them judge clean.

    Each epoch: 1. the loss of every pair under either embedding (`sweep_step`); 2. two mixture
    fits and their consensus (`on_sweep_end`); 3. the pair loss of the pairs kept
    (`training_step`). Pairs judged noisy stay in the batch as negatives of the others.

    Args:
        encoder: `embed_images` and `embed_texts` give the unit vectors ``[b, D]`` of a batch by
            view; the views are trained side by side and averaged at test.
        data: Sizes of the training set.
        optim: Builds the optimizer and its schedule.
        loss: Loss of every pair from the similarities of a batch, and its reduction.
        division: ``(*losses [N], seed) -> Division``, which pairs are kept (Confident Consensus
            Division); None trains on all pairs.
        warmup_epochs: Epochs on all pairs before the first division; 0 as published.
        seed: Seeds the mixture fits and the coins of the pairs without consensus.
        masking: Which words of which captions are masked; None masks none. No part of RDE.
        mlm: ``(width, vocabulary_size) -> module`` makes what guesses the masked words of the pairs
            kept, for an encoder that is a `TokenEncoder`; None guesses none. No part of RDE.
    """

    needs = Needs(batches=(PairBatch,), identities_if_known=True)
    may_start_with = ("mlm",)

    clean: Tensor
    latest_losses: dict[str, Tensor] | None = None
    """``[N]`` losses by view that the division of this epoch was made of, only to be looked at."""
    latest_division: Division | None = None
    """The division of this epoch, only to be looked at; None after a run went on within it."""

    def __init__(
        self,
        encoder: DualEncoder,
        data: DataSpec,
        optim: OptimFactory,
        *,
        loss: PairLoss,
        division: Callable[..., Division] | None,
        warmup_epochs: Epoch = 0,
        seed: Seed = 1,
        masking: WordMasking | None = None,
        mlm: Callable[[int, int], MaskedLanguageModel] | None = None,
    ) -> None:
        super().__init__(optim)
        check_masking(masking, data.vocabulary_size, guesses=mlm is not None)
        self.encoder = encoder
        self.pair_loss = loss
        self.division = division
        self.warmup_epochs = warmup_epochs
        self.seed = seed
        self.masking = masking
        self.mlm = None
        if mlm is not None:
            if not isinstance(encoder, TokenEncoder):
                raise ValueError(
                    "method.mlm guesses words from tokens, and this encoder gives none. Choose "
                    "one of CLIP's, such as encoder=clip_vit_b16, or mlm=off."
                )
            self.mlm = mlm(encoder.clip.embed_dim, data.vocabulary_size)
        self.register_buffer("clean", torch.ones(data.num_samples))

    def embed(self, batch: ImageBatch | TextBatch) -> dict[str, Tensor]:
        if isinstance(batch, ImageBatch):
            return self.encoder.embed_images(batch.image)
        return self.encoder.embed_texts(batch.tokens)

    def captions_of(self, batch: PairBatch) -> MaskedCaptions:
        """Return the batch's captions, with words masked where they are to be."""
        if self.masking is None:
            return MaskedCaptions(batch.tokens, batch.tokens, torch.zeros_like(batch.tokens))
        return self.masking(batch.tokens, batch.key)

    def pair_losses(self, batch: PairBatch) -> dict[str, Tensor]:
        """Return for every view the ``[global batch]`` losses, both directions together."""
        images = self.encoder.embed_images(batch.image)
        texts = self.encoder.embed_texts(self.captions_of(batch).tokens)
        return self.losses_of(images, texts, whole_column(batch, "person_id"))

    def losses_of(
        self, images: dict[str, Tensor], texts: dict[str, Tensor], person_id: Tensor
    ) -> dict[str, Tensor]:
        """Return for every view the ``[B]`` losses of this process's embeddings with all others.

        Args:
            images: ``[b, D]`` embeddings by view.
            texts: Likewise.
            person_id: ``[B]`` of the global batch.
        """
        positive = person_id[:, None] == person_id
        losses = {}
        # float32 outside autocast: exp(1 / 0.015) needs the range, the ranking the precision
        with torch.autocast(person_id.device.type, enabled=False):
            for view in images:
                similarity = all_gather_rows(texts[view]) @ all_gather_rows(images[view]).T
                losses[view] = self.pair_loss.of_pairs(similarity, positive)
        return losses

    def losses_with_words(self, batch: PairBatch) -> tuple[dict[str, Tensor], Tensor]:
        """Return the losses of pairs, and the mean loss of the masked words of the pairs kept."""
        assert self.mlm is not None
        encoder, captions = cast(TokenEncoder, self.encoder), self.captions_of(batch)
        images = encoder.clip.encode_image(batch.image)
        texts = words = encoder.clip.encode_text(captions.tokens)
        if captions.masked is not captions.tokens:
            words = encoder.clip.encode_text(captions.masked)
        views = encoder.image_views(images), encoder.text_views(texts, captions.tokens)
        guesses = self.mlm(
            every_token(encoder.clip.project_text, words),
            every_token(encoder.clip.project_image, images),
            captions.label,
        )
        weight = self.clean[batch.sample_index][guesses.caption]
        columns = torch.stack([guesses.loss, guesses.hit, weight], dim=1)
        loss, hit, weight = all_gather_ragged(columns).unbind(1)
        accuracy = weighted_mean(hit, weight)
        self.log("train/mlm_accuracy", accuracy, on_step=False, on_epoch=True, batch_size=1)
        word_loss = self.mlm.weight * weighted_mean(loss, weight)
        return self.losses_of(*views, whole_column(batch, "person_id")), word_loss

    def wants_sweep(self, epoch: int) -> bool:
        return self.division is not None and epoch >= self.warmup_epochs

    def sweep_step(self, batch: PairBatch) -> dict[str, Tensor]:
        return self.local_rows(self.pair_losses(batch))

    def on_sweep_end(self, table: dict[str, Tensor]) -> None:
        assert self.division is not None  # no sweep is wanted without
        seed = self.seed + self.current_epoch
        division = Division(*on_rank_zero(self.division, *table.values(), seed=seed))
        self.latest_losses, self.latest_division = table, division
        self.clean.copy_(division.clean)
        self.log("train/clean_fraction", self.clean.mean())

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        clean = self.clean[whole_column(batch, "sample_index")]
        words = {}
        if self.mlm is None:
            losses = self.pair_losses(batch)
        else:
            losses, words["mlm"] = self.losses_with_words(batch)
        views = {view: self.pair_loss.reduce(loss, clean) for view, loss in losses.items()}
        return self.log_total("train", views | words)
