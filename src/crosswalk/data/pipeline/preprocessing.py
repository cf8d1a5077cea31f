"""What an evaluation does to an image before a model sees it, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from crosswalk.data.pipeline.decoding import Interpolation
from crosswalk.data.pipeline.transforms import PixelFormat, in_chunks, normalize
from crosswalk.ranges import Pixels, Positive, Share


@dataclass(frozen=True)
class Preprocessing:
    """How images are resized and normalised, augmentation aside.

    Attributes:
        image_size: Height and width, in pixels.
        interpolation: Of the resizing, with antialiasing as Pillow's.
        mean: Of the channels; see `normalize`.
        std: Of the channels.
        pixel_format: ``rgb01`` or ``bgr255``; see `normalize`.

    Example:
        >>> Preprocessing((4, 2), "bilinear", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)).image_size
        (4, 2)
    """

    image_size: tuple[Pixels, Pixels]
    interpolation: Interpolation
    mean: tuple[Share, Share, Share]
    std: tuple[Positive, Positive, Positive]
    pixel_format: PixelFormat = "rgb01"

    def normalized(self, image: Tensor) -> Tensor:
        """Return ``[B, 3, H, W]`` uint8 images as the float32 that a model takes."""

        def at_once(some: Tensor) -> Tensor:
            return normalize(some, self.mean, self.std, pixel_format=self.pixel_format)

        return in_chunks(at_once, image)


def preprocessing_by(
    transform: object, image_size: Sequence[int], interpolation: Interpolation
) -> Preprocessing | None:
    """Return what a transform of batches does where it augments nothing; None if it is not known.

    Args:
        transform: Known are those with ``mean`` and ``std`` and perhaps a ``pixel_format``, such as
            `PairTransform` and `ImageTransform`.
        image_size: Height and width, in pixels.
        interpolation: Of the resizing.

    Example:
        >>> from crosswalk.data.pipeline.image_transform import ImageTransform
        >>> preprocessing_by(ImageTransform(), [4, 2], "bicubic").mean
        (0.485, 0.456, 0.406)
    """
    mean, std = getattr(transform, "mean", None), getattr(transform, "std", None)
    if mean is None or std is None:
        return None
    height, width = image_size
    pixel_format: PixelFormat = getattr(transform, "pixel_format", "rgb01")
    return Preprocessing((height, width), interpolation, tuple(mean), tuple(std), pixel_format)
