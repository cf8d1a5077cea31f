"""Parameter groups by rules on names, optimizers, and learning rates as functions of the epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import torch
from annotated_types import Len
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from crosswalk.ranges import Epoch, NotNegative, OpenShare, Positive

Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class GroupRule:
    """Settings of the parameters whose name contains one of some words.

    Args:
        contains: Words; a parameter is meant if any of them is part of its full name.
        lr: Learning rate of these parameters; None leaves it.
        lr_factor: Their learning rate as a multiple of the base rate; not together with ``lr``.
        weight_decay: Their weight decay; None leaves it.
        optional: Whether a model may be without such parameters.

    Example:
        >>> GroupRule(contains=["bias"], lr_factor=2, weight_decay=0).matches("encoder.fc.bias")
        True
    """

    contains: Sequence[str]
    lr: NotNegative | None = None
    lr_factor: NotNegative | None = None
    weight_decay: NotNegative | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.contains, str) or not self.contains:
            raise ValueError(
                f"contains={self.contains!r} of an optim rule is no list of words; write [bias]."
            )
        if self.lr is not None and self.lr_factor is not None:
            raise ValueError(
                f"the optim rule for {list(self.contains)} gives both lr={self.lr} and "
                f"lr_factor={self.lr_factor}. Keep one."
            )

    def matches(self, name: str) -> bool:
        """Return whether the parameter ``name`` is meant."""
        return any(word in name for word in self.contains)


def parameter_groups(
    module: nn.Module, *, lr: float, weight_decay: float, rules: Sequence[GroupRule] = ()
) -> Groups:
    """Return the trainable parameters, one group per pair of learning rate and weight decay.

    Args:
        module: Whose parameters are meant; frozen ones are left out.
        lr: Base learning rate.
        weight_decay: Weight decay where no rule gives another.
        rules: Applied in order; a later one overrides what it sets itself and nothing else.

    Returns:
        Groups for an optimizer, in the order of their first parameters. Each has a ``name``, under
        which its rate is logged: the first words of the rules that its first parameter met.

    Raises:
        ValueError: If a rule matches no parameter, or nothing is trainable.

    Example:
        >>> rules = [GroupRule(["bias"], lr_factor=2, weight_decay=0)]
        >>> groups = parameter_groups(nn.Linear(3, 1), lr=0.5, weight_decay=0.1, rules=rules)
        >>> [(group["name"], group["lr"], group["weight_decay"]) for group in groups]
        [('base', 0.5, 0.1), ('bias', 1.0, 0)]
    """
    trainable = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if not trainable:
        raise ValueError(f"{type(module).__name__} has no trainable parameter.")
    for number, rule in enumerate(rules):
        if not rule.optional and not any(rule.matches(name) for name, _ in trainable):
            raise ValueError(
                f"optim.rules[{number}] is for names with {list(rule.contains)}, and none of the "
                f"{len(trainable)} trainable parameters has such a name (the first is "
                f"{trainable[0][0]!r}). Correct the words, or remove the rule."
            )
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    names: dict[tuple[float, float], str] = {}
    for name, parameter in trainable:
        settings = [lr, weight_decay]
        matching = [rule for rule in rules if rule.matches(name)]
        for rule in matching:
            if rule.lr is not None:
                settings[0] = rule.lr
            if rule.lr_factor is not None:
                settings[0] = rule.lr_factor * lr
            if rule.weight_decay is not None:
                settings[1] = rule.weight_decay
        key = settings[0], settings[1]
        groups.setdefault(key, []).append(parameter)
        words = "+".join(rule.contains[0].strip(".") for rule in matching)
        names.setdefault(key, words or "base")
    return [
        {"params": parameters, "lr": key[0], "weight_decay": key[1], "name": names[key]}
        for key, parameters in groups.items()
    ]


def _can_be_fused(groups: Groups) -> bool:
    return all(
        parameter.is_floating_point() and parameter.device.type in ("cpu", "cuda")
        for group in groups
        for parameter in group["params"]
    )


def adam(
    groups: Groups,
    *,
    betas: Annotated[Sequence[OpenShare], Len(2, 2)] = (0.9, 0.999),
    eps: Positive = 1e-8,
) -> Optimizer:
    """Return Adam with coupled weight decay (added to the gradient), fused where possible.

    Example:
        >>> adam([{"params": [nn.Parameter(torch.zeros(2))], "lr": 0.5}], eps=1e-3).defaults["eps"]
        0.001
    """
    beta1, beta2 = betas
    return torch.optim.Adam(groups, betas=(beta1, beta2), eps=eps, fused=_can_be_fused(groups))


def adamw(
    groups: Groups,
    *,
    betas: Annotated[Sequence[OpenShare], Len(2, 2)] = (0.9, 0.999),
    eps: Positive = 1e-8,
) -> Optimizer:
    """Return AdamW (weight decay beside the gradient), fused where possible.

    Example:
        >>> type(adamw([{"params": [nn.Parameter(torch.zeros(2))], "lr": 0.5}])).__name__
        'AdamW'
    """
    beta1, beta2 = betas
    return torch.optim.AdamW(groups, betas=(beta1, beta2), eps=eps, fused=_can_be_fused(groups))


def sgd(groups: Groups, *, momentum: OpenShare = 0.0, nesterov: bool = False) -> Optimizer:
    """Return stochastic gradient descent, fused where possible.

    Example:
        >>> groups = [{"params": [nn.Parameter(torch.zeros(2))], "lr": 0.5}]
        >>> sgd(groups, momentum=0.9).param_groups[0]["momentum"]
        0.9
    """
    return torch.optim.SGD(
        groups, momentum=momentum, nesterov=nesterov, fused=_can_be_fused(groups)
    )


class Decay(Protocol):
    """Learning rate after the warm-up."""

    def __call__(self, base_lr: float, *, epoch: int, progress: float) -> float:
        """Return the rate of 0-based ``epoch``; ``progress`` goes from 0 to 1 over the decay."""


@dataclass(frozen=True)
class CosineDecay:
    """Half a cosine from the base rate down to ``target_lr``.

    Example:
        >>> CosineDecay()(1.0, epoch=0, progress=0.5)
        0.5
    """

    target_lr: NotNegative = 0.0

    def __call__(self, base_lr: float, *, epoch: int, progress: float) -> float:
        """Return the rate at ``progress``."""
        share = 0.5 * (1 + math.cos(math.pi * progress))
        return self.target_lr + (base_lr - self.target_lr) * share


@dataclass(frozen=True)
class StepDecay:
    """The base rate times ``gamma`` for every milestone reached; milestones are 0-based epochs.

    Example:
        >>> [StepDecay([2], gamma=0.5)(1.0, epoch=epoch, progress=0.0) for epoch in (1, 2)]
        [1.0, 0.5]
    """

    milestones: Sequence[Epoch]
    gamma: Positive = 0.1

    def __call__(self, base_lr: float, *, epoch: int, progress: float) -> float:
        """Return the rate of ``epoch``."""
        reached = sum(milestone <= epoch for milestone in self.milestones)
        return float(base_lr * self.gamma**reached)


@dataclass(frozen=True)
class ExponentialDecay:
    """From the base rate to ``power`` times the base rate, by equal factors.

    Example:
        >>> ExponentialDecay(power=0.25)(1.0, epoch=0, progress=0.5)
        0.5
    """

    power: Positive

    def __call__(self, base_lr: float, *, epoch: int, progress: float) -> float:
        """Return the rate at ``progress``."""
        return float(base_lr * self.power**progress)


@dataclass(frozen=True)
class LinearDecay:
    """A straight line from the base rate to 0.

    Example:
        >>> LinearDecay()(1.0, epoch=0, progress=0.25)
        0.75
    """

    def __call__(self, base_lr: float, *, epoch: int, progress: float) -> float:
        """Return the rate at ``progress``."""
        return base_lr * (1 - progress)


@dataclass(frozen=True)
class PolynomialDecay:
    """``target_lr`` plus the rest of the base rate times ``power ** (1 - progress)``.

    What RDE's code calls poly: not a polynomial, and it rises from ``power`` to 1.

    Example:
        >>> PolynomialDecay(power=0.25)(1.0, epoch=0, progress=0.5)
        0.5
    """

    power: Positive
    target_lr: NotNegative = 0.0

    def __call__(self, base_lr: float, *, epoch: int, progress: float) -> float:
        """Return the rate at ``progress``."""
        share = self.power ** (1 - progress)
        return float(self.target_lr + (base_lr - self.target_lr) * share)


@dataclass(frozen=True)
class WarmupSchedule:
    """Learning rate of every epoch: a warm-up, then a decay. A pure function of the epoch.

    Source: RDE's official code, which takes it from IRRA.

    Args:
        num_epochs: Epochs of the whole training; the decay ends there.
        decay: Rate after the warm-up.
        warmup_epochs: Epochs of warm-up, 0 for none.
        warmup_factor: Share of the base rate in epoch 0.
        warmup: "linear" rises to the base rate, "constant" stays at ``warmup_factor``.
        decay_in_warmup: Whether the decay multiplies the rates of the warm-up too, at progress 0;
            milestones of a `StepDecay` within the warm-up count there only then. (CMMT, released
            code: yes. RDE and CM-MoCo: no.)

    Example:
        >>> schedule = WarmupSchedule(num_epochs=6, decay=LinearDecay(), warmup_epochs=2)
        >>> [round(schedule(1.0, epoch), 2) for epoch in range(6)]
        [0.1, 0.55, 1.0, 0.75, 0.5, 0.25]
    """

    num_epochs: Epoch
    decay: Decay
    warmup_epochs: Epoch = 0
    warmup_factor: NotNegative = 0.1
    warmup: Literal["linear", "constant"] = "linear"
    decay_in_warmup: bool = False

    def is_warming_up(self, epoch: int) -> bool:
        """Return whether 0-based ``epoch`` is of the warm-up."""
        return epoch < self.warmup_epochs

    def __call__(self, base_lr: float, epoch: int) -> float:
        """Return the learning rate of 0-based ``epoch`` for a group of rate ``base_lr``."""
        if self.is_warming_up(epoch):
            done = 0.0 if self.warmup == "constant" else epoch / self.warmup_epochs
            share = self.warmup_factor * (1 - done) + done
            if self.decay_in_warmup:
                return share * self.decay(base_lr, epoch=epoch, progress=0.0)
            return base_lr * share
        # After the last epoch, where Lightning steps once more, the decay has ended.
        span = max(1, self.num_epochs - self.warmup_epochs)
        progress = min(1.0, (epoch - self.warmup_epochs) / span)
        return self.decay(base_lr, epoch=epoch, progress=progress)


@dataclass(frozen=True)
class CosineFromStart:
    """Half a cosine over all epochs, whose first rates a linear warm-up takes the place of.

    Epochs count from 1: there is no epoch at the base rate, and the last one has ``target_lr``.
    Source: CLIP-ReID's released code (timm's cosine scheduler), its first stage.

    Args:
        num_epochs: Epochs of the whole training.
        warmup_epochs: The first epoch, from 1, that follows the cosine; 0 or 1 for no warm-up.
        warmup_lr: Where the warm-up comes from: the rate of an epoch 0.
        target_lr: Rate of the last epoch.

    Example:
        >>> schedule = CosineFromStart(num_epochs=4, warmup_epochs=2, warmup_lr=0.5)
        >>> [round(schedule(1.0, epoch), 4) for epoch in range(4)]
        [0.75, 0.5, 0.1464, 0.0]
    """

    num_epochs: Epoch
    warmup_epochs: Epoch = 0
    warmup_lr: NotNegative = 0.0
    target_lr: NotNegative = 0.0

    def is_warming_up(self, epoch: int) -> bool:
        """Return whether 0-based ``epoch`` is of the warm-up."""
        return min(epoch + 1, self.num_epochs) < self.warmup_epochs

    def __call__(self, base_lr: float, epoch: int) -> float:
        """Return the learning rate of 0-based ``epoch`` for a group of rate ``base_lr``."""
        number = min(epoch + 1, self.num_epochs)  # behind the last one Lightning steps once more
        if self.is_warming_up(epoch):
            return self.warmup_lr + number * (base_lr - self.warmup_lr) / self.warmup_epochs
        share = 0.5 * (1 + math.cos(math.pi * number / self.num_epochs))
        return self.target_lr + (base_lr - self.target_lr) * share


def epoch_scheduler(optimizer: Optimizer, schedule: Callable[[float, int], float]) -> LambdaLR:
    """Return a scheduler that sets each group's rate to ``schedule(its rate, epoch)``.

    Example:
        >>> optimizer = sgd([{"params": [nn.Parameter(torch.zeros(2))], "lr": 2.0}])
        >>> schedule = WarmupSchedule(num_epochs=4, decay=LinearDecay())
        >>> scheduler = epoch_scheduler(optimizer, schedule)
        >>> optimizer.step(); scheduler.step(); scheduler.get_last_lr()
        [1.5]
    """

    def factor_of(base_lr: float) -> Callable[[int], float]:
        return lambda epoch: schedule(base_lr, epoch) / base_lr if base_lr else 1.0

    return LambdaLR(optimizer, [factor_of(group["lr"]) for group in optimizer.param_groups])


@dataclass(frozen=True)
class OptimBuilder:
    """Builds what Lightning wants of `configure_optimizers` from a module.

    Args:
        optimizer: Makes the optimizer from parameter groups: `adam`, `adamw`, `sgd`, or any class
            of torch.optim.
        lr: Base learning rate.
        weight_decay: Weight decay where no rule gives another.
        rules: Exceptions by parameter name, in order; see `parameter_groups`.
        schedule: ``(base rate, epoch) -> rate``; None keeps the rates.
        interval: What the schedule counts: "epoch", or "step" for updates of the weights, which
            all epochs and milestones of the schedule are then.

    Example:
        >>> build = OptimBuilder(adam, lr=0.5)
        >>> build(nn.Linear(3, 1))["optimizer"].param_groups[0]["lr"]
        0.5
    """

    optimizer: Callable[[Groups], Optimizer]
    lr: NotNegative
    weight_decay: NotNegative = 0.0
    rules: Sequence[GroupRule] = ()
    schedule: Callable[[float, int], float] | None = None
    interval: Literal["epoch", "step"] = "epoch"

    def __call__(self, module: nn.Module) -> OptimizerLRScheduler:
        """Return the optimizer of ``module``'s trainable parameters, and its schedule."""
        groups = parameter_groups(
            module, lr=self.lr, weight_decay=self.weight_decay, rules=self.rules
        )
        optimizer = self.optimizer(groups)
        if self.schedule is None:
            return {"optimizer": optimizer}
        scheduler = epoch_scheduler(optimizer, self.schedule)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": self.interval},
        }
