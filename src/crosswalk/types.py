"""Types that several layers share: batches, sizes of a data set, what a method needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray


class WholeBatch(NamedTuple):
    """The global batch, of all processes in rank order, as the plan knows it.

    ``[B]`` int64 arrays, which stay on the host, so that nobody waits to read them; this process's
    part begins at ``start``. ``length`` is None where captions were changed on the device, and of
    images. ``phrases`` is ``[B, P]`` of pairs that have them, else None.
    """

    start: int
    sample_index: NDArray[np.int64]
    image_index: NDArray[np.int64]
    person_id: NDArray[np.int64]
    camera_id: NDArray[np.int64]
    length: NDArray[np.int64] | None = None
    phrases: NDArray[np.int64] | None = None


class PairBatch(NamedTuple):
    """A training batch of image-caption pairs.

    ``image`` leaves a loader as uint8 ``[B, 3, H, W]`` and reaches a method as normalised
    float32, after the batch transform. ``tokens`` is int64 ``[B, L]``, zero padded; ``length``
    counts start and end token. ``sample_index`` numbers the training pairs, ``image_index`` the
    training images. ``phrases`` is int64 ``[B, P]``: the noun-phrase units of each caption, each
    once, numbered from 1 and zero padded (`crosswalk.data.text.noun_phrases`), or None where the
    data are not asked for them. ``key`` is the random key of each sample's augmentation
    (`crosswalk.draws`), or None where nothing is augmented. ``whole`` is what the plan knows of
    the global batch, or None of a batch made by hand, whose values are asked of the device.
    """

    image: Tensor
    tokens: Tensor
    length: Tensor
    person_id: Tensor
    camera_id: Tensor
    sample_index: Tensor
    image_index: Tensor
    phrases: Tensor | None
    key: Tensor | None
    whole: WholeBatch | None = None


class ImageBatch(NamedTuple):
    """A batch of images: a training batch of image ReID, a gallery batch of any task."""

    image: Tensor
    person_id: Tensor
    camera_id: Tensor
    sample_index: Tensor
    key: Tensor | None
    whole: WholeBatch | None = None


class TextBatch(NamedTuple):
    """A batch of captions, queries of text-based person search."""

    tokens: Tensor
    length: Tensor
    person_id: Tensor
    camera_id: Tensor
    sample_index: Tensor
    whole: WholeBatch | None = None


class SourceTargetBatch(NamedTuple):
    """One batch of a labelled source and one of an unlabelled target, for one training step."""

    source: ImageBatch
    target: ImageBatch


class ImageFeatures(NamedTuple):
    """What an image encoder gives of a batch, not normalised.

    ``pooled`` is ``[b, D]`` behind the backbone's pooling, ``neck`` is ``[b, D]`` behind the neck
    (a batch normalisation), or ``pooled`` again where there is no neck.
    """

    pooled: Tensor
    neck: Tensor


BatchT = TypeVar("BatchT")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a method needs of its data, its plan and its trainer; every method class declares it.

    Attributes:
        batches: The kinds of batches that its training step takes.
        identities: Whether it trains on true identities; data without them are refused.
        identities_if: Values of its constructor's arguments with which it does, too.
        identities_if_known: Whether it can do without, and uses them where the data have them.
        whole_batch: Whether its loss compares all samples of a batch with each other, so that
            several small batches are not one large batch.
        images: Whether its training step looks at the images; else those of training batches have
            no pixels (``[B, 3, 0, 0]``), and nothing is read for them. A sweep sees them all.
    """

    batches: tuple[type, ...]
    identities: bool = False
    identities_if: Mapping[str, Any] = field(default_factory=dict)
    identities_if_known: bool = False
    whole_batch: bool = True
    images: bool = True

    @property
    def plans_see_identities(self) -> bool:
        """Whether batches may be made by true identities; else no plan is told them."""
        return self.identities or self.identities_if_known


@dataclass(frozen=True, slots=True)
class DataSpec:
    """Sizes a method needs to build itself, known once the data are read.

    Attributes:
        num_samples: Training samples: pairs for text-based search, images for image ReID.
        num_images: Training images.
        num_person_ids: Training identities; person ids of training batches are below it.
        num_cameras: Largest camera number + 1, or 1 where cameras are unknown.
        vocabulary_size: Token ids are below it; 0 without text.
        num_source_person_ids: Identities of the labelled source; 0 without one.
    """

    num_samples: int
    num_images: int
    num_person_ids: int
    num_cameras: int = 1
    vocabulary_size: int = 0
    num_source_person_ids: int = 0


class DualEncoder(Protocol):
    """A module with an image and a text side that share one space per view."""

    def embed_images(self, image: Tensor) -> dict[str, Tensor]:
        """Return ``[b, D]`` unit vectors by view."""

    def embed_texts(self, tokens: Tensor) -> dict[str, Tensor]:
        """Return ``[b, D]`` unit vectors by view."""


class ImageEncoder(Protocol):
    """A module that embeds images of people."""

    embedding_size: int

    def __call__(self, image: Tensor) -> ImageFeatures:
        """Return the features of ``[b, 3, H, W]`` normalised images."""


class SweepData(Protocol):
    """What `EpochSweep` needs of a data module."""

    spec: DataSpec

    def sweep_dataloader(self, epoch: int) -> Iterable[NamedTuple]:
        """Return one pass over the training set for the sweep of ``epoch``."""


class EvaluationData(Protocol):
    """What `RetrievalMetrics` needs of a data module."""

    directions: Sequence[str]
    """Retrieval directions that are measured; the first one is logged under plain names."""
    camera_rule: bool
    """Whether gallery images of the same person by the same camera as the query are ignored."""
    extra_map: Sequence[str]
    """Further definitions of average precision that are measured beside the standard one."""

    def evaluation_roles(self, stage: str) -> Sequence[tuple[str, str]]:
        """Return (split, "query" or "gallery") of each loader of ``stage`` "validate" or "test"."""

    def num_evaluation_samples(self, split: str, role: str) -> int:
        """Return how many different samples that loader covers."""

    def same_pictures(self, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Return the picture that each query, and each gallery image, is; None: all others."""
