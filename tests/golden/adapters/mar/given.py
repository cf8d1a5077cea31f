"""MAR without a network, for cases that give features or multilabels."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from crosswalk.labels.soft_multilabel import agreeing_pairs
from crosswalk.methods.mar import MAR
from crosswalk.types import DataSpec, ImageFeatures


class GivenFeatures(nn.Module):
    """An encoder whose images are their own features."""

    def __init__(self, embedding_size: int) -> None:
        super().__init__()
        self.embedding_size = embedding_size

    def forward(self, image: Tensor) -> ImageFeatures:
        return ImageFeatures(image, image)


class RecordedMining:
    """`agreeing_pairs`, and what it found at every call."""

    def __init__(self) -> None:
        self.positive: list[Tensor] = []

    def __call__(self, agreement: Tensor, threshold: Tensor) -> Tensor:
        self.positive.append(agreeing_pairs(agreement, threshold))
        return self.positive[-1]


class EpochGiven(MAR):
    """The method without a trainer: somebody else says which epoch it is."""

    current_epoch = 0  # type: ignore[assignment]


def mar_without_encoder(
    *, num_samples: int, num_agents: int, embedding_size: int = 1, **settings: object
) -> EpochGiven:
    """Return the method in float64, with `GivenFeatures`."""
    return make_mar(
        GivenFeatures(embedding_size),
        DataSpec(
            num_samples=num_samples,
            num_images=num_samples,
            num_person_ids=1,
            num_source_person_ids=num_agents,
        ),
        lambda module: torch.optim.SGD(module.parameters(), lr=0.0),
        **settings,
    )


def make_mar(
    encoder: nn.Module,
    data: DataSpec,
    optim: Callable[[nn.Module], Any],
    **settings: Any,  # noqa: ANN401
) -> EpochGiven:
    """Return the method in float64, logging nowhere."""
    method = EpochGiven(encoder, data, optim, **settings).double()
    method.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    method.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return method
