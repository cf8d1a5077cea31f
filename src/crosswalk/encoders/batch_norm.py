"""A batch normalisation whose statistics do not depend on the number of processes."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crosswalk.distributed import rank_and_world_size, rows_of_processes
from crosswalk.encoders.shared_statistics import (
    group_shares,
    group_statistics,
    normalise_groups,
)

_LIBRARY_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

BatchStatistics = Literal["frozen", "train"]
RunningStatistics = Literal["every_group", "first_group"]


class GroupBatchNorm(nn.Module):
    """Batch normalisation over groups of samples of the global batch.

    In the place of `torch.nn.BatchNorm1d` and `BatchNorm2d`, with their parameter and buffer
    names. The global batch is what all processes hold, in rank order. Its first ``group_size``
    samples share mean and variance, then the next; a rest stands alone. A group may span
    processes, and one process may hold several, so any number of processes computes the same.

    Buffers are written by `forward` in training mode, once per group in order, or by the first
    group alone (``running_statistics``), and never if ``statistics`` is "frozen".

    Args:
        num_features: Channels.
        group_size: Samples that share statistics; None means the whole global batch.
        statistics: "train" uses a batch's own statistics in training mode; "frozen" always uses
            the stored ones, whatever the mode. RDE's published numbers come from "frozen" with
            the initial mean 0 and variance 1, which makes the layer an affine map.
        eps: Added to the variance.
        momentum: Weight of a new statistic in the running one; in (0, 1].

    Example:
        >>> norm = GroupBatchNorm(1, group_size=2)
        >>> norm(torch.tensor([[1.0], [3.0], [10.0], [14.0]])).flatten()
        tensor([-1.0000,  1.0000, -1.0000,  1.0000], grad_fn=<...>)
        >>> norm.num_batches_tracked
        tensor(2)
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    running_statistics: RunningStatistics = "every_group"
    """Which groups reach the running statistics; `follow_groups` sets it in a whole module."""

    def __init__(
        self,
        num_features: int,
        *,
        group_size: int | None = None,
        statistics: BatchStatistics = "train",
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        if group_size is not None and group_size < 1:
            raise ValueError(f"group_size={group_size} must be at least 1, or null for all samples")
        self.group_size = group_size
        self.statistics = statistics
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[b, C, ...]`` normalised over samples and positions of each group.

        Args:
            x: ``[b, C, ...]`` this process's samples, which may be none.

        Raises:
            ValueError: If a group has a single value per channel, so no variance.
        """
        if not self.training or self.statistics == "frozen":
            mean, var = self.running_mean, self.running_var
            return F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)
        if rank_and_world_size()[1] == 1:
            if self.group_size is None or len(x) <= self.group_size:
                self.num_batches_tracked += 1
                return self._normalise_group(x)  # a split and its gradient would copy
            groups = torch.split(x, self.group_size)
            followed = self._num_followed(len(groups))
            self.num_batches_tracked += followed
            return torch.cat(
                [self._normalise_group(x, number < followed) for number, x in enumerate(groups)]
            )
        return self._normalise_across_processes(x)

    def _num_followed(self, num_groups: int) -> int:
        """Return how many groups of a batch reach the running statistics, the first ones."""
        return num_groups if self.running_statistics == "every_group" else 1

    def _normalise_group(self, x: Tensor, followed: bool = True) -> Tensor:
        self._check_count(x.numel() // x.shape[1])
        mean, var = (self.running_mean, self.running_var) if followed else (None, None)
        return F.batch_norm(x, mean, var, self.weight, self.bias, True, self.momentum, self.eps)

    def _normalise_across_processes(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        rows = rows_of_processes(len(x), x.device)
        shares = group_shares(rows, self.group_size, wide, x.device)
        counts = [number * x.shape[2:].numel() for number in shares.group_rows]
        self._check_count(min(counts))
        mean, var = group_statistics(x, shares)
        followed = self._num_followed(len(counts))
        self.num_batches_tracked += followed
        with torch.no_grad():
            for number, count in enumerate(counts[:followed]):
                unbiased = var[number] * (count / (count - 1))
                self.running_mean.lerp_(mean[number].to(self.running_mean.dtype), self.momentum)
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        return normalise_groups(x, self.weight, self.bias, mean, var, shares, eps=self.eps)

    def _check_count(self, values_per_channel: int) -> None:
        if values_per_channel < 2:
            raise ValueError(
                f"a batch normalisation group has {values_per_channel} value per channel, so no "
                "variance. Choose a batch size (or group_size) that leaves no rest of one sample."
            )

    def extra_repr(self) -> str:
        """Return the settings shown in a printed model."""
        return (
            f"{len(self.weight)}, group_size={self.group_size}, statistics={self.statistics!r}, "
            f"eps={self.eps}, momentum={self.momentum}"
        )


class _GroupBatchNormAct(GroupBatchNorm):
    """A group batch normalisation with what timm does behind it: drop-out and an activation."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.act(self.drop(super().forward(x)))
        return activated


def follow_groups(module: nn.Module, running_statistics: RunningStatistics) -> None:
    """Say which groups reach the running statistics of every group batch normalisation.

    Several devices without a common normalisation have a group each, and where one of them keeps
    the statistics (`torch.nn.DataParallel`), those of the other groups are lost.

    Args:
        module: Changed in place.
        running_statistics: All of them, or the first group of each batch alone.

    Example:
        >>> norm = GroupBatchNorm(1, group_size=2, momentum=1.0)
        >>> follow_groups(norm, "first_group")
        >>> _ = norm(torch.tensor([[1.0], [3.0], [10.0], [14.0]]))
        >>> norm.running_mean, norm.num_batches_tracked
        (tensor([2.]), tensor(1))
    """
    for norm in module.modules():
        if isinstance(norm, GroupBatchNorm):
            norm.running_statistics = running_statistics


def replace_batch_norms(module: nn.Module, group_size: int | None = None) -> nn.Module:
    """Return ``module`` with a `GroupBatchNorm` in the place of every batch normalisation.

    Parameters and buffers are taken over, so are their names, eps and momentum. A normalisation
    that occurs in several places stays one.

    Args:
        module: Any module, changed in place; torch's batch normalisations and timm's with an
            activation are known.
        group_size: Samples that share statistics; None means the whole global batch.

    Raises:
        ValueError: If a normalisation has no counterpart; it is named.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        >>> replace_batch_norms(model, group_size=4)[1]
        GroupBatchNorm(3, group_size=4, statistics='train', eps=1e-05, momentum=0.1)
    """
    replaced: dict[nn.Module, GroupBatchNorm] = {}
    for path, norm in module.named_modules():
        if isinstance(norm, _BatchNorm):
            replaced[norm] = _group_batch_norm(norm, path or "the module", group_size)
    for parent in list(module.modules()):
        if parent in replaced:
            continue
        for name, child in parent._modules.items():
            if child in replaced:
                setattr(parent, name, replaced[child])
    return replaced.get(module, module)


def _group_batch_norm(norm: Any, path: str, group_size: int | None) -> GroupBatchNorm:  # noqa: ANN401
    """Return the counterpart of one normalisation, with its parameters and buffers."""
    if norm.weight is None or norm.running_mean is None or norm.momentum is None:
        raise ValueError(
            f"{path} is a batch normalisation without scale, without running statistics or "
            "without momentum, which GroupBatchNorm has no counterpart for. Choose another "
            "encoder.backbone.name."
        )
    kind = GroupBatchNorm
    if type(norm) not in _LIBRARY_NORMS:
        if not {"drop", "act"} <= norm._modules.keys():
            raise ValueError(
                f"{path} is a {type(norm).__name__}, a batch normalisation that is not known "
                "here. Choose another encoder.backbone.name."
            )
        kind = _GroupBatchNormAct
    new = kind(len(norm.weight), group_size=group_size, eps=norm.eps, momentum=norm.momentum)
    if isinstance(new, _GroupBatchNormAct):
        new.drop, new.act = norm.drop, norm.act
    new.weight, new.bias = norm.weight, norm.bias
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        new.register_buffer(name, getattr(norm, name))
    return new.train(norm.training)
