"""Contrast of pairs: every caption against all images of the batch, and the other way round."""

from __future__ import annotations

import torch
from torch import Tensor

from crosswalk.distributed import all_gather_rows
from crosswalk.losses.info_nce import info_nce
from crosswalk.methods.base import Method, OptimFactory
from crosswalk.types import DataSpec, DualEncoder, ImageBatch, Needs, PairBatch, TextBatch


class PairContrast(Method[PairBatch]):
    """Tells the caption of an image from those of the others.

    Args:
        encoder: Gives the unit vectors of images and captions, by view.
        data: Sizes of the training set.
        optim: Builds the optimizer and its schedule.
        temperature: Of the contrast, cosine units; > 0.
    """

    needs = Needs(batches=(PairBatch,))

    def __init__(
        self,
        encoder: DualEncoder,
        data: DataSpec,
        optim: OptimFactory,
        *,
        temperature: float = 0.07,
    ) -> None:
        super().__init__(optim)
        self.encoder = encoder
        self.temperature = temperature

    def embed(self, batch: ImageBatch | TextBatch) -> dict[str, Tensor]:
        """Return the unit vectors of images or captions, by view."""
        if isinstance(batch, ImageBatch):
            return self.encoder.embed_images(batch.image)
        return self.encoder.embed_texts(batch.tokens)

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """Return the sum over views of the contrast in both directions."""
        images = self.encoder.embed_images(batch.image)
        texts = self.encoder.embed_texts(batch.tokens)
        losses = {}
        for view in images:
            similarity = all_gather_rows(texts[view]) @ all_gather_rows(images[view]).T
            own = torch.eye(len(similarity), dtype=torch.bool)
            both = (similarity, similarity.T)
            each = [info_nce(one, own, temperature=self.temperature).mean() for one in both]
            losses[view] = torch.stack(each).sum()
        return self.log_total("train", losses)
