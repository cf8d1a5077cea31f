"""Learning rates of both trainings by epoch."""

import numpy as np
import torch
from torch import nn

from crosswalk.optim import (
    CosineFromStart,
    GroupRule,
    OptimBuilder,
    StepDecay,
    WarmupSchedule,
    adam,
)
from tests.golden.harness import Case, golden

BIAS = "bias"


def prompt_schedule(case: Case) -> CosineFromStart:
    return CosineFromStart(
        num_epochs=case.item("num_epochs"),
        warmup_epochs=case.item("warmup_epochs"),
        warmup_lr=case.item("warmup_lr_init"),
        target_lr=case.item("lr_min"),
    )


def step_schedule(case: Case) -> WarmupSchedule:
    """Return the schedule of the released code, which counts epochs from 1, from 0."""
    epochs, factor = case.item("warmup_iters"), case.item("warmup_factor")
    return WarmupSchedule(
        num_epochs=case.item("num_epochs"),
        decay=StepDecay(
            [epoch - 1 for epoch in case["milestones"].tolist()], gamma=case.item("gamma")
        ),
        warmup_epochs=max(0, epochs - 1),
        warmup_factor=factor + (1 - factor) / max(1, epochs),
        decay_in_warmup=True,
    )


def bias_rule(case: Case) -> list[GroupRule]:
    decay = case.setting("weight_decay_bias", None)
    factor = case.item("bias_lr_factor")
    return [GroupRule([BIAS], lr_factor=factor, weight_decay=decay, optional=True)]


@golden("clip_reid", "lr_stage1")
def lr_stage1(case: Case) -> None:
    schedule, rate = prompt_schedule(case), case.item("base_lr")

    rates = [schedule(rate, epoch) for epoch in range(case.item("num_epochs"))]

    case.close("out_lr", np.array(rates), rtol=1e-9, atol=1e-18)


@golden("clip_reid", "lr_stage2")
def lr_stage2(case: Case) -> None:
    build = OptimBuilder(
        adam, lr=case.item("base_lr"), rules=bias_rule(case), schedule=step_schedule(case)
    )
    built = build(nn.Linear(2, 1))
    optimizer, scheduler = built["optimizer"], built["lr_scheduler"]["scheduler"]

    rates = []
    for _ in range(case.item("num_epochs")):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()

    # one column where both groups have the same settings
    table = torch.tensor(rates, dtype=torch.float64).expand(-1, case["out_lr"].shape[1])
    case.close("out_lr", table, rtol=1e-9, atol=1e-18)
