"""Means and deviations of the colours of many images.

They are counted, not summed up: the numbers do not depend on order or threads. An epoch's worth of
images takes seconds, so whoever asks for them keeps them between runs.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from crosswalk.data.pipeline.plans import Index
from crosswalk.data.pipeline.stores import ImageStore

_CHUNK = 16  # images read at a time

Channels = tuple[float, float, float]


def channel_statistics(images: ImageStore, place: Index) -> tuple[Channels, Channels]:
    """Return mean and population deviation of each channel over all pixels, in [0, 1].

    Source: Yu et al., MAR, CVPR 2019, released code: every data set is normalised by its own.

    Args:
        images: Images of any size.
        place: Which of them count.

    Raises:
        ValueError: If there are no images, or a channel has the same value in every pixel.

    Example:
        >>> class BlackAndGrey:
        ...     def read(self, index):
        ...         grey = 51 * torch.from_numpy(index).byte()
        ...         return grey.reshape(-1, 1, 1, 1).expand(-1, 3, 1, 1)
        >>> channel_statistics(BlackAndGrey(), np.array([0, 1]))
        ((0.1, 0.1, 0.1), (0.1, 0.1, 0.1))
    """
    mean, std = _statistics(images, place, np.zeros_like(place), 1)[0]
    if not bool((std > 0).all()):  # NaN without images
        raise ValueError(
            f"{len(place):,} images have channel deviations {std.tolist()}, so that they cannot "
            "be normalised by their own colours. Check the images, or pass "
            "data.normalization=given."
        )
    return _channels(mean), _channels(std)


def camera_statistics(
    images: ImageStore, place: Index, camera_id: Index, num_cameras: int
) -> Tensor:
    """Return ``[num_cameras, 2, 3]`` float32 mean and deviation of the channels per camera.

    In [0, 1], over all pixels of a camera's images; NaN for a camera without images. Images of
    unknown cameras (-1) do not count.

    Args:
        images: Images of any size.
        place: Which of them count.
        camera_id: ``[places]`` int64 camera of each, below ``num_cameras``.
        num_cameras: Rows of the result.

    Example:
        >>> class BlackAndGrey:
        ...     def read(self, index):
        ...         grey = 51 * torch.from_numpy(index).byte()
        ...         return grey.reshape(-1, 1, 1, 1).expand(-1, 3, 1, 1)
        >>> camera_statistics(BlackAndGrey(), np.array([0, 1]), np.array([2, 0]), 3)[:, 0]
        tensor([[0.2000, 0.2000, 0.2000],
                [   nan,    nan,    nan],
                [0.0000, 0.0000, 0.0000]])
    """
    known = camera_id >= 0
    return _statistics(images, place[known], camera_id[known], num_cameras).float()


def _statistics(images: ImageStore, place: Index, camera_id: Index, num_cameras: int) -> Tensor:
    counts = torch.zeros((num_cameras, 3, 256), dtype=torch.int64)
    for start in range(0, len(place), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        read = images.read(place[chunk])
        for image, camera in zip(read, camera_id[chunk].tolist(), strict=True):
            for count, channel in zip(counts[camera], image, strict=True):
                count += channel.flatten().bincount(minlength=256)
    value = torch.arange(256, dtype=torch.float64) / 255
    pixels = counts.sum(dim=2)
    mean = (counts * value).sum(dim=2) / pixels
    variance = (counts * (value - mean[:, :, None]).square()).sum(dim=2) / pixels
    return torch.stack([mean, variance.sqrt()], dim=1)


def _channels(values: Tensor) -> Channels:
    red, green, blue = values.tolist()
    return red, green, blue
