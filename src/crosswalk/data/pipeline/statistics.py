"""Means and deviations of the colours of many images.

They are counted, not summed up: the numbers do not depend on order, threads or image size. An
epoch's worth of images takes seconds, so nothing is kept between runs.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from crosswalk.data.pipeline.cache import ImageStore
from crosswalk.data.pipeline.plans import Index

_CHUNK = 16  # images read at a time

Channels = tuple[float, float, float]


def channel_statistics(images: ImageStore) -> tuple[Channels, Channels]:
    """Return mean and population deviation of each channel over all pixels, in [0, 1].

    Source: Yu et al., MAR, CVPR 2019, released code: every data set is normalised by its own.

    Raises:
        ValueError: If there are no images, or a channel has the same value in every pixel.

    Example:
        >>> class BlackAndGrey:
        ...     broken = {}
        ...     def __len__(self): return 2
        ...     def read(self, index):
        ...         grey = 51 * torch.from_numpy(index).byte()
        ...         return grey.reshape(-1, 1, 1, 1).expand(-1, 3, 1, 1)
        >>> channel_statistics(BlackAndGrey())
        ((0.1, 0.1, 0.1), (0.1, 0.1, 0.1))
    """
    mean, std = _statistics(images, np.zeros(len(images), dtype=np.int64), 1)[0]
    if not bool((std > 0).all()):  # NaN without images
        raise ValueError(
            f"{len(images):,} images have channel deviations {std.tolist()}, so that they cannot "
            "be normalised by their own colours. Check the images, or pass "
            "data.normalization=given."
        )
    return _channels(mean), _channels(std)


def camera_statistics(images: ImageStore, camera_id: Index, num_cameras: int) -> Tensor:
    """Return ``[num_cameras, 2, 3]`` float32 mean and deviation of the channels per camera.

    In [0, 1], over all pixels of a camera's images; NaN for a camera without images. Images that
    cannot be read, and those of unknown cameras (-1), do not count.

    Args:
        images: Images of any size.
        camera_id: ``[images]`` int64, below ``num_cameras``.
        num_cameras: Rows of the result.

    Example:
        >>> class BlackAndGrey:
        ...     broken = {}
        ...     def __len__(self): return 2
        ...     def read(self, index):
        ...         grey = 51 * torch.from_numpy(index).byte()
        ...         return grey.reshape(-1, 1, 1, 1).expand(-1, 3, 1, 1)
        >>> camera_statistics(BlackAndGrey(), np.array([2, 0]), 3)[:, 0]
        tensor([[0.2000, 0.2000, 0.2000],
                [   nan,    nan,    nan],
                [0.0000, 0.0000, 0.0000]])
    """
    return _statistics(images, camera_id, num_cameras).float()


def _statistics(images: ImageStore, camera_id: Index, num_cameras: int) -> Tensor:
    counts = torch.zeros((num_cameras, 3, 256), dtype=torch.int64)
    places = [
        place
        for place, camera in enumerate(camera_id.tolist())
        if camera >= 0 and place not in images.broken
    ]
    for start in range(0, len(places), _CHUNK):
        index = np.array(places[start : start + _CHUNK], dtype=np.int64)
        for image, camera in zip(images.read(index), camera_id[index].tolist(), strict=True):
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
