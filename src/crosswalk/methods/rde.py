"""RDE: robust dual embedding under noisy correspondence (Qin et al., CVPR 2024)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from crosswalk.distributed import all_gather_rows, on_rank_zero
from crosswalk.labels.consensus_division import Division
from crosswalk.losses.pair_losses import PairLoss
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
    """

    needs = Needs(batches=(PairBatch,), identities_if_known=True)

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
    ) -> None:
        super().__init__(optim)
        self.encoder = encoder
        self.pair_loss = loss
        self.division = division
        self.warmup_epochs = warmup_epochs
        self.seed = seed
        self.register_buffer("clean", torch.ones(data.num_samples))

    def embed(self, batch: ImageBatch | TextBatch) -> dict[str, Tensor]:
        if isinstance(batch, ImageBatch):
            return self.encoder.embed_images(batch.image)
        return self.encoder.embed_texts(batch.tokens)

    def pair_losses(self, batch: PairBatch) -> dict[str, Tensor]:
        """Return for every view the ``[global batch]`` losses, both directions together."""
        person_id = all_gather_rows(batch.person_id)
        positive = person_id[:, None] == person_id
        images = self.encoder.embed_images(batch.image)
        texts = self.encoder.embed_texts(batch.tokens)
        losses = {}
        # float32 outside autocast: exp(1 / 0.015) needs the range, the ranking the precision
        with torch.autocast(batch.image.device.type, enabled=False):
            for view in images:
                similarity = all_gather_rows(texts[view]) @ all_gather_rows(images[view]).T
                losses[view] = self.pair_loss.of_pairs(similarity, positive)
        return losses

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
        clean = self.clean[all_gather_rows(batch.sample_index)]
        losses = self.pair_losses(batch)
        return self.log_total(
            "train", {view: self.pair_loss.reduce(loss, clean) for view, loss in losses.items()}
        )
