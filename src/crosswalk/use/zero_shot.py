"""A published network as it is: the baseline that nobody trained on people."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from crosswalk.methods.base import Method, OptimFactory
from crosswalk.types import DataSpec, ImageBatch, Needs, PairBatch, TextBatch


class PublishedEncoder(Protocol):
    """A module that embeds images; one that embeds captions too has ``embed_texts``."""

    def embed_images(self, image: Tensor) -> dict[str, Tensor]:
        """Return ``[b, D]`` unit vectors by view."""


class ZeroShot(Method[PairBatch]):
    """Embeds with a published encoder; there is nothing to train.

    `crosswalk.load("timm:<name>")` and ``open_clip:<name>/<tag>`` are of this kind.

    Args:
        encoder: `embed_images` and, of CLIPs, `embed_texts` give unit vectors by view.
        data: Not needed.
        optim: Not needed.
    """

    needs = Needs(batches=(PairBatch, ImageBatch))

    def __init__(self, encoder: PublishedEncoder, data: DataSpec, optim: OptimFactory) -> None:
        super().__init__(optim)
        self.encoder = encoder

    def embed(self, batch: ImageBatch | TextBatch) -> dict[str, Tensor]:
        """Return the ``[b, D]`` unit vectors that the network was published with."""
        if isinstance(batch, ImageBatch):
            return self.encoder.embed_images(batch.image)
        embedded: dict[str, Tensor] = self.encoder.embed_texts(batch.tokens)  # type: ignore[attr-defined]
        return embedded
