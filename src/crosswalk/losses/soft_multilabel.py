"""Losses that soft multilabels guide: consistency over cameras, discriminative embedding."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from crosswalk.host import Values, on_host, to_device


class CameraStatistics(NamedTuple):
    """Mean and spread of the rows of each camera.

    Attributes:
        mean: ``[cameras, columns]``.
        std: ``[cameras, columns]`` unbiased; 0 for a camera with one row.
        size: ``[cameras]`` int64 rows.
    """

    mean: Tensor
    std: Tensor
    size: Tensor


def camera_statistics(values: Tensor, camera_id: Values, *, min_size: int = 1) -> CameraStatistics:
    """Return mean and unbiased standard deviation of the rows of each camera, with gradient.

    Where all values of a camera are equal, the deviation is exactly 0 and so is its gradient,
    which would be 0 / 0 otherwise.

    Args:
        values: ``[n, columns]``.
        camera_id: ``[n]`` int64 camera of each row, best an array: sizes follow from it.
        min_size: Cameras with fewer rows are left out.

    Example:
        >>> values = torch.tensor([[0.0, 0.0], [2.0, 4.0], [7.0, 7.0]])
        >>> statistics = camera_statistics(values, torch.tensor([3, 3, 5]), min_size=2)
        >>> statistics.mean, statistics.std.round(decimals=4)
        (tensor([[1., 2.]]), tensor([[1.4142, 2.8284]]))
    """
    _, numbers, counts = np.unique(on_host(camera_id), return_inverse=True, return_counts=True)
    place = to_device(numbers, values.device)
    member = (place[:, None] == torch.arange(len(counts), device=values.device)).long().T
    size = member.sum(dim=1)
    weight = member.to(values.dtype)
    # Relative to one row of the camera: equal rows then differ by 0, not by a rounding error.
    origin = values.detach()[member.argmax(dim=1)]
    deviation = values - origin[place]
    mean = weight @ deviation / size[:, None]
    squares = weight @ (deviation - mean[place]).square()
    variance = squares / (size[:, None] - 1).clamp_min(1)
    spread = variance > 0
    std = torch.where(spread, variance, 1.0).sqrt() * spread
    kept = to_device(np.flatnonzero(counts >= min_size), values.device)
    return CameraStatistics((origin + mean)[kept], std[kept], size[kept])


def initial_centers(
    log_multilabel: Tensor, camera_id: Values, *, num_columns: int = 256
) -> tuple[Tensor, Tensor]:
    """Return the centres of log multilabels: cameras' mean, and cameras' standard deviation.

    Every camera weighs the same. Cameras with one image have no deviation and are left out of the
    second centre; the official code makes it NaN then.
    Source: Yu et al., MAR, CVPR 2019, official code.

    Args:
        log_multilabel: ``[N, agents]`` of the whole training set.
        camera_id: ``[N]`` int64.
        num_columns: Agents treated at one time, which bounds the extra memory.

    Returns:
        ``[agents]`` mean and ``[agents]`` standard deviation; 0 if no camera has two images.

    Example:
        >>> log_multilabel = torch.tensor([[-1.0, -3.0], [-3.0, -3.0], [-5.0, -1.0]])
        >>> initial_centers(log_multilabel, torch.tensor([1, 1, 2]))
        (tensor([-3.5000, -2.0000]), tensor([1.4142, 0.0000]))
    """
    means, stds = [], []
    camera_id = on_host(camera_id)
    for columns in torch.split(log_multilabel, num_columns, dim=1):
        mean, std, size = camera_statistics(columns, camera_id)
        means.append(mean.mean(dim=0))
        stds.append(std.sum(dim=0) / (size >= 2).sum().clamp_min(1))
    return torch.cat(means), torch.cat(stds)


def consistency_loss(
    statistics: CameraStatistics, center_mean: Tensor, center_std: Tensor, *, use_std: bool
) -> Tensor:
    """Return how far the distribution of log multilabels under each camera is from the common one.

    The same people walk by all cameras, so their multilabels should not depend on the camera.
    Both terms of a camera together are the squared 2-Wasserstein distance of log-normal
    distributions with independent entries.
    Source: Yu et al., MAR, CVPR 2019, eqs. 5 and 6; the paper sums the terms, the code averages.

    Args:
        statistics: `camera_statistics` of a batch's log multilabels.
        center_mean: ``[agents]`` mean over all cameras, a constant.
        center_std: ``[agents]`` standard deviation over all cameras, a constant.
        use_std: Whether deviations are compared too.

    Returns:
        ``[2 * cameras]`` terms >= 0, not reduced: the means, then the deviations (if asked for).

    Example:
        >>> statistics = camera_statistics(
        ...     torch.tensor([[0.0], [2.0], [2.0], [4.0]]), torch.tensor([1, 1, 2, 2])
        ... )
        >>> consistency_loss(statistics, torch.tensor([1.0]), torch.tensor([0.0]), use_std=True)
        tensor([0.0000, 4.0000, 2.0000, 2.0000])
    """
    terms = (statistics.mean - center_mean).square().sum(dim=1)
    if not use_std:
        return terms
    return torch.cat([terms, (statistics.std - center_std).square().sum(dim=1)])


def discriminative_loss(squared_distance: Tensor, positive: Tensor) -> Tensor:
    """Return the loss that draws positive pairs together and hard negative pairs apart.

    All pairs look alike; those whose multilabels disagree show different people, and these are the
    pairs worth telling apart.
    Source: Yu et al., MAR, CVPR 2019, eq. 4; what stands for an empty set only in the official
    code.

    Args:
        squared_distance: ``[pairs]`` of unit vectors, in [0, 4].
        positive: ``[pairs]`` bool; the other pairs are hard negatives.

    Returns:
        0-d: minus the logarithm of the positives' share, P / (P + N), where P and N are the means
        of exp(-squared distance), and 1 and 0.5 where there is no pair.

    Example:
        >>> discriminative_loss(torch.tensor([0.4, 0.8]), torch.tensor([True, False]))
        tensor(0.5130)
    """
    nearness = (-squared_distance).exp()

    def mean_over(chosen: Tensor, if_none: float) -> Tensor:
        number = chosen.sum()
        mean = (nearness * chosen).sum() / number.clamp_min(1)
        return torch.where(number > 0, mean, if_none)

    positives, negatives = mean_over(positive, 1.0), mean_over(~positive, 0.5)
    return (positives + negatives).log() - positives.log()
